"""What runs the model: the protocol that every engine keeps."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from enrich.model.head import Head
from enrich.records import Output, Scores

Pixels = tuple[NDArray[np.uint8], ...]
"""A photo as `decode` made it: a uint8 array [height, width, 3] per preprocessing of the bundle, in order."""

CPU_BATCH = 4
"""Photos per pass on one core: the activations of larger batches fall out of its cache."""


class Engine(Protocol):
    """A bundle's models, loaded and ready on one device: decoded pixels in, logits out.

    An engine knows how it is best fed: how many batches it scores at once (`lanes`) and how many photos make
    a batch (`batch_size`). It is called from `lanes` threads at once, each of which has called `start_lane`
    first. A photo's logits do not depend on the batch that it comes in, beyond rounding.
    """

    @property
    def lanes(self) -> int:
        """How many batches to score at once."""

    @property
    def batch_size(self) -> int:
        """Photos per batch, at most."""

    def start_lane(self) -> None:
        """Prepare the calling thread for scoring; each thread calls it once, before its first batch."""

    def score(self, batch: Sequence[Pixels]) -> list[dict[str, Output]]:
        """What each member makes of every photo: `{model_id: output}`, in order."""


def by_head(heads: Sequence[Head], row: Sequence[float]) -> Scores:
    """One photo's logits of all heads of a member, in order, cut up by head."""
    scores, start = {}, 0
    for head in heads:
        scores[head.name] = tuple(row[start : start + head.outputs])
        start += head.outputs
    return scores


def scores_of(outputs: Mapping[str, Output]) -> dict[str, Scores]:
    """A photo's scores alone: model_id -> scores."""
    return {model_id: output.scores for model_id, output in outputs.items()}


def outputs(heads: Sequence[Head], logits: NDArray[Any], features: NDArray[Any]) -> list[Output]:
    """A batch's outputs by one member: of logits [photos, outputs of all heads] and [photos, features]."""
    rows = zip(logits.tolist(), features, strict=True)
    return [Output(by_head(heads, row), seen) for row, seen in rows]


def lane_pool(engine: Engine) -> ThreadPoolExecutor:
    """The threads to call `engine.score` from, one per lane."""
    return ThreadPoolExecutor(engine.lanes, "score", initializer=engine.start_lane)
