"""Arithmetics: a member's network in fp32, and in what is faster, each with thresholds of its own.

Faster arithmetics move every probability a little, and a threshold that holds in one need not hold in
another. So each has its own heads, fitted on what it says of homes that nobody learnt from, and its own model
id, by which its scores are kept: those of two arithmetics are never mixed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from enrich.cores import cpu_flags
from enrich.model.head import CLOSED, Head, Share

Arithmetic = Literal["fp32", "bf16", "int8"]
Faster = Literal["bf16", "int8"]
FLAGS: dict[Arithmetic, frozenset[str]] = {
    "bf16": frozenset({"amx_bf16", "avx512_bf16"}),
    "int8": frozenset({"amx_int8", "avx512_vnni", "avx_vnni"}),
}
"""What a CPU needs one of. Without, bf16 is emulated and slower than fp32; and products of int8 are added up
in 16 bits, where sums saturate: another network than the one that the thresholds were fitted to."""
NEEDED: dict[Arithmetic, str] = {
    "bf16": "bf16 instructions (avx512_bf16)",
    "int8": "int8 instructions that add up in 32 bits (VNNI)",
}
MAX_LOSS = 0.005
"""By how much the average precision of a head may stay below fp32's."""
MANY = 20
"""Held-out homes that came out as *yes*."""


def cpu_has(arithmetic: Arithmetic) -> bool:
    """Whether this CPU computes in it, as fast and as exactly as it should."""
    return arithmetic == "fp32" or not FLAGS[arithmetic].isdisjoint(cpu_flags())


IrFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.(xml|bin)(\.gz)?$")]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Ir:
    """Files of a backbone, from pixels to features, as OpenVINO reads it."""

    __pydantic_config__ = CLOSED
    ir: IrFile
    weights: IrFile


@dataclass(frozen=True, slots=True)
class Counted:
    """`hits` of `of` held-out homes."""

    __pydantic_config__ = CLOSED
    hits: Count
    of: Count

    def reaches(self, share: float) -> bool:
        """Whether this share was reached; of `MANY` or more, also if one home more would reach it."""
        return self.of > 0 and self.hits + (self.of >= MANY) >= share * self.of

    def as_good_as(self, other: "Counted") -> bool:
        """Whether the share is as high; where one is of no homes, so must be the other."""
        if self.of == 0 or other.of == 0:
            return self.of == other.of
        return self.hits * other.of >= other.hits * self.of


@dataclass(frozen=True, slots=True)
class Measured:
    """A head on held-out photos; a binary one on their homes, too, where its thresholds were tried there."""

    __pydantic_config__ = CLOSED
    average_precision: Share
    precision: Counted | None = None
    recall: Counted | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """By how much probabilities differ from fp32's: at most, and at the 99.9th percentile of the photos."""

    __pydantic_config__ = CLOSED
    max: Share
    p999: Share


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """A head in this arithmetic beside fp32, on the same photos; thresholds cross-fitted."""

    __pydantic_config__ = CLOSED
    here: Measured
    fp32: Measured
    drift: Drift
    target: Share | None = None
    """The precision of homes that the `true` threshold was chosen for."""

    def flaw(self, name: str) -> str | None:
        """Why this head is not as good as in fp32; None: it is."""
        loss = self.fp32.average_precision - self.here.average_precision
        if loss > MAX_LOSS + 1e-9:
            return (
                f"average precision of {name} {self.here.average_precision:.4f}, "
                f"fp32's {self.fp32.average_precision:.4f}"
            )
        if self.target is None:
            return None
        found, exact = self.here.precision, self.fp32.precision
        as_good = found is not None and exact is not None and found.as_good_as(exact)
        found = found or Counted(0, 0)
        if not (found.reaches(self.target) or as_good):
            return f"precision of {name} {found.hits} of {found.of} held-out homes, not {self.target:g}"
        return None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a faster arithmetic was held out on, and what came out; `photos_sha256` names these photos."""

    __pydantic_config__ = CLOSED
    photos: Count
    photos_sha256: str
    heads: dict[str, HeadFigures] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Spec:
    """An entry of a member's `arithmetics` in the manifest."""

    __pydantic_config__ = CLOSED
    heads: tuple[Head, ...]
    files: Ir | None = None
    figures: Figures | None = None

    def problems(self, name: Faster, heads: Sequence[Head]) -> Iterator[str]:
        """What contradicts the member's own `heads`."""
        if (name == "int8") != (self.files is not None):
            yield f"{name} {'needs' if name == 'int8' else 'has no'} files; make the bundle again"
        if self.files is not None and not (
            self.files.ir.endswith((".xml", ".xml.gz")) and self.files.weights.endswith((".bin", ".bin.gz"))
        ):
            yield f"{name}: ir is a file .xml and weights a file .bin, or both with .gz; correct the names"
        if [_asked(head) for head in self.heads] != [_asked(head) for head in heads]:
            yield (
                f"{name} has other heads than the member: names, kinds and classes must be the same, in the "
                "same order; make the bundle again"
            )


def _asked(head: Head) -> tuple[str, str, list[str]]:
    return head.name, head.kind, [kind.name for kind in head.classes]


@dataclass(frozen=True, slots=True)
class Variant:
    """A member in one arithmetic. `ir`: its backbone as OpenVINO reads it, and `ir_sha256` what names that
    file's content; None: the backbone is made from the weights."""

    model_id: str
    heads: tuple[Head, ...]
    ir: Ir | None = None
    ir_sha256: str | None = None
    figures: Figures | None = field(default=None, hash=False)

    def flaw(self) -> str | None:
        """Why `auto` does not take it; None: every head is as good as in fp32, as far as it was tried."""
        if self.figures is None:
            return "no held-out figures"
        for head in self.heads:
            if head.name not in self.figures.heads:
                return f"no held-out figures of {head.name}"
            if flaw := self.figures.heads[head.name].flaw(head.name):
                return flaw
        return None


def variants(
    network_id: str,
    heads: tuple[Head, ...],
    faster: Mapping[Faster, Spec],
    files: Mapping[str, str],
) -> dict[Arithmetic, Variant]:
    """A member's arithmetics, fp32 first; `files`: sha256 of the bundle's files by name."""
    found: dict[Arithmetic, Variant] = {"fp32": Variant(network_id, heads)}
    for name, spec in faster.items():
        identity = {"network": network_id, "arithmetic": name}
        ir_sha256 = None
        if spec.files is not None:
            ir_sha256 = f"{files[spec.files.ir]} {files[spec.files.weights]}"
            identity["ir"] = ir_sha256
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        model_id = hashlib.sha256(canonical.encode()).hexdigest()
        found[name] = Variant(model_id, spec.heads, spec.files, ir_sha256, spec.figures)
    return found
