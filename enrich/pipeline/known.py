"""Scores of bytes that were seen before: those on record, and what the heads make of features on record."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from enrich.model.bundle import Bundle
from enrich.model.features import LinearHeads, feature_id, unpack
from enrich.pipeline.figures import Figures
from enrich.records import PhotoScore, Scores
from enrich.state.queue import WorkQueue

CHUNK = 1_000  # photos whose features are in memory at once: 10 MB with the starter bundle
# Photos multiplied at once: they stay in a core's cache, and BLAS starts no threads, which would spin.
SLICE = 8


class KnownScores:
    """Of a bundle: what its models say of bytes that nobody has to fetch and score again."""

    def __init__(self, queue: WorkQueue, bundle: Bundle, figures: Figures) -> None:
        self._queue, self._bundle, self._figures = queue, bundle, figures
        self._models = [member.model_id for member in bundle.members]

    def of(self, shas: Sequence[str]) -> dict[str, PhotoScore]:
        """Scores of these bytes; those that not all models know are absent. Called in threads."""
        if not shas:
            return {}
        found = dict(self._queue.scores(shas, self._models))
        rescored: set[str] = set()
        for heads, feature, model in self._heads if _lacking(shas, found, self._models) else ():
            lacking = _lacking(shas, found, [model])
            for start in range(0, len(lacking), CHUNK):
                some = self._from_features(lacking[start : start + CHUNK], heads, feature, model)
                for score in some:
                    earlier = found.get(score.sha256)
                    by_model = {**earlier.by_model, **score.by_model} if earlier else score.by_model
                    found[score.sha256] = PhotoScore(score.sha256, score.dhash, by_model)
                    rescored.add(score.sha256)
        lacking = _lacking(shas, found, self._models)
        self._figures.count_rescored(len(rescored.difference(lacking)))
        for sha in lacking:
            found.pop(sha, None)
        return found

    def _from_features(
        self, shas: Sequence[str], heads: LinearHeads, feature: str, model: str
    ) -> list[PhotoScore]:
        scores = []
        with self._figures.timed("rescore"):
            for packed in self._queue.features(shas, feature):
                scales, data = np.array(packed.scales), memoryview(packed.data)
                each = len(data) // len(scales)
                made: list[Scores] = []
                for start in range(0, len(scales), SLICE):
                    some = data[start * each : (start + SLICE) * each]
                    made += heads.scores(unpack(packed.kind, scales[start : start + SLICE], some))
                rows = zip(packed.shas, packed.hashes, made, strict=True)
                scores += [PhotoScore(sha, dhash, {model: by_head}) for sha, dhash, by_head in rows]
        return scores

    @cached_property
    def _heads(self) -> list[tuple[LinearHeads, str, str]]:
        """With what each member's heads are applied to: feature id, model id."""
        members = self._bundle.members
        return [(LinearHeads(self._bundle, one), feature_id(one), one.model_id) for one in members]


def _lacking(shas: Sequence[str], found: Mapping[str, PhotoScore], models: Sequence[str]) -> list[str]:
    """The bytes that not all of these models have scored."""
    wanted = set(models)
    return [sha for sha in shas if sha not in found or not wanted <= found[sha].by_model.keys()]
