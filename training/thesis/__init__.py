"""The thesis that `compare` repeats: its names, and its figures as a results folder (`FOLDER`/runs.csv).

Source: the six tables and the findings of a bachelor thesis at KTH, Stockholm, 2019, on recognising
properties of homes in the photos of a property portal.
"""

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
"""A results folder that holds the thesis's 30 runs."""

ARCHITECTURES = {
    "resnet18": "ResNet-18",
    "alexnet": "AlexNet",
    "vgg11_bn": "VGG-11-bn",
    "densenet121": "DenseNet-121",
    "inception_v3": "Inception v3",
}
SIZES = {
    "balcony": {"balcony": 697, "indoor": 608},
    "fireplace": {"fireplace": 478, "no_fireplace": 256},
    "rooms": {"kitchen": 320, "bathroom": 260, "bedroom": 364},
}
"""Task -> its classes, in the order of their indices, with their photos."""
TASKS = tuple(SIZES)
MODES = {"feature_extraction": "feature extraction", "finetuning": "finetuning"}
EPOCHS, BATCH = 30, 32
PHOTOS = {"balcony": (1043, 262), "fireplace": (586, 148), "rooms": (755, 189)}
"""Of each task, those that train (the first 80 % of each class) and those that validate."""

PAIRS_WON, PAIRS = 14, 15
"""In how many pairs finetuning beats feature extraction."""
COST = (1.1, 2.5)
"""How many times as long finetuning takes, from and to, to one decimal."""
MOST_ACCURATE = ("densenet121", "inception_v3")
FASTEST = "alexnet"
HARDEST = "fireplace"


def plain(architecture: str) -> str:
    """One of the thesis's architectures as its results name it: `torchvision:resnet18` is `resnet18`. Others
    keep their names."""
    name = architecture.removeprefix("torchvision:")
    return name if name in ARCHITECTURES else architecture


def title(architecture: str) -> str:
    """An architecture as tables and figures name it."""
    return ARCHITECTURES.get(plain(architecture), architecture)


def in_order(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """Each name once: the known ones in their order, then the others by name."""
    there, first = set(found), list(known)
    return [name for name in first if name in there] + sorted(there - set(first))
