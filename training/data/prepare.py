"""`enrich-train prepare`: from folders of photos, as they were gathered, to what `compare` trains on.

Everything is decided before a file is written, and written beside its place before it is put there.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from enrich.atomic import new_folder
from enrich.errors import UsageError
from training.data.clean import inspect_all, write_photo
from training.data.decide import Decision, Rules, decide
from training.data.prepared import (
    DROPPED,
    PHOTOS,
    SHEET,
    SUMMARY,
    TABLE,
    Dropped,
    PreparedPhoto,
    task_order,
    write_tables,
)
from training.data.review import draw_sheet, notes, remarks
from training.data.sources import find_candidates

SPARE_BYTES = 20_000_000
"""For the tables and the contact sheet."""

Watch = Callable[[str, int], Callable[[], None]]
"""(what, total) -> what is called after each photo."""


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

    photos: tuple[PreparedPhoto, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]
    """Lines for the person at the keyboard."""


def prepare(options: PrepareOptions, watch: Watch = lambda what, total: lambda: None) -> Outcome:
    """Prepare the photos and write the folder `options.out`.

    Raises:
        UsageError: nothing to prepare, a class without usable photos, too little disk, or `options.out` holds
            something that must not be replaced; nothing was changed.
    """
    check_out(options)
    found = find_candidates(options.photos, options.tasks, options.exclude, options.rules.seed)
    sources = list(dict.fromkeys(candidate.source for candidate in found))
    files = [options.photos / source for source in sources]
    looked = inspect_all(files, options.width, options.min_width, watch("looking", len(files)))
    photos = dict(zip(sources, looked, strict=True))
    decisions = [
        decide([candidate for candidate in found if candidate.task == task], photos, options.rules)
        for task in task_order(candidate.task for candidate in found)
    ]
    return _write(options, decisions, watch)


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


def _write(options: PrepareOptions, decisions: Sequence[Decision], watch: Watch) -> Outcome:
    """Write everything into a sibling of `options.out`, then put it in place."""
    out = options.out.resolve()
    kept = pd.concat([decision.kept for decision in decisions])
    left_out = pd.concat([decision.dropped for decision in decisions])
    _check_disk(out, sum(photo.size for photo in kept["photo"]))
    columns = ["task", "label", "source", "reason", "detail"]
    dropped = tuple(Dropped(*row) for row in left_out[columns].itertuples(index=False))
    advance = watch("writing", len(kept))
    written = []
    try:
        with new_folder(out) as folder:
            for row in kept.itertuples():
                written.append(_write_photo(options.photos, folder, row))
                advance()
            write_tables(folder, written, dropped, options.recorded(), remarks(decisions))
            draw_sheet(options.photos, folder / SHEET, decisions)
    except OSError as error:
        raise UsageError(f"--out {options.out} cannot be written, nothing was changed: {error}") from None
    return Outcome(tuple(written), dropped, tuple(notes(options.rules, decisions)))


def _check_disk(out: Path, size: int) -> None:
    place = next(parent for parent in (out, *out.parents) if parent.exists())
    free, needed = shutil.disk_usage(place).free, size + SPARE_BYTES
    if free < needed:
        megabytes = f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise UsageError(f"too little disk for --out {out.name}: {megabytes}; name a folder on another disk")


def _write_photo(root: Path, folder: Path, row: Any) -> PreparedPhoto:
    """Write the photo of a row that is kept (`Decision.table`)."""
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(row.source).stem)[:60]
    path = f"{PHOTOS}/{row.task}/{row.label}/{row.Index:05d}-{stem}.jpg"
    sha256 = write_photo(root / row.source, row.photo, folder / path)
    size = (row.photo.width, row.photo.height)
    return PreparedPhoto(row.task, row.label, row.side, path, row.group, row.source, sha256, *size)
