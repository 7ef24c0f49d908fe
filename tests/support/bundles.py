"""A tiny bundle whose model is right about pictures drawn by `draw`: tests know what a photo shows.

The backbone is a small, seeded, untrained network; its heads are fitted in closed form on drawn pictures.
"""

import functools
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from enrich.model.backbones import build_backbone
from enrich.model.bundle import Bundle
from enrich.model.writing import write_bundle

COLOURS = {
    "balcony": (40, 110, 230),
    "fireplace": (225, 70, 30),
    "kitchen": (235, 225, 60),
    "bathroom": (60, 215, 200),
    "bedroom": (190, 70, 200),
    "other": (125, 125, 125),
}
ROOMS = ("kitchen", "bathroom", "bedroom", "other")
BACKBONE = "timm:test_resnet"
IR = {"ir": "tiny-int8.xml", "weights": "tiny-int8.bin"}
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def draw(shows: str, seed: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture (width, height) that the test bundle takes for `shows`, a key of `COLOURS`.

    Another seed is another picture: no near-duplicate of the first.
    """
    noise = np.random.default_rng([seed, sorted(COLOURS).index(shows)])
    blobs = noise.integers(0, 256, size=(6, 8, 1), dtype=np.uint8).repeat(3, axis=2)
    texture = Image.fromarray(blobs).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(Image.new("RGB", size, COLOURS[shows]), texture, 0.25)


def draw_bytes(shows: str, seed: int = 0, size: tuple[int, int] = (160, 120), format: str = "JPEG") -> bytes:
    """`draw` as the bytes of a picture file."""
    file = io.BytesIO()
    draw(shows, seed, size).save(file, format=format, quality=90)
    return file.getvalue()


def make_bundle(
    folder: Path,
    *,
    name: str = "test",
    arithmetics: Mapping[str, dict[str, Any]] | None = None,
    **fields: Any,
) -> Bundle:
    """Write the test bundle to `folder` and load it; `fields` replace fields of its one member.

    `arithmetics`: bf16 or int8 -> what `faster` makes.

    Heads: `balcony` and `fireplace` (binary), `room` (kitchen, bathroom, bedroom; `other` is unpublished).
    """
    member = {
        "backbone": BACKBONE,
        "weights": "tiny.safetensors",
        "preprocessing": preprocessing(),
        "heads": [binary_head("balcony"), binary_head("fireplace"), room_head()],
        **fields,
    }
    irs: dict[str, bytes] = {}
    if arithmetics:
        member["arithmetics"] = dict(arithmetics)
    if "int8" in (arithmetics or {}):
        member["arithmetics"]["int8"] = {**member["arithmetics"]["int8"], "files": IR}
        irs = tiny_ir()
    manifest = {"name": name, "description": "for tests", "created": "2026-01-01", "members": [member]}
    return write_bundle(folder, manifest, {member["weights"]: tiny_tensors()}, irs)


def bundle_with(folder: Path, *more: tuple[Mapping[str, Any], str]) -> Path:
    """The folder of a test bundle with more heads, each with the head that it answers like."""
    plain = make_bundle(folder / "plain")
    (member,) = plain.manifest["members"]
    tensors = dict(tiny_tensors())
    for head, like in more:
        for part in ("weight", "bias"):
            tensors[f"head.{head['name']}.{part}"] = tensors[f"head.{like}.{part}"]
    heads = [*member["heads"], *(head for head, _ in more)]
    manifest = {**plain.manifest, "members": [{**member, "heads": heads}]}
    return write_bundle(folder / "more", manifest, {member["weights"]: tensors}).folder


def faster(
    *, true: float = 0.8, precision: float = 0.9, found: tuple[int, int] = (60, 60), **fields: Any
) -> dict[str, Any]:
    """What the test bundle may have in bf16 or int8: thresholds of its own (`true` from there on), and
    figures as good as fp32's, whose average precision is 0.9; `found`: right ones of the homes with *yes*."""
    heads = [binary_head("balcony"), binary_head("fireplace"), room_head()]
    for head in heads[:2]:
        head["thresholds"] = {"true": true, "false": 0.1}
    counts = {"precision": {"hits": found[0], "of": found[1]}, "recall": {"hits": found[0], "of": 80}}
    figures: dict[str, Any] = {
        head["name"]: {
            "here": {"average_precision": precision, **(counts if head["kind"] == "binary" else {})},
            "fp32": {"average_precision": 0.9},
            "drift": {"max": 0.1, "p999": 0.05},
            **({"target": 0.95} if head["kind"] == "binary" else {}),
        }
        for head in heads
    }
    return {"heads": heads, "figures": {"photos": 800, "photos_sha256": "0" * 64, "heads": figures}, **fields}


@functools.cache
def tiny_ir() -> dict[str, bytes]:
    """The test bundle's network in int8, calibrated on drawn pictures."""
    from training.models.quantize import quantize  # with all that training needs

    with tempfile.TemporaryDirectory() as scratch:
        bundle = make_bundle(Path(scratch) / "bundle")
        pictures = [np.asarray(draw(kind, seed).resize((64, 64))) for kind in COLOURS for seed in range(4)]
        made = quantize(bundle, bundle.members[0], pictures, Path(scratch))
    return dict(zip(IR.values(), made, strict=True))


def preprocessing() -> dict[str, Any]:
    return {"size": [64, 64], "resize": "squash", "interpolation": "bicubic", "mean": MEAN, "std": STD}


def binary_head(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "binary",
        "temperature": 1.0,
        "thresholds": {"true": 0.9, "false": 0.2},
        "aggregation": {"method": "max", "k": 1, "slope": 1.0, "intercept": 0.0},
        "metrics": {},
    }


def room_head() -> dict[str, Any]:
    classes = [{"name": room, "publish": room != "other", "threshold": 0.6} for room in ROOMS]
    return {"name": "room", "kind": "multiclass", "classes": classes, "temperature": 1.0, "metrics": {}}


@functools.cache
def tiny_tensors() -> dict[str, NDArray[Any]]:
    """Seeded backbone, and heads fitted by ridge regression on drawn pictures to logits of about ±6."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        backbone = build_backbone(BACKBONE).eval()
    shows = [kind for kind in COLOURS for _ in range(12)]
    pictures = [draw(kind, seed).resize((64, 64)) for kind in COLOURS for seed in range(1000, 1012)]
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    with torch.inference_mode():
        features = backbone((pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).double().numpy()
    rooms = [kind if kind in ROOMS else "other" for kind in shows]
    targets = {
        "balcony": [[kind == "balcony"] for kind in shows],
        "fireplace": [[kind == "fireplace"] for kind in shows],
        "room": [[room == answer for room in ROOMS] for answer in rooms],
    }
    tensors = {f"backbone.{key}": value.numpy() for key, value in backbone.state_dict().items()}
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = (features - centre) / spread
    for name, answers in targets.items():
        wanted = np.where(np.array(answers), 6.0, -6.0)
        ridge = scaled.T @ scaled + 0.1 * np.eye(scaled.shape[1])
        slopes = np.linalg.solve(ridge, scaled.T @ (wanted - wanted.mean(axis=0))) / spread[:, None]
        tensors[f"head.{name}.weight"] = slopes.T.astype(np.float32)
        tensors[f"head.{name}.bias"] = (wanted.mean(axis=0) - centre @ slopes).astype(np.float32)
    return tensors
