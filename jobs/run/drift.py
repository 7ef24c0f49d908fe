"""Drift: what a night found, beside the nights before.

A model that fails quietly (photos in another format, swapped colours, a host that serves placeholders) shows
in the shares of `true`, the mean confidences or the share of failed photos before anybody looks at a listing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from statistics import mean
from typing import Any

from enrich.pipeline.figures import Figures
from enrich.state.runs import Run

NIGHTS = 30  # that a night is held against
LEAST_NIGHTS = 5  # before anything is said
LEAST = 50  # listings or photos that a share must be of
ERRORS = 3.0  # standard errors that chance is granted beyond the bound
FAILURES = "photo_failures"


@dataclass(frozen=True, slots=True)
class Measure:
    """A share or a mean (0 to 1) of one night."""

    figure: str
    """`has_X`, `X_types` (any) and `X_types=Y`: the share of listings; `X_confidence`: the mean;
    `photo_failures`: the share of photos."""
    value: float
    of: int
    """Listings of which a photo was seen, or photos."""
    usual: float | None = None
    """The mean of the nights before; None where they are too few."""
    drifted: bool = False

    def __str__(self) -> str:
        usual = "" if self.usual is None else f" (usually {self.usual:.1%})"
        return f"{self.figure} {self.value:.1%}{usual}"


def judged(figures: Figures, bundle_id: str, before: Sequence[Run], bound: float) -> list[Measure]:
    """A night's measures, each held against the nights `before` (runs with measures).

    A measure has drifted when it lies further than `bound` from its usual value, beside what chance makes of
    so few listings. Nights of the same bundle count, or all nights while those are too few.
    """
    same = [run for run in before if run.bundle_id == bundle_id]
    nights = [read(run) for run in (same if len(same) >= LEAST_NIGHTS else before)]
    tonight = _measures(figures)
    names = [*tonight, *sorted({name for night in nights for name in night} - set(tonight))]
    found = (_of(tonight, name) for name in names)
    return [_held_against(nights, measure, bound) for measure in found if measure]


def read(run: Run) -> dict[str, Measure]:
    """What `judged` said of an earlier night, by figure."""
    return {each["figure"]: Measure(**each) for each in run.figures["drift"]}


def plain(measures: Sequence[Measure]) -> list[Mapping[str, Any]]:
    """For the table `run`, rounded to four digits."""
    rounded = (replace(m, value=round(m.value, 4), usual=m.usual and round(m.usual, 4)) for m in measures)
    return [asdict(measure) for measure in rounded]


def _measures(figures: Figures) -> dict[str, Measure]:
    seen, photos = figures.seen, figures.photos
    found = {name: Measure(name, total / seen, seen) for name, total in sorted(figures.answers.items())}
    if photos:
        found[FAILURES] = Measure(FAILURES, sum(figures.failures.values()) / photos, photos)
    return found


def _of(night: Mapping[str, Measure], name: str) -> Measure | None:
    """A night's measure; a class that no listing showed is none of them. None where nobody looked for it."""
    field, is_class, _ = name.partition("=")
    if name not in night and is_class and field in night:
        return Measure(name, 0.0, night[field].of)
    return night.get(name)


def _held_against(nights: Sequence[Mapping[str, Measure]], found: Measure, bound: float) -> Measure:
    before = [each.value for night in nights if (each := _of(night, found.figure)) and each.of >= LEAST]
    if len(before) < LEAST_NIGHTS:
        return found
    usual = mean(before)
    # The variance of numbers between 0 and 1 is m(1 - m) at most, so it serves for means as for shares.
    chance = ERRORS * sqrt(max(usual * (1 - usual), 0.0) / found.of)
    drifted = found.of >= LEAST and abs(found.value - usual) > bound + chance
    return replace(found, usual=usual, drifted=drifted)
