"""`enrich-train prepare`: from folders of photos, as they were gathered, to what `compare` trains on.

Everything is decided before a file is written, and written beside its place before it is put there.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from rich.table import Table
from typer import Argument, Option

from enrich.atomic import FULL, new_folder
from enrich.errors import UsageError
from training.data.clean import Looked, inspect, write_photo
from training.data.decide import DOUBTFUL, MOST_SEED, STRADDLES, Rules, decide
from training.data.prepared import DROPPED, PHOTOS, SHEET, SPLITS, SUMMARY, TABLE, counted, write_tables
from training.data.sheet import contact_sheet
from training.data.sources import find_candidates
from training.terminal import plain, with_bar
from training.thesis import BATCH, SIZES

THREADS = 2
BYTES_PER_PIXEL = 0.6
"""Of a photo as `write_photo` writes it, at most; for the estimate of the disk space."""
SPARE_BYTES = 20_000_000
"""For the tables and the contact sheet."""
SHEET_PAIRS = 120
"""Pairs on the contact sheet at most."""
SHOWN = ("contradicting", STRADDLES, DOUBTFUL, "near_duplicate")
"""What came of the pairs on the contact sheet, the most doubtful first."""


def prepare_command(
    photos: Annotated[
        Path, Argument(metavar="PHOTOS", help="Folder of <task>/<class>/ folders, or with manifest.csv")
    ],
    out: Annotated[Path, Option(help="Folder to write")],
    split: Annotated[
        Literal["thesis", "group"], Option(help="thesis: first 80 % of each class trains; group: whole homes")
    ] = "thesis",
    sizes: Annotated[
        Literal["all", "thesis"], Option(help="thesis: draw classes down to the thesis's sizes")
    ] = "all",
    task: Annotated[list[str] | None, Option(help="Only this task")] = None,
    exclude: Annotated[list[str] | None, Option(help="Leave out photos whose path starts so")] = None,
    cap: Annotated[int, Option(min=0, help="Photos per home and class at most; 0: all")] = 0,
    width: Annotated[int, Option(min=32, help="Pixels wide that wider photos become")] = 500,
    min_width: Annotated[
        int | None, Option(min=1, help="Narrower photos are dropped; default: --width")
    ] = None,
    near: Annotated[
        int, Option(min=0, max=64, help="Photos that differ in at most as many of 128 bits are the same")
    ] = Rules.near,
    seed: Annotated[int, Option(min=0, max=MOST_SEED, help="Seed of what is drawn")] = 0,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an earlier prepared folder")] = False,
) -> None:
    """Clean labelled photos, drop duplicates, split them for `compare`."""
    smallest = width if min_width is None else min_width
    rules = Rules(split, sizes, cap, near, seed, tuple(task or ()), tuple(exclude or ()), width, smallest)
    table, notes = prepare(photos, out, rules, overwrite)
    kept = (table["reason"] == "").sum()
    console = plain(soft_wrap=False)
    console.print(_counts(table))
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"{kept} photos prepared in {out}", soft_wrap=True)


def _counts(table: pd.DataFrame) -> Table:
    """Photos kept and dropped per task, class and reason."""
    counts, shown = counted(table), Table("task", "class")
    for name in counts.columns:
        shown.add_column(name.replace("_", " "), justify="right")
    for (task, label), figures in counts.iterrows():
        shown.add_row(task, label, *(str(figure) if figure else "-" for figure in figures))
    return shown


def prepare(photos: Path, out: Path, rules: Rules, overwrite: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Prepare the photos of the folder `photos` and write the folder `out`; `overwrite`: in place of an
    earlier one. Returns a row a photo of a task (`write_tables`), and lines for the person at the keyboard.

    Raises:
        UsageError: nothing to prepare, a class without usable photos, too little disk, or `out` holds
            something that must not be replaced; nothing was changed.
    """
    _check_out(photos, out, overwrite)
    table = find_candidates(photos, rules.tasks, rules.exclude, rules.seed)
    sources = table["source"].unique()

    def look(source: str) -> Looked:
        return inspect(photos / source, rules.width, rules.min_width)

    with ThreadPoolExecutor(THREADS) as pool:
        looked = list(with_bar(pool.map(look, sources), "looking", len(sources)))
    found = pd.DataFrame(map(asdict, looked), index=sources)
    table = table.join(found, on="source").assign(split="", path="")
    tasks = {task: own.copy() for task, own in table.groupby("task", sort=False)}
    pairs = pd.concat([decide(own, rules) for own in tasks.values()])
    table = pd.concat(tasks.values())
    try:
        _write(photos, out.resolve(), table, pairs, rules)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UsageError(f"--out {out} cannot be written, nothing was changed: {error}") from None
    return table, list(_notes(rules, table, pairs))


def _check_out(photos: Path, out: Path, overwrite: bool) -> None:
    """Refuse to write where something else is."""
    place, of_photos = out.resolve(), photos.resolve()
    if place.is_relative_to(of_photos) or of_photos.is_relative_to(place):
        raise UsageError(f"--out {out} and {photos} lie in each other: name another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    inside = {file.name for file in out.iterdir()}
    if inside and not {TABLE, SUMMARY} <= inside <= {TABLE, DROPPED, SUMMARY, SHEET, PHOTOS}:
        raise UsageError(f"--out {out} holds other files: name an empty or a new folder")
    if inside and not overwrite:
        raise UsageError(f"--out {out} is a prepared folder already: add --overwrite to replace it")


def _write(root: Path, out: Path, table: pd.DataFrame, pairs: pd.DataFrame, rules: Rules) -> None:
    """Write everything into a sibling of `out`, then put it in place; `table` gets the `path` of what is
    kept, and the `sha256` of the file there."""
    kept, number = table[table["reason"] == ""], table.groupby("task").cumcount()
    _check_disk(out, int((kept["width"] * kept["height"]).sum() * BYTES_PER_PIXEL))
    with new_folder(out) as folder:
        for row in with_bar(kept.itertuples(), "writing", len(kept)):
            stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(row.source).stem)[:60]
            path = f"{PHOTOS}/{row.task}/{row.label}/{number[row.Index]:05d}-{stem}.jpg"
            size = (row.width, row.height)
            sha256 = write_photo(root / row.source, size, row.as_it_is, folder / path)
            table.loc[row.Index, ["path", "sha256"]] = [path, sha256]
        told = {
            "pairs": pairs[["task", "decision", "distance", "photos"]].to_dict("records"),
            "straddling_pairs_without_cleaning": {
                task: _straddling(pairs, task) for task in table["task"].unique()
            },
        }
        write_tables(folder, table, asdict(rules), told)
        draw_sheet(root, folder / SHEET, table, pairs)


def _check_disk(out: Path, size: int) -> None:
    place = next(parent for parent in (out, *out.parents) if parent.exists())
    free, needed = shutil.disk_usage(place).free, size + SPARE_BYTES
    if free < needed:
        megabytes = f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise UsageError(f"too little disk for --out {out.name}: {megabytes}; name a folder on another disk")


def draw_sheet(root: Path, path: Path, table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """The pairs that people should look at, side by side; of each kind the farthest apart first. None: no
    picture."""
    shown = pairs[pairs["decision"].isin(SHOWN)].drop_duplicates("photos")
    shown = shown.assign(rank=shown["decision"].map(SHOWN.index))
    shown = shown.sort_values(["rank", "distance"], ascending=[True, False])[:SHEET_PAIRS]
    cells = []
    for number, pair in enumerate(shown.itertuples(), start=1):
        for end in (table.loc[pair.first], table.loc[pair.second]):
            what = f"{number}: {pair.decision}, {pair.distance} bits"
            cells.append((root / end.source, f"{what}\n{end.task}/{end.label}\n{end.source[-40:]}"))
    if cells:
        contact_sheet(path, cells, columns=6, cell=(220, 165))


def _notes(rules: Rules, table: pd.DataFrame, pairs: pd.DataFrame) -> Iterator[str]:
    for (task,), own in counted(table).groupby(["task"], sort=False):
        for (_, label), sides in own[list(SPLITS)].iterrows():
            yield from _size_notes(rules, task, label, *sides)
        found = pairs.loc[pairs["task"] == task, "decision"].value_counts()
        doubtful, straddles = found.get(DOUBTFUL, 0), found.get(STRADDLES, 0)
        if rules.split == "thesis":
            yield (
                f"{task}: uncleaned, {_straddling(pairs, task)} pairs of near-duplicates would "
                "stand on both sides of the split; now none does"
            )
        if doubtful + straddles:
            yield (
                f"{task}: {doubtful} doubtful pairs kept, {straddles} others lost "
                f"their validation photo; look at {SHEET}"
            )


def _straddling(pairs: pd.DataFrame, task: str) -> int:
    return int(pairs.loc[pairs["task"] == task, "straddling"].sum())


def _size_notes(rules: Rules, task: str, label: str, training: int, validating: int) -> Iterator[str]:
    theirs, count = SIZES.get(task, {}).get(label), training + validating
    if rules.sizes == "thesis" and theirs is None:
        yield f"{task}/{label}: the thesis had no such class, all photos are kept"
    elif rules.sizes == "thesis" and theirs is not None and count < theirs:
        yield f"{task}/{label}: {count} photos, the thesis had {theirs}"
    if training < BATCH:  # `compare` refuses a class with fewer
        yield (
            f"warning: class {label} of task {task} has {training} training photos, "
            f"fewer than a batch of {BATCH}; add photos or use a smaller --batch in compare"
        )
