"""`enrich-train prepare` as a whole: what it writes, what it leaves out, and what it refuses to touch."""

import csv
import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from enrich.errors import UsageError
from tests.support.pictures import class_folders, picture, save_picture
from training import terminal
from training.data import prepare as prepare_module
from training.data.clean import Looked
from training.data.decide import Rules
from training.data.prepare import prepare_command
from training.data.prepared import SPLITS, read_prepared

SMALL = Rules(width=60, min_width=40)


@dataclass(frozen=True)
class Asked:
    """What `prepare` is asked for."""

    photos: Path
    out: Path
    rules: Rules = SMALL
    overwrite: bool = False


class Outcome(NamedTuple):
    """What `prepare` returns."""

    table: pd.DataFrame
    notes: list[str]


def prepare(asked: Asked) -> Outcome:
    return Outcome(*prepare_module.prepare(asked.photos, asked.out, asked.rules, asked.overwrite))


@pytest.fixture
def options(tmp_path: Path) -> Asked:
    """Ten different photos in each of two classes."""
    root = class_folders(tmp_path / "photos", {"t/a": 10, "t/b": 10})
    return Asked(root, tmp_path / "out")


def reasons(outcome: Outcome) -> dict[str, str]:
    """Source -> reason of what was left out."""
    dropped = outcome.table[outcome.table["reason"] != ""]
    return dict(zip(dropped["source"], dropped["reason"], strict=True))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_it_writes_is_what_compare_reads(options: Asked) -> None:
    outcome = prepare(options)
    prepared = read_prepared(options.out)
    kept = outcome.table[prepared.photos.columns].to_dict("records")
    assert prepared.photos.to_dict("records") == kept
    assert prepared.classes == {"t": ("a", "b")}
    assert prepared.photos[["label", "split"]].value_counts().to_dict() == {
        ("a", "train"): 8,
        ("a", "val"): 2,
        ("b", "train"): 8,
        ("b", "val"): 2,
    }
    assert prepared.of("t", "val")["source"].tolist() == [
        f"t/{label}/{number}.jpg" for label in "ab" for number in ("08", "09")
    ]
    for photo in prepared.photos.itertuples():
        with Image.open(options.out / photo.path) as image:
            assert image.size == (photo.width, photo.height) == (60, 40)
    assert {file.name for file in options.out.iterdir()} == {
        "prepared.csv",
        "photos",
        "dropped.csv",
        "prepared.json",
    }


def test_the_same_photos_make_the_same_folder(options: Asked, tmp_path: Path) -> None:
    prepare(options)
    prepare(replace(options, out=tmp_path / "again"))
    assert tree(options.out) == tree(tmp_path / "again")


def test_every_photo_left_out_is_listed_with_its_reason(options: Asked) -> None:
    a, b = options.photos / "t/a", options.photos / "t/b"
    (a / "corrupt.jpg").write_bytes(b"\xff\xd8\xff no photo")
    save_picture(a / "small.jpg", 500, 39, 50)
    shutil.copy(a / "00.jpg", a / "copy.jpg")
    picture(1).resize((80, 54)).save(a / "smaller-01.jpg", quality=70)
    shutil.copy(b / "05.jpg", a / "wrong-class.jpg")
    outcome = prepare(options)
    assert reasons(outcome) == {
        "t/a/corrupt.jpg": "unopenable",
        "t/a/small.jpg": "too_small",
        "t/a/copy.jpg": "duplicate",
        "t/a/smaller-01.jpg": "near_duplicate",
        "t/a/wrong-class.jpg": "contradicting",
        "t/b/05.jpg": "contradicting",
    }
    with (options.out / "dropped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["source"]: row["reason"] for row in rows} == reasons(outcome)
    assert next(row["detail"] for row in rows if "copy" in row["source"]) == "equal to t/a/00.jpg"
    found = [*read_prepared(options.out).photos["source"], *(row["source"] for row in rows)]
    assert len(found) == len(set(found)) == 25


def test_no_near_duplicate_stands_on_both_sides(options: Asked) -> None:
    shutil.copy(options.photos / "t/a/00.jpg", options.photos / "t/a/zz.jpg")
    picture(10).resize((90, 60)).save(options.photos / "t/b/zz.jpg", quality=60)
    outcome = prepare(options)
    assert reasons(outcome) == {"t/a/zz.jpg": "duplicate", "t/b/zz.jpg": "near_duplicate"}
    assert "t: uncleaned, 2 pairs of near-duplicates would stand on both sides" in "\n".join(outcome.notes)


@pytest.fixture
def alike(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """File name -> perceptual hash to give it instead of its own."""
    given: dict[str, int] = {}
    look = prepare_module.inspect

    def inspect(file: Path, *args: Any) -> Looked:
        name = "/".join(file.parts[-2:])
        found = look(file, *args)
        return replace(found, fingerprint=(given[name], 0)) if name in given else found

    monkeypatch.setattr(prepare_module, "inspect", inspect)
    yield given


def test_of_a_doubtful_pair_on_both_sides_the_validation_photo_goes(
    options: Asked, alike: dict[str, int]
) -> None:
    alike |= {"a/01.jpg": 0, "a/09.jpg": (1 << 26) - 1}  # 26 bits apart
    outcome = prepare(options)
    assert reasons(outcome) == {"t/a/09.jpg": "straddles"}
    dropped = outcome.table[outcome.table["reason"] != ""]
    assert dropped["detail"].item() == "26 of 128 bits from t/a/01.jpg, which trains"


def test_a_doubtful_pair_on_one_side_stays_and_is_shown(options: Asked, alike: dict[str, int]) -> None:
    prepare(options)
    assert not (options.out / "doubtful.png").exists(), "there is nothing to look at"
    alike |= {"a/01.jpg": 0, "b/02.jpg": (1 << 26) - 1, "a/03.jpg": (1 << 64) - 1}
    outcome = prepare(replace(options, overwrite=True))
    assert reasons(outcome) == {}
    assert any("1 doubtful pairs kept" in note for note in outcome.notes)
    assert Image.open(options.out / "doubtful.png").height > 165
    text = (options.out / "prepared.json").read_text()
    assert '"distance": 26' in text and '"decision": "doubtful"' in text


def test_homes_stay_whole_with_split_group(tmp_path: Path) -> None:
    homes = {f"t/{label}/home-{home}": 2 for label in "ab" for home in range(10)}
    root = class_folders(tmp_path / "photos", homes)
    prepare(Asked(root, tmp_path / "out", replace(SMALL, split="group")))
    prepared = read_prepared(tmp_path / "out")
    train, val = (set(prepared.of("t", side)["group"]) for side in SPLITS)
    assert (len(train), len(val), train & val) == (8, 2, set())


def test_cap_and_thesis_sizes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"rooms/kitchen/villa": 5, "rooms/kitchen": 4})
    class_folders(root, {"rooms/bathroom": 3, "rooms/bedroom": 3, "t/a": 3, "t/b": 3}, seed=50)
    rules = replace(SMALL, cap=2, sizes="thesis")
    outcome = prepare(Asked(root, tmp_path / "out", rules))
    assert Counter(reasons(outcome).values()) == {"over_cap": 3}
    assert "rooms/kitchen: 6 photos, the thesis had 320" in outcome.notes
    assert "t/a: the thesis had no such class, all photos are kept" in outcome.notes
    warning = "warning: class a of task t has 2 training photos, fewer than a batch of 32"
    assert any(note.startswith(warning) for note in outcome.notes)


def test_a_class_whose_only_validation_photo_is_doubtful(tmp_path: Path, alike: dict[str, int]) -> None:
    root = class_folders(tmp_path / "photos", {"t/a": 4, "t/b": 4})
    alike |= {"b/00.jpg": 0, "b/03.jpg": (1 << 26) - 1}
    with pytest.raises(UsageError, match="class b of task t has no photo left to validate with"):
        prepare(Asked(root, tmp_path / "out"))


@pytest.mark.parametrize("split", ["thesis", "group"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_class_without_two_usable_photos(
    tmp_path: Path, count: int, split: Literal["thesis", "group"]
) -> None:
    root = class_folders(tmp_path / "photos", {"t/a": 5, "t/b": count})
    (root / "t/b/bad.jpg").write_bytes(b"")
    save_picture(root / "t/b/small.jpg", 99, 39, 39)
    message = (
        f"class b of task t has {count} usable photos, two are the least "
        r"\(dropped: 1 unopenable, 1 too_small\); add photos, or lower --min-width"
    )
    with pytest.raises(UsageError, match=message):
        prepare(Asked(root, tmp_path / "out", replace(SMALL, split=split)))
    assert not (tmp_path / "out").exists()


def test_too_little_disk(options: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(100, 80, 20_010_000))
    with pytest.raises(UsageError, match=r"too little disk for --out out: 20 MB are needed, 20 MB are free"):
        prepare(options)
    assert not options.out.exists()


def fill(out: Path, kind: str, options: Asked) -> None:
    if kind == "file":
        out.write_text("mine")
    elif kind == "prepared":
        prepare(options)
    else:
        out.mkdir()
        (out / "prepared.csv").write_text("mine")
        if kind == "prepared and more":
            (out / "prepared.json").write_text("{}")
            (out / "thesis.docx").write_text("years of work")


@pytest.mark.parametrize(
    ("kind", "overwrite", "message"),
    [
        ("file", True, "is a file"),
        ("other", True, "holds other files"),
        ("prepared and more", True, "holds other files"),
        ("prepared", False, "is a prepared folder already: add --overwrite"),
    ],
)
def test_what_is_there_is_not_overwritten(options: Asked, kind: str, overwrite: bool, message: str) -> None:
    fill(options.out, kind, options)
    before = tree(options.out.parent)
    with pytest.raises(UsageError, match=message):
        prepare(replace(options, overwrite=overwrite))
    assert tree(options.out.parent) == before


@pytest.mark.parametrize("out", ["photos", "photos/t/out", "."])
def test_the_photos_and_the_result_are_kept_apart(options: Asked, tmp_path: Path, out: str) -> None:
    with pytest.raises(UsageError, match="lie in each other"):
        prepare(replace(options, out=tmp_path / out, overwrite=True))


def test_an_empty_folder_is_filled_and_a_prepared_one_replaced(options: Asked) -> None:
    options.out.mkdir()
    prepare(options)
    (options.photos / "t/a/09.jpg").unlink()
    prepare(replace(options, overwrite=True))
    assert len(read_prepared(options.out).photos) == 19
    assert [file.name for file in options.out.parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("step", "number", "kind", "message"),
    [
        ("write_tables", errno.ENOSPC, OSError, "No space left"),  # exit code 3, see training/cli.py
        ("draw_sheet", errno.EACCES, UsageError, "cannot be written, nothing was changed: .*Permission"),
        ("rename", errno.EDQUOT, OSError, "quota exceeded"),
    ],
)
def test_an_error_while_writing_leaves_the_earlier_folder(
    options: Asked,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    kind: type[Exception],
    message: str,
) -> None:
    prepare(options)
    before = tree(options.out.parent)
    rename = os.rename

    def fail(*args: Any) -> None:
        if step == "rename" and Path(args[0]).name != "made":
            return rename(*args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, step) if step == "rename" else (prepare_module, step)), fail)
    with pytest.raises(kind, match=message):
        prepare(replace(options, overwrite=True))
    assert tree(options.out.parent) == before


def test_the_command_prints_what_was_kept_and_dropped(options: Asked) -> None:
    (options.photos / "t/a/corrupt.jpg").write_bytes(b"")
    app = typer.Typer()
    app.command()(prepare_command)
    arguments = [str(options.photos), "--out", str(options.out), "--width", "60", "--min-width", "40"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines()]
    assert ["t", "a", "8", "2", "1"] in rows
    assert ["t", "b", "8", "2", "-"] in rows
    assert "unopenable" in result.stdout
    assert f"20 photos prepared in {options.out}" in result.stdout
    assert read_prepared(options.out).options["width"] == 60


def test_a_name_with_a_carriage_return_is_read_back(options: Asked) -> None:
    name = "t/a/0\r0.jpg"
    (options.photos / "t/a/00.jpg").rename(options.photos / name)
    prepare(options)
    photos = read_prepared(options.out).photos
    assert len(photos) == 20
    assert name in set(photos["source"])


def test_names_in_square_brackets_or_between_colons_are_printed_as_they_are(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"t[task]/a[old]": 5, "t[task]/:house:": 5})
    app = typer.Typer()
    app.command()(prepare_command)
    arguments = [str(root), "--out", str(tmp_path / "out"), "--width", "60", "--min-width", "40"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines()]
    assert ["t[task]", "a[old]", "4", "1"] in rows
    assert ["t[task]", ":house:", "4", "1"] in rows


def test_on_a_terminal_progress_counts_every_photo_looked_at_and_written(
    options: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    (options.photos / "t/a/corrupt.jpg").write_bytes(b"")
    seen: list[str] = []
    totals = {}

    def track(items: Iterable[Any], what: str, total: int, **options: Any) -> Iterator[Any]:
        totals[what] = total
        for item in items:
            seen.append(what)
            yield item

    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    monkeypatch.setattr(terminal, "track", track)
    prepare(options)
    assert Counter(seen) == totals == {"looking": 21, "writing": 20}


def test_photos_narrower_than_the_width_are_dropped_unless_told(options: Asked) -> None:
    app = typer.Typer()
    app.command()(prepare_command)
    result = CliRunner().invoke(app, [str(options.photos), "--out", str(options.out), "--width", "97"])
    assert isinstance(result.exception, UsageError)
    assert result.output == ""
    assert "dropped: 10 too_small" in str(result.exception)
