"""Bundle: the model as a folder, `manifest.json` and the files that it names (format: docs/bundle.md).

Everything is checked while loading (hashes, fields, shapes, finite numbers) and nothing is ever unpickled.
This module does not import torch: aggregating and publishing need a bundle but no model.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from enrich.errors import BundleError
from enrich.model.arithmetic import Arithmetic, Faster, IrFile, Spec, Variant, variants
from enrich.model.head import CLOSED, Finite, Head, Positive, Share
from enrich.model.tensors import backbone_sha256, check_tensors, read_file, read_tensors

MANIFEST = "manifest.json"
FORMAT = 1

ARITHMETICS = get_args(Arithmetic)

Side = Annotated[int, Field(ge=1, le=2048)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Pool = Literal["avg", "max", "avgmax", "catavgmax"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.safetensors$")]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an upright RGB picture to the model's input.

    `size` is (height, width). `squash` resizes the whole picture to it, whatever its shape; `crop` resizes
    the picture to cover `size / crop_ratio`, keeping its shape, and cuts `size` out of the centre. `mean` and
    `std` are per channel (R, G, B), for pixels on 0..1.
    """

    __pydantic_config__ = CLOSED
    size: tuple[Side, Side]
    resize: Literal["squash", "crop"]
    interpolation: Literal["bilinear", "bicubic", "lanczos", "box"]
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]
    crop_ratio: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0


@dataclass(frozen=True, slots=True)
class Member:
    """A backbone, its weights and the heads that its one pass feeds, in one of its arithmetics."""

    backbone: str
    backbone_sha256: str
    """Over the backbone's own weights, as float32: the same in bundles that differ in their heads only."""
    weights: str
    preprocessing: Preprocessing
    variants: Mapping[Arithmetic, Variant] = field(hash=False, repr=False)
    pool: Pool | None = None
    """How a timm backbone pools its last feature map; None: its own way."""
    arithmetic: Arithmetic = "fp32"

    @property
    def variant(self) -> Variant:
        return self.variants[self.arithmetic]

    @property
    def model_id(self) -> str:
        """What scores are kept by."""
        return self.variant.model_id

    @property
    def heads(self) -> tuple[Head, ...]:
        return self.variant.heads


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded, verified bundle, in one arithmetic. `manifest` is the manifest as read."""

    folder: Path
    bundle_id: str
    name: str
    members: tuple[Member, ...]
    manifest: dict[str, Any] = field(hash=False)

    @property
    def arithmetic(self) -> Arithmetic:
        """The one that all members are in."""
        return self.members[0].arithmetic

    @property
    def arithmetics(self) -> tuple[Arithmetic, ...]:
        """Those in which every member can run."""
        return tuple(name for name in ARITHMETICS if all(name in one.variants for one in self.members))

    @property
    def in_all_arithmetics(self) -> tuple["Bundle", ...]:
        """The bundle as it is, and then in each of its other `arithmetics`, which other machines may use."""
        return self, *(self.at(name) for name in self.arithmetics if name != self.arithmetic)

    def at(self, arithmetic: Arithmetic) -> "Bundle":
        """The bundle in one of its `arithmetics`: other heads and other model ids, the same `bundle_id`."""
        members = tuple(replace(member, arithmetic=arithmetic) for member in self.members)
        return replace(self, members=members)

    def flaw(self, arithmetic: Arithmetic) -> str | None:
        """Why one of its faster `arithmetics` is not as good as fp32; None: it is."""
        flaws = (member.variants[arithmetic].flaw() for member in self.members)
        return next((flaw for flaw in flaws if flaw), None)

    @property
    def notice(self) -> str:
        """What whoever runs the bundle on a database of their own is told once a run; may be empty."""
        return str(self.manifest.get("notice", ""))

    @property
    def heads(self) -> tuple[Head, ...]:
        """Heads of all members, in manifest order."""
        return tuple(head for member in self.members for head in member.heads)

    @property
    def preprocessings(self) -> tuple[Preprocessing, ...]:
        """Distinct preprocessings, in member order: what `decode` makes and `score` expects per photo."""
        return tuple(dict.fromkeys(member.preprocessing for member in self.members))

    def tensors(self, member: Member) -> dict[str, NDArray[Any]]:
        """The member's weights by name, as float32 (counters as stored).

        Raises:
            BundleError: the file is missing, does not have the manifest's hash or holds unusable tensors.
        """
        path = self.folder / member.weights
        return read_tensors(path, self.manifest["files"][member.weights])


class _Bf16(BaseModel):
    """What earlier versions wrote; nothing is decided by it any more."""

    model_config = CLOSED
    delta_p999: Share


class _MemberSpec(BaseModel):
    model_config = CLOSED
    backbone: Annotated[str, Field(pattern=r"^(timm|torchvision):[A-Za-z0-9_.]+$")]
    weights: FileName
    pool: Pool | None = None
    preprocessing: Preprocessing
    bf16: _Bf16 | None = None
    heads: Annotated[tuple[Head, ...], Field(min_length=1)]
    arithmetics: dict[Faster, Spec] = Field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        irs = [spec.files for spec in self.arithmetics.values() if spec.files is not None]
        return [self.weights, *(name for one in irs for name in (one.ir, one.weights))]


class _Manifest(BaseModel):
    # Open at the top level only: a place for what the writer wants to remember, e.g. data and seeds.
    model_config = ConfigDict(extra="allow")
    format: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: str = ""
    notice: str = ""
    created: str = ""
    files: dict[FileName | IrFile, Sha256]
    members: Annotated[tuple[_MemberSpec, ...], Field(min_length=1)]


_MANIFEST = TypeAdapter(_Manifest)


def load_bundle(folder: Path) -> Bundle:
    """Read and verify the bundle in `folder`.

    Raises:
        BundleError: what is wrong, in which file or field, and what to do.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); name the folder of a model bundle "
            "(ENRICH_BUNDLE, or the command's argument)"
        ) from None
    manifest = _parse(path, raw)
    members = tuple(_member(folder, spec, manifest.files) for spec in manifest.members)
    for name, sha256 in manifest.files.items():
        if not name.endswith(".safetensors"):
            read_file(folder / name, sha256)
    return Bundle(folder, hashlib.sha256(raw).hexdigest(), manifest.name, members, json.loads(raw))


def _parse(path: Path, raw: bytes) -> _Manifest:
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error}); write the bundle again") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise BundleError(
            f"{path}: format {found!r}, this version reads format {FORMAT}; export the bundle again, "
            "or upgrade"
        )
    try:
        manifest = _MANIFEST.validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BundleError(
            f"{path}: {_place(first['loc'])}: {first['msg']}{more}; correct the field"
        ) from None
    for problem in _contradictions(manifest, content):
        raise BundleError(f"{path}: {problem}")
    return manifest


def _place(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _contradictions(manifest: _Manifest, content: dict[str, Any]) -> list[str]:
    """What field-by-field validation cannot see."""
    problems = []
    named = [name for spec in manifest.members for name in spec.files]
    if sorted(named) != sorted(manifest.files):
        problems.append("files and the members must name the same files, each once; correct the names")
    heads = [head for spec in manifest.members for head in spec.heads]
    names = [head.name for head in heads]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"two heads are called {name!r}; give each head a name of its own")
    for spec in manifest.members:
        if spec.pool is not None and not spec.backbone.startswith("timm:"):
            problems.append(f"{spec.weights}: pool is for timm backbones; leave it out")
        if spec.preprocessing.resize == "squash" and spec.preprocessing.crop_ratio != 1:
            problems.append(f"{spec.weights}: crop_ratio has no meaning with resize 'squash'; leave it out")
        for faster, one in spec.arithmetics.items():
            problems += [f"{spec.weights}: {problem}" for problem in one.problems(faster, spec.heads)]
            heads += one.heads
    stated = [head.get("thresholds") or {} for head in _entries(content["members"])]
    for head, thresholds in zip(heads, stated, strict=True):
        problems += head.rules.problems(head, set(thresholds))
    return problems


def _entries(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The manifest's entries of heads: those of all members, then those of their arithmetics."""
    faster = [spec for member in members for spec in member.get("arithmetics", {}).values()]
    return [head for part in (*members, *faster) for head in part["heads"]]


def _member(folder: Path, spec: _MemberSpec, files: Mapping[str, str]) -> Member:
    path = folder / spec.weights
    tensors = read_tensors(path, files[spec.weights])
    check_tensors(path, spec.heads, tensors)
    identity: dict[str, Any] = {
        "backbone": spec.backbone,
        "weights": files[spec.weights],
        "preprocessing": asdict(spec.preprocessing),
        "heads": [[head.name, head.kind, [kind.name for kind in head.classes]] for head in spec.heads],
    }
    if spec.pool is not None:
        identity["pool"] = spec.pool
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    network_id = hashlib.sha256(canonical.encode()).hexdigest()
    return Member(
        backbone=spec.backbone,
        backbone_sha256=backbone_sha256(tensors),
        weights=spec.weights,
        preprocessing=spec.preprocessing,
        variants=variants(network_id, spec.heads, spec.arithmetics, files),
        pool=spec.pool,
    )
