"""Where the photos to prepare come from: class folders, as the thesis had them, or a manifest.

Class folders: `ROOT/<task>/<class>/x.jpg`; with `ROOT/<task>/<class>/<home>/x.jpg` a folder names the home.
Of a manifest (docs/training.md) the three tasks of the thesis are made:

* balcony: photos with a balcony, against indoor rooms without one;
* fireplace: photos with a fireplace, against indoor rooms without one;
* rooms: kitchens, bathrooms, bedrooms.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enrich.errors import UsageError
from training.data.photos import PhotoSet, load_photos
from training.data.prepared import THESIS_CLASSES, class_order, task_order

INDOOR = ("bathroom", "bedroom", "kitchen", "living_room", "dining_room", "hallway")


@dataclass(frozen=True)
class Candidate:
    """A photo of a task, before anyone looked into its file."""

    task: str
    label: str
    source: str
    """Relative to the folder that is prepared, with `/`."""
    group: str
    """The home it comes from; a photo without one is its own."""


def find_candidates(
    folder: Path, tasks: Sequence[str] = (), exclude: Sequence[str] = (), seed: int = 0
) -> tuple[Candidate, ...]:
    """The photos of all tasks, each class in the order in which `--split thesis` cuts it.

    That order is the file name's in class folders. In a manifest, where names only tell the collections
    apart, it is drawn with `seed`. `tasks`: only these; `exclude`: without sources that begin so.

    Raises:
        UsageError: nothing to prepare, an empty class, a task with one class, a manifest that cannot be used.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name one with <task>/<class>/ folders or a manifest.csv")
    manifest = (folder / "manifest.csv").is_file()
    found = _from_manifest(folder, exclude, seed) if manifest else _from_folders(folder, exclude)
    unknown = sorted(set(tasks) - found.keys())
    if unknown:
        raise UsageError(f"--task {unknown[0]}: {folder} has the tasks {', '.join(task_order(found))}")
    candidates = []
    for task in task_order(tasks or found):
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
            candidates += classes[label]
    return tuple(candidates)


def _from_folders(folder: Path, exclude: Sequence[str]) -> dict[str, dict[str, list[Candidate]]]:
    found: dict[str, dict[str, list[Candidate]]] = {}
    for task in _folders(folder):
        for home in _folders(task):
            photos = []
            for file in sorted(home.rglob("*"), key=lambda file: (file.name, str(file))):
                inside, source = file.relative_to(home), file.relative_to(folder).as_posix()
                hidden = any(part.startswith(".") for part in inside.parts)
                if hidden or not file.is_file() or source.startswith(tuple(exclude)):
                    continue
                own = f"{home.name}/{file.name}"
                group = inside.parts[0] if len(inside.parts) > 1 else own
                photos.append(Candidate(task.name, home.name, source, group))
            found.setdefault(task.name, {})[home.name] = photos
    if not found:
        raise UsageError(f"{folder} has no photos as <task>/<class>/x.jpg and no manifest.csv")
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _from_manifest(folder: Path, exclude: Sequence[str], seed: int) -> dict[str, dict[str, list[Candidate]]]:
    photos = load_photos(folder, exclude=exclude)
    if not (photos.split == "train").any():
        raise UsageError(f"{folder / 'manifest.csv'} has no row of split train")
    found: dict[str, dict[str, list[Candidate]]] = defaultdict(dict)
    for task, labels in THESIS_CLASSES.items():
        found[task] = {label: [] for label in labels}
    for i in np.random.default_rng(seed).permutation(len(photos)):
        if photos.split[i] != "train":
            continue
        for task, label in _thesis_labels(photos, int(i)):
            found[task][label].append(Candidate(task, label, photos.paths[i], str(photos.group[i])))
    return found


def _thesis_labels(photos: PhotoSet, i: int) -> list[tuple[str, str]]:
    """(task, class) of photo `i` for every task of the thesis that it can serve."""
    room = photos.labels["room"][i]
    name = photos.classes["room"][room] if room >= 0 else ""
    labels = []
    for attribute in ("balcony", "fireplace"):
        yes, no = THESIS_CLASSES[attribute]
        value = photos.labels[attribute][i]
        if value == 1 or (value == 0 and name in INDOOR):
            labels.append((attribute, yes if value == 1 else no))
    if name in THESIS_CLASSES["rooms"]:
        labels.append(("rooms", name))
    return labels
