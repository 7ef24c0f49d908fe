"""`enrich-train prepare`: from folders of photos, as they were gathered, to what `compare` trains on.

Everything is decided before a file is written, and written beside its place before it is put there.
"""

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from rich.console import Console
from rich.progress import track

from enrich.atomic import new_folder
from enrich.errors import UsageError
from training.data.clean import Looked, inspect, write_photo
from training.data.decide import Rules, decide
from training.data.prepared import DROPPED, PHOTOS, SHEET, SUMMARY, TABLE, write_tables
from training.data.review import draw_sheet, notes, remarks
from training.data.sources import find_candidates

THREADS = 2
BYTES_PER_PIXEL = 0.6
"""Of a photo as `write_photo` writes it, at most; for the estimate of the disk space."""
Item = TypeVar("Item")
SPARE_BYTES = 20_000_000
"""For the tables and the contact sheet."""


@dataclass(frozen=True)
class PrepareOptions:
    """What `enrich-train prepare` was asked for."""

    photos: Path
    out: Path
    rules: Rules = field(default_factory=Rules)
    tasks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    width: int = 500
    min_width: int = 500
    overwrite: bool = False

    def recorded(self) -> dict[str, Any]:
        """What decides over the prepared photos, without anyone's paths."""
        return asdict(self.rules) | {
            "tasks": list(self.tasks),
            "exclude": list(self.exclude),
            "width": self.width,
            "min_width": self.min_width,
        }


@dataclass(frozen=True)
class Outcome:
    """What `prepare` did."""

    table: pd.DataFrame
    """A row a photo of a task (`write_tables`)."""
    notes: tuple[str, ...]
    """Lines for the person at the keyboard."""


def prepare(options: PrepareOptions) -> Outcome:
    """Prepare the photos and write the folder `options.out`.

    Raises:
        UsageError: nothing to prepare, a class without usable photos, too little disk, or `options.out` holds
            something that must not be replaced; nothing was changed.
    """
    check_out(options)
    table = find_candidates(options.photos, options.tasks, options.exclude, options.rules.seed)
    sources = table["source"].unique()

    def look(source: str) -> Looked:
        return inspect(options.photos / source, options.width, options.min_width)

    with ThreadPoolExecutor(THREADS) as pool:
        looked = list(_with_bar(pool.map(look, sources), "looking", len(sources)))
    found = pd.DataFrame(map(asdict, looked), index=sources)
    table = table.join(found, on="source").assign(split="", path="")
    tasks = {task: own.copy() for task, own in table.groupby("task", sort=False)}
    pairs = pd.concat([decide(own, options.rules) for own in tasks.values()])
    table = pd.concat(tasks.values())
    _write(options, table, pairs)
    return Outcome(table, tuple(notes(options.rules, table, pairs)))


def _with_bar(items: Iterable[Item], what: str, total: int) -> Iterable[Item]:
    console = Console(stderr=True)
    if not console.is_interactive:  # elsewhere a progress bar leaves empty lines
        return items
    return track(items, what, total, console=console, transient=True)


def check_out(options: PrepareOptions) -> None:
    """Refuse to write where something else is.

    Raises:
        UsageError: there is.
    """
    out, photos = options.out.resolve(), options.photos.resolve()
    if out == photos or photos in out.parents or out in photos.parents:
        raise UsageError(f"--out {options.out} and {options.photos} lie in each other: name another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"--out {options.out} is a file: name a folder")
    inside = {file.name for file in out.iterdir()}
    if not inside:
        return
    if not {TABLE, SUMMARY} <= inside <= {TABLE, DROPPED, SUMMARY, SHEET, PHOTOS}:
        raise UsageError(f"--out {options.out} holds other files: name an empty or a new folder")
    if not options.overwrite:
        raise UsageError(f"--out {options.out} is a prepared folder already: add --overwrite to replace it")


def _write(options: PrepareOptions, table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Write everything into a sibling of `options.out`, then put it in place; `table` gets the `path` of what
    is kept, and the `sha256` of the file there."""
    out, kept = options.out.resolve(), table[table["reason"] == ""]
    _check_disk(out, int((kept["width"] * kept["height"]).sum() * BYTES_PER_PIXEL))
    number = table.groupby("task").cumcount()
    try:
        with new_folder(out) as folder:
            for row in _with_bar(kept.itertuples(), "writing", len(kept)):
                stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(row.source).stem)[:60]
                path = f"{PHOTOS}/{row.task}/{row.label}/{number[row.Index]:05d}-{stem}.jpg"
                size = (row.width, row.height)
                sha256 = write_photo(options.photos / row.source, size, row.as_it_is, folder / path)
                table.loc[row.Index, ["path", "sha256"]] = [path, sha256]
            write_tables(folder, table, options.recorded(), remarks(table["task"].unique(), pairs))
            draw_sheet(options.photos, folder / SHEET, table, pairs)
    except OSError as error:
        raise UsageError(f"--out {options.out} cannot be written, nothing was changed: {error}") from None


def _check_disk(out: Path, size: int) -> None:
    place = next(parent for parent in (out, *out.parents) if parent.exists())
    free, needed = shutil.disk_usage(place).free, size + SPARE_BYTES
    if free < needed:
        megabytes = f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise UsageError(f"too little disk for --out {out.name}: {megabytes}; name a folder on another disk")
