"""The prepared folder: what is written is what is read, and a changed folder is refused."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from enrich.errors import UsageError
from training import thesis
from training.data.prepared import (
    Split,
    class_order,
    read_prepared,
    write_tables,
)


def photo(task: str, label: str, name: str, split: Split = "train") -> dict[str, Any]:
    path, group = f"photos/{task}/{label}/{name}.jpg", f"home-{name}"
    file = {"source": f"in, {name}.jpg", "sha256": "ab" * 32, "width": 500, "height": 333}
    return {"task": task, "label": label, "split": split, "path": path, "group": group, **file}


PHOTOS = (
    photo("rooms", "bedroom", "1"),
    photo("rooms", "kitchen", "2"),
    photo("rooms", "bathroom", "3"),
    photo("rooms", "kitchen", "4", "val"),
    photo("floor", "wood", "5"),
    photo("floor", "stone", "6", "val"),
)
DROPPED = {
    "task": "rooms",
    "label": "kitchen",
    "source": "bad.jpg",
    "reason": "unopenable",
    "detail": "empty: the file is empty",
}


def write(folder: Path) -> Path:
    for one in PHOTOS:
        (folder / one["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / one["path"]).write_bytes(b"jpeg")
    table = pd.DataFrame([*PHOTOS, DROPPED]).fillna({"reason": "", "detail": ""})
    write_tables(
        folder, table.astype({"width": "Int64", "height": "Int64"}), {"split": "thesis"}, {"pairs": []}
    )
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    prepared = read_prepared(write(tmp_path))
    assert prepared.photos.to_dict("records") == [*PHOTOS]
    assert prepared.options == {"split": "thesis"}
    assert prepared.of("rooms", "val").to_dict("records") == [PHOTOS[3]]
    # The thesis's classes in the thesis's order, others alphabetically; the same for tasks.
    assert prepared.classes == {"rooms": ("kitchen", "bathroom", "bedroom"), "floor": ("stone", "wood")}
    assert list(prepared.classes) == ["rooms", "floor"]
    summary = json.loads((tmp_path / "prepared.json").read_text())
    assert summary["counts"]["rooms"]["kitchen"] == {"train": 1, "val": 1}
    assert summary["dropped"]["rooms"]["kitchen"] == {"unopenable": 1}
    assert summary["dropped"]["rooms"]["bedroom"] == {}
    assert summary["pairs"] == []
    assert summary["digest"] == prepared.digest


def test_orders() -> None:
    assert class_order("rooms", ["bedroom", "kitchen", "attic"]) == ("attic", "bedroom", "kitchen")
    names = ["zoo", "rooms", "balcony", "attic"]
    assert thesis.in_order(names, thesis.TASKS) == ["balcony", "rooms", "attic", "zoo"]


def test_a_table_changed_by_hand_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path) / "prepared.csv"
    table.write_text(table.read_text().replace("train", "val", 1))
    with pytest.raises(UsageError, match=r"prepared\.csv was changed"):
        read_prepared(tmp_path)


def test_missing_photos_are_counted_and_named(tmp_path: Path) -> None:
    (write(tmp_path) / PHOTOS[1]["path"]).unlink()
    with pytest.raises(UsageError, match=r"1 photos .* the first is photos/rooms/kitchen/2\.jpg"):
        read_prepared(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_a_damaged_summary(tmp_path: Path, text: str) -> None:
    (write(tmp_path) / "prepared.json").write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        read_prepared(tmp_path)


def test_any_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a prepared folder"):
        read_prepared(tmp_path)
