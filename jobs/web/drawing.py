"""Where things go in the drawings of the status page, in the units of their `viewBox`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from enrich.state.runs import Run
from jobs.views.status import duration, ended, took

STAGES = ("discover", "claim", "fetch", "decode", "score", "aggregate", "save", "publish")
PER_PHOTO = ("fetch", "decode", "score")


@dataclass(frozen=True, slots=True)
class Box:
    """A stage, or one of the two ends, with what is said of it."""

    name: str
    x: int
    y: int
    width: int
    height: int
    number: str
    of: str

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Picture:
    """The pipeline. `arrows`: (x, y) to (x, y); `bracket`: from x to x, at y, under the stages of a photo,
    where these stand side by side."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[float, float, float, float], ...]
    bracket: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A run: `height` of 100, and how it ended in a word of the style sheet."""

    x: int
    height: float
    ended: str
    words: str


def wide(told: Mapping[str, tuple[str, str]]) -> Picture:
    """Side by side, as in the README."""
    width, gap, top = 106, 18, 116
    boxes = [
        Box(name, number * (width + gap), top, width, 74, *told[name]) for number, name in enumerate(STAGES)
    ]
    end = boxes[-1].x + width
    portal = Box("Postgres", 0, 0, 2 * width + gap, 74, *told["portal"])
    index = Box("index", end - 2 * width - gap, 0, 2 * width + gap, 74, *told["index"])
    middle = top + 37.0
    arrows = [(a.x + width + 2.0, middle, b.x - 2.0, middle) for a, b in pairwise(boxes)]
    arrows += [(boxes[0].middle, 76.0, boxes[0].middle, top - 2.0)]
    arrows += [(boxes[-1].middle, top - 2.0, boxes[-1].middle, 76.0)]
    photos = [box for box in boxes if box.name in PER_PHOTO]
    bracket = (float(photos[0].x), float(photos[-1].x + width), top + 74 + 10.0)
    return Picture(end, top + 74 + 34, (portal, index, *boxes), tuple(arrows), bracket)


def tall(told: Mapping[str, tuple[str, str]]) -> Picture:
    """One below the other, for a narrow screen."""
    width, height, gap = 320, 46, 14
    names = {"portal": "Postgres", **{stage: stage for stage in STAGES}, "index": "index"}
    boxes = [
        Box(shown, 0, number * (height + gap), width, height, *told[name])
        for number, (name, shown) in enumerate(names.items())
    ]
    arrows = [(width / 2, a.y + height + 1.0, width / 2, b.y - 1.0) for a, b in pairwise(boxes)]
    return Picture(width, boxes[-1].y + height, tuple(boxes), tuple(arrows))


def bars(runs: Sequence[Run]) -> list[Bar]:
    """The runs that ended, the oldest first: how long each took, of the longest one."""
    done = [(run, seconds) for run in runs if (seconds := took(run)) is not None]
    longest = max((seconds for _, seconds in done), default=0.0) or 1.0
    return [
        Bar(
            number,
            max(100 * seconds / longest, 2.0),
            {0: "well", 1: "trouble", 130: "stopped", 143: "stopped", 75: "stopped"}.get(
                run.exit_code or 0, "failed"
            ),
            f"{run.kind}, {run.started_at:%Y-%m-%d %H:%M}, {duration(seconds)}: {ended(run)}",
        )
        for number, (run, seconds) in enumerate(reversed(done))
    ]
