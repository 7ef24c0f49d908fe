"""Who trains and who validates, and how many of each class there are at all.

Photos are tables with the columns of `find_candidates`, of one task.
"""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from enrich.errors import UsageError

FOLDS = 5
"""One of five folds validates: 20 %."""
THESIS_SIZES = {
    ("balcony", "balcony"): 697,
    ("balcony", "indoor"): 608,
    ("fireplace", "fireplace"): 478,
    ("fireplace", "no_fireplace"): 256,
    ("rooms", "kitchen"): 320,
    ("rooms", "bathroom"): 260,
    ("rooms", "bedroom"): 364,
}


def cap(photos: pd.DataFrame, most: int) -> list[int]:
    """Rows beyond the first `most` photos of a group and class."""
    number = photos.groupby(["label", "group"]).cumcount()
    return list(photos.index[number >= most])


def draw(photos: pd.DataFrame, seed: int) -> list[int]:
    """Rows left over when each class is drawn down to the size that the thesis had."""
    rng = np.random.default_rng(seed)
    over: list[int] = []
    for key, own in photos.groupby(["task", "label"], sort=False):
        over += rng.permutation(own.index)[THESIS_SIZES.get(key, len(own)) :].tolist()
    return over


def thesis_split(photos: pd.DataFrame) -> pd.Series:
    """Side of each row: the first 80 % of each class train, the rest validates."""
    classes = photos.groupby("label")["label"]
    trains = classes.cumcount() < classes.transform("size") * 8 // 10
    return trains.map({True: "train", False: "val"})


def group_split(photos: pd.DataFrame, seed: int) -> pd.Series:
    """Side of each row: whole homes on one, about 20 % of each class for validation.

    Raises:
        UsageError: a class has photos of too few homes to have some on both sides.
    """
    task, labels = photos["task"].iloc[0], photos["label"].to_numpy()
    for label, homes in photos.groupby("label", sort=False)["group"].nunique().items():
        if homes < FOLDS:
            raise UsageError(
                f"class {label} of task {task} has photos of {homes} homes only: "
                f"--split group needs {FOLDS}; add photos, or use --split thesis"
            )
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = [validates for _, validates in splitter.split(labels, labels, photos["group"].to_numpy())]
    best = min(folds, key=lambda fold: _imbalance(labels, fold))
    missing = set(labels) - set(labels[best])
    if missing:
        raise UsageError(
            f"class {sorted(missing)[0]} of task {task} cannot be split by home: most of its "
            "photos are of one home; try --cap, another --seed, or --split thesis"
        )
    sides = pd.Series("train", photos.index)
    sides.iloc[best] = "val"
    return sides


def _imbalance(labels: np.ndarray, fold: np.ndarray) -> float:
    """How far the worst class is from its 20 %."""
    shares = [(labels[fold] == label).sum() / (labels == label).sum() for label in np.unique(labels)]
    return float(max(abs(share - 1 / FOLDS) for share in shares))
