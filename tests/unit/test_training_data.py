"""The manifest of labelled photos: read as documented, and refused in one line where it cannot be used."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enrich.errors import UsageError
from training.data.homes import find_homes
from training.data.labels import ROOMS, UNLABELLED, as_in_manifest, classes_named
from training.data.photos import load_photos

FIXES = Path(__file__).parents[2] / "training" / "label_fixes.csv"
HEADER = "path,group,split,room,balcony,fireplace,source"
ROWS = [
    "homes/a/1.jpg,a,train,kitchen,0,0,site-1",
    "homes/a/2.jpg,a,train,stairs,1,,site-1",
    "homes/b/1.jpg,b,listing,,,1,site-1",
    "scenes/c.jpg,c,train,map,0,0,data-set",
]


def write(folder: Path, rows: list[str], header: str = HEADER, files: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows if files else []:
        path = folder / row.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row.encode())
    return folder


def test_empty_labels_are_masked_and_values_merged_into_classes(tmp_path: Path) -> None:
    photos = load_photos(write(tmp_path, ROWS))
    assert photos.labels["balcony"].tolist() == [0, 1, UNLABELLED, 0]
    assert photos.labels["fireplace"].tolist() == [0, UNLABELLED, 1, 0]
    names = [ROOMS[label] if label >= 0 else None for label in photos.labels["room"]]
    assert names == ["kitchen", "other", None, "floor_plan"]
    assert photos.collection.tolist() == ["homes", "homes", "homes", "scenes"]


def test_homes_of_one_small_source_are_one_site_and_those_of_a_data_set_are_not(tmp_path: Path) -> None:
    scenes = [f"scenes/{n}.jpg,scene-{n},train,bedroom,0,0,data-set" for n in range(100)]
    photos = load_photos(write(tmp_path, [*ROWS[:3], *scenes]))
    assert set(photos.site[:3]) == {"site-1"}  # homes a and b
    assert photos.site[3:].tolist() == photos.group[3:].tolist()


def test_photos_of_no_home_are_no_home_together(tmp_path: Path) -> None:
    loose = [f"loose/{n}.jpg,,train,bedroom,0,0,{'site-2' if n % 2 else ''}" for n in range(6)]
    photos = load_photos(write(tmp_path, [*ROWS, *loose]))
    assert find_homes(photos, np.ones(len(photos), dtype=bool)) == []
    assert len(set(photos.group)) == 3 + len(loose)
    assert photos.site[4:].tolist() == [
        "loose/0.jpg",
        "site-2",
        "loose/2.jpg",
        "site-2",
        "loose/4.jpg",
        "site-2",
    ]


def test_a_home_of_two_sources_is_of_one_site(tmp_path: Path) -> None:
    rows = [
        "h/1.jpg,a,train,kitchen,0,0,site-1",
        "h/2.jpg,a,train,kitchen,0,0,",
        "h/3.jpg,a,train,kitchen,0,0,site-2",
        "h/4.jpg,b,train,kitchen,0,0,site-2",
        "h/5.jpg,c,train,kitchen,0,0,site-3",
    ]
    assert load_photos(write(tmp_path, rows)).site.tolist() == ["site-1"] * 4 + ["site-3"]


def test_homes_that_share_a_photo_are_of_one_site_and_those_that_share_a_logo_are_not(tmp_path: Path) -> None:
    names = [f"{home}-{photo}" for photo in ("own", "view", "logo") for home in range(8)]
    rows = [f"h/{name}.jpg,{name[0]},train,kitchen,0,0," for name in names]
    folder = write(tmp_path, rows)
    for name in ("0-view", "1-view", *names[16:]):
        (folder / f"h/{name}.jpg").write_bytes(name[2:].encode())
    assert load_photos(folder).site.tolist() == [*"00234567"] * 3


def test_exclude_leaves_out_paths_by_prefix(tmp_path: Path) -> None:
    photos = load_photos(write(tmp_path, ROWS), exclude=["homes/a", "scenes"])
    assert photos.paths == ("homes/b/1.jpg",)


def test_a_file_of_labels_may_name_photos_that_are_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", ROWS)
    (tmp_path / "sea.csv").write_text("path,label\nhomes/a/1.jpg,1\nhomes/b/1.jpg,0\n")
    photos = load_photos(folder, exclude=["homes/a"], more={"seaview": tmp_path / "sea.csv"})
    assert photos.labels["seaview"].tolist() == [0, UNLABELLED]
    assert "seaview" not in photos.classes


def test_a_file_of_labels_or_corrections_may_write_umlauts_in_two_signs(tmp_path: Path) -> None:
    """As tools of macOS do. Where two paths differ in that alone, each stands for itself."""
    two_signs, rows = "homes/a/ku\u0308che.jpg", [row.replace("1.jpg", "k\xfcche.jpg") for row in ROWS]
    folder = write(tmp_path / "photos", rows)
    (tmp_path / "sea.csv").write_text(f"path,label\n{two_signs},1\n", encoding="utf-8")
    corrected = fixes(tmp_path, f"{two_signs},balcony=1,seen")
    photos = load_photos(folder, more={"sea": tmp_path / "sea.csv"}, fixes=corrected)
    assert photos.labels["sea"][0] == photos.labels["balcony"][0] == 1
    both = pd.Series(["k\xfcche.jpg", "ku\u0308che.jpg"])
    assert as_in_manifest(both, both).tolist() == both.tolist()
    third = pd.Series(["kuche.jpg"])
    assert as_in_manifest(third, both).tolist() == third.tolist()


@pytest.mark.parametrize("words", [("yes", "no"), ("True", "False"), ("TRUE", "false"), (" 1", "0 ")])
def test_yes_and_no_in_words_are_no_classes(tmp_path: Path, words: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=r"the labels are .*; write 1 and 0 for a yes-or-no attribute"):
        classes_named(pd.Series(["", *words]), tmp_path / "pool.csv")


def test_labels_of_a_head_may_be_a_column_of_the_manifest(tmp_path: Path) -> None:
    """As `enrich labels export` writes it."""
    folder = write(
        tmp_path, [row + cell for row, cell in zip(ROWS[:3], (",1", ",0", ","), strict=True)], HEADER + ",sea"
    )
    photos = load_photos(folder, more={"sea": folder / "manifest.csv"})
    assert photos.labels["sea"].tolist() == [1, 0, UNLABELLED]
    with pytest.raises(UsageError, match=r"lacks the column label, or one called view; it needs path, label"):
        load_photos(folder, more={"view": folder / "manifest.csv"})


def test_photos_beside_the_manifest_are_one_collection(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,a,train,kitchen,0,0,site-1" for n in range(3)]
    assert set(load_photos(write(tmp_path, rows)).collection) == {"(no folder)"}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (ROWS, HEADER.replace("fireplace", "hearth"), "lacks the column fireplace"),
        (ROWS, HEADER.replace("group", "home"), "lacks the column group"),
        ([], HEADER, "holds no photo"),
        ([ROWS[0], ROWS[0]], HEADER, "names homes/a/1.jpg more than once"),
        ([ROWS[0].replace(",0,0,", ",maybe,0,")], HEADER, "balcony of homes/a/1.jpg is 'maybe'"),
        ([ROWS[0].replace("kitchen", "kitchn")], HEADER, "room of homes/a/1.jpg is 'kitchn'"),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path: Path, rows: list[str], header: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_photos(write(tmp_path, rows, header))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_photos_are_counted_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path, ROWS)
    (folder / "homes/a/2.jpg").unlink()
    with pytest.raises(UsageError, match=r"^1 photos .* the first is homes/a/2\.jpg"):
        load_photos(folder)


@pytest.mark.parametrize("content", [b"", b'path,group\n"open', b"\xff\xfe\x00"])
def test_a_manifest_that_is_no_csv(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"manifest\.csv"):
        load_photos(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is missing"):
        load_photos(tmp_path / "nothing")


def fixes(folder: Path, *rows: str) -> Path:
    path = folder / "fixes.csv"
    path.write_text("\n".join(["path,label,why", *rows]) + "\n")
    return path


def test_labels_are_corrected_and_taken_back(tmp_path: Path) -> None:
    folder = write(tmp_path, ROWS)
    before = load_photos(folder)
    one, other = before.paths[:2]
    found = load_photos(
        folder,
        fixes=fixes(tmp_path, f"{one},balcony=1,seen", f"{one},room=kitchen,x", f"{other},fireplace=,x"),
    )
    assert found.labels["balcony"][0] == 1 and found.labels["fireplace"][1] == UNLABELLED
    assert found.classes["room"][found.labels["room"][0]] == "kitchen"
    for head, labels in found.labels.items():
        assert (labels[2:] == before.labels[head][2:]).all()


@pytest.mark.parametrize(
    ("row", "refused"),
    [
        ("elsewhere.jpg,balcony=1,x", "elsewhere.jpg is not in manifest.csv"),
        ("{one},1,x", "write COLUMN=LABEL, with one of balcony, fireplace, room"),
        ("{one},garden=1,x", "write COLUMN=LABEL"),
        (
            "{one},balcony=maybe,x",
            "fixes.csv: {one} has the label 'balcony=maybe'; balcony is 1, 0, or nothing",
        ),
        ("{one},room=Kitchen,x", "fixes.csv: {one} has the label 'room=Kitchen'; room is bathroom, bedroom"),
        (
            "{one},balcony=1,x\n{one},room=kitchen,x\n{one},balcony=0,y",
            "fixes.csv corrects balcony of {one} more than once; keep one of its rows",
        ),
    ],
)
def test_a_correction_that_says_nothing_is_refused(tmp_path: Path, row: str, refused: str) -> None:
    folder = write(tmp_path, ROWS)
    one = load_photos(folder).paths[0]
    with pytest.raises(UsageError, match=re.escape(refused.format(one=one))):
        load_photos(folder, fixes=fixes(tmp_path, row.format(one=one)))


def test_the_starters_corrections_change_the_labels_of_photos_that_are_there(shared: Path) -> None:
    with (shared / "photos" / "manifest.csv").open(newline="") as file:
        manifest = {row["path"]: row for row in csv.DictReader(file)}
    with FIXES.open(newline="") as file:
        for fix in csv.DictReader(file):
            column, _, label = fix["label"].partition("=")
            assert manifest[fix["path"]][column] != label and fix["why"]


def test_a_file_whose_columns_stand_apart_by_semicolons_is_told_of_commas(tmp_path: Path) -> None:
    (tmp_path / "sea.csv").write_text("path;label\nhomes/a/1.jpg;1\n")
    with pytest.raises(UsageError, match=r"sea\.csv has semicolons between its columns; write commas"):
        load_photos(write(tmp_path / "photos", ROWS), more={"sea": tmp_path / "sea.csv"})
