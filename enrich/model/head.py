"""Heads: the questions that a bundle asks of a photo.

A head's *kind* is one object that knows all that depends on it, from logits to what people are shown. The
kinds are `binary.py` and `multiclass.py`; another one is a subclass of `Kind` in a file of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator, AliasPath, ConfigDict, Field

from enrich.model.kind import KINDS, Kind

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NAME = r"[a-z][a-z0-9_]{0,30}"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
MIN_BACKING = 59
"""Homes that a claim of any precision needs behind it."""
CLOSED = ConfigDict(extra="forbid")


def least_backing(precision: float) -> int:
    """With no error among so many homes, precision is this or more at 95 % one-sided confidence: 59 for 0.95,
    299 for 0.99; fewer cannot show it. A claim that fewer predicted homes back is called an estimate."""
    return max(MIN_BACKING, math.ceil(math.log(0.05) / math.log(min(precision, 0.9999))))


def _known(word: str) -> str:
    if word not in KINDS:
        raise ValueError(f"{word!r} is none of {', '.join(KINDS)}")
    return word


@dataclass(frozen=True, slots=True)
class HeadClass:
    """A class of a multiclass head; `threshold` is on a photo's calibrated probability."""

    __pydantic_config__ = CLOSED
    name: Name
    publish: bool
    threshold: Share


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How photos' calibrated logits become a listing's: pooled by `method`, then `slope * x + intercept`."""

    __pydantic_config__ = CLOSED
    method: Literal["max", "topk_mean", "noisy_or"] = "max"
    k: Annotated[int, Field(ge=1)] = 1
    slope: Positive = 1.0
    intercept: Finite = 0.0


@dataclass(frozen=True, slots=True)
class Head:
    """One question asked of a photo, and how its answers are read.

    A binary head has no `classes` and one logit; its thresholds are on a photo's calibrated probability. A
    multiclass head has one logit per class, and a threshold in each class.
    """

    __pydantic_config__ = CLOSED
    name: Name
    kind: Annotated[str, AfterValidator(_known)]
    classes: tuple[HeadClass, ...] = ()
    temperature: Positive = 1.0
    true_threshold: Annotated[Share, Field(validation_alias=AliasPath("thresholds", "true"))] = 1.0
    false_threshold: Annotated[Share, Field(validation_alias=AliasPath("thresholds", "false"))] = 0.0
    true_at: Annotated[Mapping[str, Share], Field(validation_alias=AliasPath("thresholds", "true_at"))] = (
        field(default_factory=dict, hash=False)
    )
    """Precision of homes -> the `true` threshold for it, where the bundle has others than its own."""
    aggregation: Aggregation = Aggregation()
    metrics: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def rules(self) -> Kind:
        """All that depends on the head's kind."""
        return KINDS[self.kind]

    @property
    def outputs(self) -> int:
        """Logits of this head per photo."""
        return self.rules.outputs(self)

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities of `logits`, shape [..., outputs] to the same shape."""
        return self.rules.chances(np.asarray(logits, dtype=np.float64) / self.temperature)

    @property
    def precision_basis(self) -> str:
        """What backs the precision of `true`: `homes`, `estimate` (too few homes), or `not stated`."""
        basis = self._stated("true", "basis")
        return basis if isinstance(basis, str) else "not stated"

    @property
    def precision_target(self) -> float | None:
        """The listing-level precision that the `true` threshold was chosen for; None where not stated."""
        target = self._stated("true", "target")
        return target if isinstance(target, float) else None

    @property
    def backing_homes(self) -> int | None:
        """Held-out homes that came out as *yes*, right or wrong; None where not stated."""
        homes = self._stated("true", "cross_fitted", "precision", "of")
        return homes if isinstance(homes, int) else None

    def at_precision(self, target: float) -> "Head | None":
        """The head with the `true` threshold for this precision of homes, and what is stated of it; None
        where the bundle has no such threshold. A head that does not answer yes or no stays as it is."""
        if not self.rules.is_yes_or_no or target == self.precision_target:
            return self
        name = f"{target:g}"
        if name not in self.true_at:
            return None
        true = {**self._at("true"), **self._at("true", "by_target", name), "target": target}
        threshold = self.true_at[name]
        return replace(
            self,
            true_threshold=threshold,
            false_threshold=min(self.false_threshold, threshold),
            metrics={**self.metrics, "true": true},
        )

    def _at(self, *path: str) -> dict[str, Any]:
        found = self._stated(*path)
        return found if isinstance(found, dict) else {}

    def _stated(self, *path: str) -> Any:
        """What the metrics, which may hold anything, have at this path; None where there is nothing."""
        found: Any = self.metrics
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found
