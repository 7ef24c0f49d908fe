"""How a comparison shows where it is and what is left, reckoned from what was measured so far: bars on a
terminal, else a line an epoch and a line every half minute; on stderr."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from training.compare.plan import Plan
from training.compare.results import EpochRow, Results, RunKey
from training.compare.run import Progress as At
from training.models.architectures import MODES, Network
from training.terminal import plain
from training.trainer.loading import steps

Kind = tuple[str, str]
"""Architecture and mode: what has a speed of its own."""
BACKWARD = 2
"""Forward passes that a backward pass costs."""
SECONDS = 30.0
"""Between two lines; and after so long a run's own pace replaces that of earlier ones."""


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
    measured is taken for as fast as the median of the others. None: nothing was, and some is left."""
    if not pace:
        return None if any(count for _, count in work) else 0.0
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
    """`40s`, `12min`, `3h05min`, or `measuring`; `0s` only where nothing is left."""
    if seconds is None:
        return "measuring"
    if seconds < 90:
        return f"{math.ceil(seconds)}s"
    minutes = round(seconds / 60)
    return f"{minutes}min" if minutes < 90 else f"{minutes // 60}h{minutes % 60:02d}min"


class Display:
    """The runs `todo`, of `total`. `pace`: what is known of it before, by kind."""

    def __init__(self, todo: Sequence[Cost], total: int, pace: dict[Kind, float]) -> None:
        self._console = plain(stderr=True, soft_wrap=False)
        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
        self.bars = Progress(
            *columns,
            TextColumn("left: {task.fields[left]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._runs = self.bars.add_task("runs", total=total, completed=total - len(todo), left="measuring")
        self._steps = self.bars.add_task("", total=1, visible=False, left="measuring")
        self._todo, self._pace, self._known = list(todo), dict(pace), set(pace)
        self._begun = self._told = self._done = self._start = 0.0

    def started(self, at: At) -> None:
        """The next run begins, or goes on, here."""
        cost = self._todo[0]
        key, recipe = cost.plan.key, cost.plan.recipe
        self._done = self._start = cost.until(at.epoch - 1, at.seen)
        self._begun, self._told = time.monotonic(), float("-inf")
        name = f"{key.task} · {key.architecture} · {key.mode}"
        count = recipe.epochs * steps(cost.train, recipe.batch)
        self.bars.reset(self._steps, total=count, description=name, visible=True)
        self.stepped(at)

    def stepped(self, at: At, making: int = 0) -> None:
        """The run is here now, `making` so many photos of the features it goes on with."""
        cost, now = self._todo[0], time.monotonic()
        recipe = cost.plan.recipe
        of_epoch = steps(cost.train, recipe.batch)
        self._reached(min(cost.until(at.epoch - 1, at.seen) + cost.step * making, cost.whole), making)
        if self._done > self._start and (now - self._begun > SECONDS or cost.kind not in self._known):
            self._pace[cost.kind] = (now - self._begun) / (self._done - self._start)
        run, every = self._left()
        self.bars.update(self._steps, completed=(at.epoch - 1) * of_epoch + at.step, left=run)
        self.bars.update(self._runs, left=every)
        if now - self._told > SECONDS:
            self._line(f"epoch={at.epoch}/{recipe.epochs} step={at.step}/{of_epoch}")

    def epoch(self, row: EpochRow) -> None:
        """An epoch is over."""
        epochs = self._todo[0].plan.recipe.epochs
        self.bars.update(
            self._steps,
            description=f"{row.task} · {row.architecture} · epoch {row.epoch}/{epochs}, "
            f"validation {row.val_accuracy:.1%}",
        )
        self._reached(self._todo[0].until(row.epoch))
        self._line(
            f"epoch={row.epoch}/{epochs} train_loss={row.train_loss:.4f} "
            f"train_accuracy={row.train_accuracy:.4f} val_loss={row.val_loss:.4f} "
            f"val_accuracy={row.val_accuracy:.4f} seconds={row.seconds:.1f} "
            f"images_per_second={row.images_per_second or 0:.1f}"
        )

    def finished(self) -> None:
        """The next run is done, here or elsewhere."""
        self._todo.pop(0)
        self._known = set(self._pace)
        self.bars.advance(self._runs)

    def _reached(self, done: float, making: int = 0) -> None:
        """So many multiplications of the run are done. With fixed draws only making them is work: what is
        done without was kept by an earlier start, and the pace is measured from here on."""
        if done > self._done and not making and self._todo[0].plan.recipe.cache_features:
            self._start, self._begun = done, time.monotonic()
        self._done = done

    def _left(self) -> tuple[str, str]:
        """Of this run, and of all; runs of other processes count as ours."""
        first, *others = self._todo
        own = first.kind, first.whole - self._done
        later = [(cost.kind, cost.whole) for cost in others]
        run, every = (seconds_left(work, self._pace) for work in ([own], [own, *later]))
        return in_words(run), in_words(every)

    def _line(self, text: str) -> None:
        self._told = time.monotonic()
        if not self._console.is_terminal:
            key, (run, every) = self._todo[0].plan.key, self._left()
            name = f"task={key.task} architecture={key.architecture} mode={key.mode} seed={key.seed}"
            line = f"{name} {text} left={run} left_of_all={every}"
            self._console.print(line, soft_wrap=True, highlight=False)
