"""The manifest of labelled photos: read as documented, and refused in one line where it cannot be used."""

from pathlib import Path

import pytest

from enrich.errors import UsageError
from training.data.labels import ROOM, UNLABELLED
from training.data.photos import load_photos

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
    names = [ROOM.classes[label] if label >= 0 else None for label in photos.labels["room"]]
    assert names == ["kitchen", "other", None, "floor_plan"]
    assert photos.collection.tolist() == ["homes", "homes", "homes", "scenes"]


def test_homes_of_one_small_source_are_one_site_and_those_of_a_data_set_are_not(tmp_path: Path) -> None:
    scenes = [f"scenes/{n}.jpg,scene-{n},train,bedroom,0,0,data-set" for n in range(100)]
    photos = load_photos(write(tmp_path, [*ROWS[:3], *scenes]))
    assert set(photos.site[:3]) == {"site-1"}  # homes a and b
    assert photos.site[3:].tolist() == photos.group[3:].tolist()


def test_exclude_leaves_out_paths_by_prefix(tmp_path: Path) -> None:
    photos = load_photos(write(tmp_path, ROWS), exclude=["homes/a", "scenes"])
    assert photos.paths == ("homes/b/1.jpg",)


def test_a_file_of_labels_may_name_photos_that_are_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", ROWS)
    (tmp_path / "sea.csv").write_text("path,label\nhomes/a/1.jpg,1\nhomes/b/1.jpg,0\n")
    photos = load_photos(folder, exclude=["homes/a"], more={"seaview": tmp_path / "sea.csv"})
    assert photos.labels["seaview"].tolist() == [0, UNLABELLED]
    assert "seaview" not in photos.classes


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
