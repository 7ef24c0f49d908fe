"""A tiny bundle whose model is right about pictures drawn by `draw`: tests know what a photo shows.

The backbone is a small, seeded, untrained network; its heads are fitted in closed form on drawn pictures.
"""

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from enrich.model.backbones import build_backbone
from enrich.model.bundle import Bundle, write_bundle

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
    folder: Path, *, name: str = "test", delta_p999: float | None = None, **fields: Any
) -> Bundle:
    """Write the test bundle to `folder` and load it; `fields` replace fields of its one member.

    Heads: `balcony` and `fireplace` (binary), `room` (kitchen, bathroom, bedroom; `other` is unpublished).
    """
    member = {
        "backbone": BACKBONE,
        "weights": "tiny.safetensors",
        "preprocessing": preprocessing(),
        "bf16": None if delta_p999 is None else {"delta_p999": delta_p999},
        "heads": [binary_head("balcony"), binary_head("fireplace"), room_head()],
        **fields,
    }
    manifest = {"name": name, "description": "for tests", "created": "2026-01-01", "members": [member]}
    return write_bundle(folder, manifest, {member["weights"]: tiny_tensors()})


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
