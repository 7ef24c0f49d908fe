"""Where photos come from: class folders and manifests, and the mistakes in either, a line each."""

import os
from pathlib import Path

import pytest

from enrich.errors import UsageError
from training.data.sources import find_candidates

HEADER = "path,group,split,room,balcony,fireplace"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def manifest(root: Path, rows: list[str], header: str = HEADER) -> Path:
    touch(root, *(row.split(",")[0] for row in rows))
    (root / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_class_folders_in_the_order_of_file_names(tmp_path: Path) -> None:
    touch(tmp_path, "rooms/kitchen/b.jpg", "rooms/kitchen/a.png", "rooms/bathroom/a.jpg", "rooms/bedroom/.x")
    touch(tmp_path, "rooms/bedroom/villa/2.jpg", "rooms/kitchen/villa/0.jpg", "rooms/bedroom/hut/1.jpg")
    touch(tmp_path, "readme.txt", ".git/x/y.jpg")
    found = find_candidates(tmp_path)
    assert [*found.itertuples(index=False, name=None)] == [
        # The thesis's order of classes; a folder inside a class is a home.
        ("rooms", "kitchen", "rooms/kitchen/villa/0.jpg", "villa"),
        ("rooms", "kitchen", "rooms/kitchen/a.png", "kitchen/a.png"),
        ("rooms", "kitchen", "rooms/kitchen/b.jpg", "kitchen/b.jpg"),
        ("rooms", "bathroom", "rooms/bathroom/a.jpg", "bathroom/a.jpg"),
        ("rooms", "bedroom", "rooms/bedroom/hut/1.jpg", "hut"),
        ("rooms", "bedroom", "rooms/bedroom/villa/2.jpg", "villa"),
    ]


def test_homes_that_are_links_to_folders_are_read(tmp_path: Path) -> None:
    touch(tmp_path / "store", "villa/1.jpg", "hut/2.jpg", "hut/inside/3.jpg")
    root = touch(tmp_path / "photos", "rooms/kitchen/4.jpg", "rooms/bathroom/5.jpg")
    (root / "rooms/kitchen/villa").symlink_to(tmp_path / "store/villa")
    (root / "rooms/bathroom/hut").symlink_to(tmp_path / "store/hut")
    (root / "rooms/bathroom/6.jpg").symlink_to(tmp_path / "store/villa/1.jpg")
    assert [*find_candidates(root)[["source", "group"]].itertuples(index=False, name=None)] == [
        ("rooms/bathroom/hut/2.jpg", "hut"),
        ("rooms/bathroom/hut/inside/3.jpg", "hut"),
        ("rooms/bathroom/5.jpg", "bathroom/5.jpg"),
        ("rooms/bathroom/6.jpg", "bathroom/6.jpg"),
        ("rooms/kitchen/villa/1.jpg", "villa"),
        ("rooms/kitchen/4.jpg", "kitchen/4.jpg"),
    ]


def test_tasks_and_prefixes_can_be_chosen(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{task}/{label}/{i}.jpg" for task in "st" for label in "ab" for i in range(2)))
    found = find_candidates(tmp_path, tasks=["t"], exclude=["t/a/1"])
    assert found["source"].tolist() == ["t/a/0.jpg", "t/b/0.jpg", "t/b/1.jpg"]
    with pytest.raises(UsageError, match=r"--task u: .* has the tasks s, t"):
        find_candidates(tmp_path, tasks=["u"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no photos as <task>/<class>/x.jpg and no manifest.csv"),
        (["x.jpg"], "has no photos as"),
        (["kitchen/x.jpg"], "has no photos as"),
        (["rooms/kitchen/x.jpg"], "task rooms .* has only the class kitchen: a classifier needs two"),
        (["t/a/x.jpg", "t/b/.hidden"], "class b of task t .* holds no photo"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        find_candidates(touch(tmp_path, *names))
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_in_utf_8_is_refused_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "rooms/kitchen/kök.jpg", "rooms/bathroom/badrum.jpg")
    assert len(find_candidates(tmp_path)) == 2
    os.rename(tmp_path / "rooms/bathroom/badrum.jpg", bytes(tmp_path / "rooms/bathroom") + b"/b\xe5d.jpg")
    with pytest.raises(UsageError, match=r"rooms/bathroom/b.*d\.jpg.* not in UTF-8: rename it") as caught:
        find_candidates(tmp_path)
    assert str(caught.value).encode()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        find_candidates(tmp_path / "nowhere")


ROWS = [
    "b.jpg,h1,train,exterior,1,0",
    "in.jpg,h1,train,living_room,0,1",
    "out.jpg,h2,train,exterior,0,0",
    "k.jpg,h2,train,kitchen,,0",
    "bath.jpg,h3,train,bathroom,0,",
    "bed.jpg,h3,train,bedroom,1,1",
    "nothing.jpg,h3,train,,0,0",
    "other.jpg,h4,listing,kitchen,1,1",
]


def test_the_thesis_tasks_of_a_manifest(tmp_path: Path) -> None:
    found: dict[str, set[str]] = {}
    for candidate in find_candidates(manifest(tmp_path, ROWS)).itertuples():
        found.setdefault(f"{candidate.task}/{candidate.label}", set()).add(candidate.source)
    # Negatives are indoor rooms only; what is not labelled is in neither class; split `listing` is not used.
    assert found == {
        "balcony/balcony": {"b.jpg", "bed.jpg"},
        "balcony/indoor": {"in.jpg", "bath.jpg"},
        "fireplace/fireplace": {"in.jpg", "bed.jpg"},
        "fireplace/no_fireplace": {"k.jpg"},
        "rooms/kitchen": {"k.jpg"},
        "rooms/bathroom": {"bath.jpg"},
        "rooms/bedroom": {"bed.jpg"},
    }


def test_the_order_of_a_manifest_is_drawn(tmp_path: Path) -> None:
    rows = [f"{i:02d}.jpg,h{i},train,{'kitchen' if i % 2 else 'bathroom'},0,0" for i in range(40)]
    rows += ["bed.jpg,h,train,bedroom,0,0"]
    manifest(tmp_path, rows)
    drawn = [find_candidates(tmp_path, tasks=["rooms"], seed=seed)["source"].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != sorted(drawn[0])
    assert sorted(drawn[0]) == sorted(drawn[2])


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (ROWS, HEADER.replace("fireplace", "hearth"), "lacks the column fireplace"),
        ([ROWS[0].replace(",1,0", ",yes,0")], HEADER, "balcony of b.jpg is 'yes'"),
        ([ROWS[0].replace("exterior", "cellar")], HEADER, "room of b.jpg is 'cellar'"),
        ([ROWS[-1]], HEADER, "no row of split train"),
        (ROWS[:3], HEADER, "class no_fireplace of task fireplace .* holds no photo"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path: Path, rows: list[str], header: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        find_candidates(manifest(tmp_path, rows, header))
    assert "\n" not in str(caught.value)


def test_labels_for_missing_files(tmp_path: Path) -> None:
    (manifest(tmp_path, ROWS) / "k.jpg").unlink()
    with pytest.raises(UsageError, match=r"1 photos of .*manifest\.csv are not there, the first is k\.jpg"):
        find_candidates(tmp_path)
