"""How long a comparison still takes, reckoned from what was measured of it so far."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

from training.compare.plan import Plan
from training.compare.results import Results, RunKey
from training.models.architectures import MODES, Network

Kind = tuple[str, str]
"""Architecture and mode: what has a speed of its own."""
BACKWARD = 2
"""Forward passes that a backward pass costs."""


@dataclass(frozen=True)
class Cost:
    """What a run multiplies. `forward`: multiplications for one photo; photos of both sides of the task."""

    plan: Plan
    forward: float
    train: int
    validation: int

    @property
    def kind(self) -> Kind:
        return self.plan.key.architecture, self.plan.key.mode

    @property
    def finetuned(self) -> bool:
        return self.plan.key.mode == MODES[1]

    @property
    def step(self) -> float:
        """For learning from one photo."""
        return self.forward * (1 + BACKWARD * self.finetuned)

    def until(self, epochs: int, seen: int = 0) -> float:
        """Multiplications of so many whole epochs and of training on `seen` photos of the next.

        What a frozen backbone makes of a photo that comes again is kept; a draw before its first step."""
        draws = self.plan.recipe.cache_features
        learnt = self.train * min(epochs + (seen > 0), draws) if draws else self.train * epochs + seen
        looked = self.validation * (epochs if self.finetuned else min(epochs, 1))
        return self.step * learnt + self.forward * looked

    @property
    def whole(self) -> float:
        return self.until(self.plan.recipe.epochs)


def seconds_left(work: Iterable[tuple[Kind, float]], pace: Mapping[Kind, float]) -> float | None:
    """Seconds for these multiplications, at the `pace` (seconds for one) of each kind; a kind that was not
    measured is taken for as fast as the median of the others. None: nothing was measured."""
    if not pace:
        return None
    usual = median(pace.values())
    return sum(count * pace.get(kind, usual) for kind, count in work)


def known_pace(costs: Iterable[Cost], found: Results, device: str) -> dict[Kind, float]:
    """The pace of runs that were finished, or timed, on this device."""
    timed = found.timings[found.timings["device"] == device].itertuples()
    rates = {(row.architecture, row.mode): row.train_images_per_second for row in timed}
    finished = found.runs[found.runs["device"] == device].itertuples()
    seconds = {RunKey(row.task, row.architecture, row.mode, row.seed): row.seconds for row in finished}
    pace = {}
    for cost in costs:
        if cost.kind in rates:
            pace[cost.kind] = 1 / (rates[cost.kind] * cost.step)
        if cost.plan.key in seconds:
            pace[cost.kind] = seconds[cost.plan.key] / cost.whole
    return pace


def multiplications(network: Network, size: tuple[int, int]) -> float:
    """Of the network's convolutions and matrices, for one photo of `size`; without weights, on meta."""
    # Where Triton is not installed, importing the counter says so.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    network.learn(False)
    with FlopCounterMode(display=False) as counted:
        network.backbone(torch.zeros(1, 3, *size, device="meta"))
    return float(counted.get_total_flops()) / 2  # of a multiplication and an addition


def in_words(seconds: float | None) -> str:
    """`40s`, `12min`, `3h05min`, or `measuring`."""
    if seconds is None:
        return "measuring"
    if seconds < 90:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    return f"{minutes}min" if minutes < 90 else f"{minutes // 60}h{minutes % 60:02d}min"
