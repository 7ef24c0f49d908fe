"""Where the photos to prepare come from: class folders, as the thesis had them, or a manifest.

Class folders: `ROOT/<task>/<class>/x.jpg`; with `ROOT/<task>/<class>/<home>/x.jpg` a folder names the home.
Of a manifest (docs/training.md) the three tasks of the thesis are made:

* balcony: photos with a balcony, against indoor rooms without one;
* fireplace: photos with a fireplace, against indoor rooms without one;
* rooms: kitchens, bathrooms, bedrooms.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from enrich.errors import UsageError
from training import thesis
from training.data.labels import INDOOR
from training.data.photos import load_photos
from training.data.prepared import class_order
from training.thesis import in_order

Found = dict[str, dict[str, list[tuple[str, str]]]]
"""Task -> class -> its photos: path relative to the folder, with `/`, and home."""


def find_candidates(
    folder: Path, tasks: Sequence[str] = (), exclude: Sequence[str] = (), seed: int = 0
) -> pd.DataFrame:
    """The photos of all tasks, each class in the order in which `--split thesis` cuts it: `task`, `label`,
    `source` (path relative to the folder) and `group` (the home; a photo without one is its own).

    That order is the file name's in class folders. In a manifest, where names only tell the collections
    apart, it is drawn with `seed`. `tasks`: only these; `exclude`: without sources that begin so.

    Raises:
        UsageError: nothing to prepare, an empty class, a task with one class, a manifest that cannot be used,
            a name that is not in UTF-8.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name one with <task>/<class>/ folders or a manifest.csv")
    manifest = (folder / "manifest.csv").is_file()
    found = _from_manifest(folder, exclude, seed) if manifest else _from_folders(folder, exclude)
    unknown = sorted(set(tasks) - found.keys())
    if unknown:
        raise UsageError(
            f"--task {unknown[0]}: {folder} has the tasks {', '.join(in_order(found, thesis.TASKS))}"
        )
    rows = []
    for task in in_order(tasks or found, thesis.TASKS):
        classes = found[task]
        if len(classes) < 2:
            raise UsageError(
                f"task {task} of {folder} has only the class {', '.join(classes)}: "
                "a classifier needs two or more"
            )
        for label in class_order(task, classes):
            if not classes[label]:
                raise UsageError(
                    f"class {label} of task {task} in {folder} holds no photo: add some, or take it out"
                )
            rows += [(task, label, *photo) for photo in classes[label]]
    return pd.DataFrame(rows, columns=["task", "label", "source", "group"])


def _from_folders(folder: Path, exclude: Sequence[str]) -> Found:
    found: Found = {}
    for task in _folders(folder):
        for label in _folders(task):
            photos = found.setdefault(task.name, {}).setdefault(label.name, [])
            for file in sorted(_inside(label), key=lambda file: (file.name, str(file))):
                inside, source = file.relative_to(label).parts, file.relative_to(folder).as_posix()
                hidden = any(part.startswith(".") for part in inside)
                if not hidden and file.is_file() and not source.startswith(tuple(exclude)):
                    _check_name(source)
                    photos.append((source, inside[0] if len(inside) > 1 else f"{label.name}/{file.name}"))
    if not found:
        raise UsageError(f"{folder} has no photos as <task>/<class>/x.jpg and no manifest.csv")
    return found


def _inside(label: Path) -> Iterator[Path]:
    """All that lies in the folder of a class. The homes in it may be links, which `rglob` does not follow."""
    yield from label.rglob("*")
    for home in label.iterdir():
        if home.is_symlink() and home.is_dir():
            yield from home.rglob("*")


def _check_name(source: str) -> None:
    """Refuse what no table can hold."""
    try:
        source.encode()
    except UnicodeEncodeError:
        shown = source.encode(errors="replace").decode()
        raise UsageError(f"the name {shown} is not in UTF-8: rename it") from None


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _from_manifest(folder: Path, exclude: Sequence[str], seed: int) -> Found:
    photos = load_photos(folder, exclude=exclude)
    drawn = np.random.default_rng(seed).permutation(len(photos))
    drawn = drawn[photos.split[drawn] == "train"]
    if not drawn.size:
        raise UsageError(f"{folder / 'manifest.csv'} has no row of split train")
    room = np.array([*photos.classes["room"], ""])[photos.labels["room"]]  # the last place is UNLABELLED's
    shows = {"rooms": {label: room == label for label in thesis.SIZES["rooms"]}}
    for task in ("balcony", "fireplace"):
        yes, no = thesis.SIZES[task]
        labels = photos.labels[task]
        shows[task] = {yes: labels == 1, no: (labels == 0) & np.isin(room, INDOOR)}
    return {
        task: {
            label: [(photos.paths[i], str(photos.group[i])) for i in drawn if having[i]]
            for label, having in classes.items()
        }
        for task, classes in shows.items()
    }
