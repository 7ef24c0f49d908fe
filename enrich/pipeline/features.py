"""Features of photos that were just scored, on their way to state."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from enrich.model.bundle import Bundle
from enrich.model.features import Kept, feature_id, pack
from enrich.records import Embedding, Output, PhotoResult


class FreshFeatures:
    """Features from the scoring of a photo until its first result takes them along.

    They do not stay with what a run remembers of its photos, which would grow by the size of all of them.
    """

    def __init__(self, bundle: Bundle, keep: Kept | Literal["none"]) -> None:
        self._keep = None if keep == "none" else keep
        # Members on one backbone share its features.
        self._models = {feature_id(member): member.model_id for member in bundle.members}
        self._waiting: dict[str, Mapping[str, Embedding]] = {}

    def packed(self, outputs: Mapping[str, Output]) -> Mapping[str, Embedding]:
        """What the members made of a photo, as far as it is to be kept, by feature id."""
        if self._keep is None:
            return {}
        packed = {name: pack(outputs[id].features, self._keep) for name, id in self._models.items()}
        return {name: one for name, one in packed.items() if one}

    def put(self, sha256: str, outputs: Mapping[str, Output]) -> None:
        """Hold what is to be kept of a photo for `join`."""
        if packed := self.packed(outputs):
            self._waiting[sha256] = packed

    def join(self, result: PhotoResult) -> PhotoResult:
        """The result, with the features of its bytes where they were just scored and no other has them."""
        found = self._waiting.pop(result.sha256 or "", None)
        if not found or result.score is None:
            return result
        return replace(result, score=replace(result.score, embeddings=found))
