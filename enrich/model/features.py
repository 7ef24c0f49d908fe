"""Features of photos: whose they are, how they are kept, and the heads applied to them without a backbone.

This module does not import torch: features outlive the network that made them.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from enrich.model.bundle import Bundle, Member
from enrich.model.engine import by_head
from enrich.records import Embedding, Scores

Kept = Literal["float16", "int8"]
_TYPES: dict[str, str] = {"float16": "<f2", "int8": "i1"}


def feature_id(member: Member) -> str:
    """Names what the features of a photo depend on, besides its bytes: backbone, its own weights, pooling,
    preprocessing and arithmetic. Bundles that share these share their features, whatever their heads."""
    identity: dict[str, Any] = {
        "backbone": member.backbone,
        "weights": member.backbone_sha256,
        "pool": member.pool,
        "preprocessing": asdict(member.preprocessing),
        "arithmetic": member.arithmetic,
    }
    if member.variant.ir_sha256 is not None:
        identity["ir"] = member.variant.ir_sha256
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def pack(features: NDArray[np.float32], kind: Kept) -> Embedding | None:
    """Features [features] as they are kept; None where they do not fit: not finite, or beyond float16."""
    if kind == "float16":
        with np.errstate(over="ignore"):
            halves = features.astype(_TYPES[kind])
        return Embedding(kind, 1.0, halves.tobytes()) if np.isfinite(halves).all() else None
    largest = float(np.abs(features).max(initial=0.0))
    if not np.isfinite(largest):
        return None
    scale = largest / 127 or 1.0
    return Embedding(kind, scale, np.rint(features / scale).astype(_TYPES[kind]).tobytes())


def unpack(kind: str, scales: NDArray[np.float64], data: bytes | memoryview) -> NDArray[np.float32]:
    """Float32 [photos, features] of as many photos as there are `scales`, their data one after another."""
    stored = np.frombuffer(data, _TYPES[kind]).reshape(len(scales), -1).astype(np.float32)
    return stored if kind == "float16" else stored * scales[:, None].astype(np.float32)


class LinearHeads:
    """A member's heads, applied to features that were just made, or kept."""

    def __init__(self, bundle: Bundle, member: Member) -> None:
        tensors = bundle.tensors(member)
        self._heads = member.heads
        weight, self._bias = (
            np.concatenate([tensors[f"head.{head.name}.{part}"] for head in self._heads])
            for part in ("weight", "bias")
        )
        self._weight = np.ascontiguousarray(weight.T)

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of features [photos, features], the logits of all heads [photos, outputs], before temperature.

        Raises:
            ValueError: the features are not as many as the heads see.
        """
        logits: NDArray[np.float32] = features @ self._weight + self._bias
        return logits

    def scores(self, features: NDArray[np.float32]) -> list[Scores]:
        """Of features [photos, features], each photo's logits by head, before temperature.

        Raises:
            ValueError: the features are not as many as the heads see.
        """
        return [by_head(self._heads, row) for row in self.logits(features).tolist()]
