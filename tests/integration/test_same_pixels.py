"""Training and serving see the same pixels: a photo gets the same score on the way of `fit`, on the way of
`compare`, and in `enrich`, whatever the bundle's preprocessing and the kind of file."""

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from enrich.model.bundle import Bundle, Preprocessing
from enrich.model.torch_engine import TorchEngine
from enrich.model.writing import write_bundle
from enrich.photos.decode import decode
from enrich.records import Decoded
from tests.support.bundles import draw, draw_bytes
from training.models.architectures import Network
from training.models.backbones import compiled
from training.models.features import pixels
from training.trainer.loading import Loader, Side

TOLERANCE = 1e-4
"""Of a probability: serving folds batch norms into convolutions; the pixels themselves are equal."""
BACKBONE = "timm:test_resnet"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSINGS = {
    f"{resize}_{interpolation}": Preprocessing(
        (64, 96),
        resize,
        interpolation,
        MEAN,
        STD,
        0.875 if resize == "crop" else 1.0,  # type: ignore[arg-type]
    )
    for resize in ("squash", "crop")
    for interpolation in ("bilinear", "bicubic", "lanczos", "box")
}


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(draw("kitchen", 3, (320, 200)), "JPEG", exif=exif, quality=90)


def transparent() -> Image.Image:
    picture = draw("bathroom", 4).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def grey16() -> Image.Image:
    ramp = np.linspace(0, 65535, 160 * 120).reshape(120, 160).astype(np.uint16)
    return Image.fromarray(ramp)


PHOTOS: Mapping[str, Callable[[], bytes]] = {
    "landscape.jpg": lambda: draw_bytes("balcony", 1, (400, 300)),
    "portrait.jpg": lambda: draw_bytes("fireplace", 2, (210, 480)),
    "large.jpg": lambda: draw_bytes("bedroom", 5, (1600, 1200)),  # decoded at a part of its size
    "tiny.png": lambda: draw_bytes("other", 6, (9, 7), "PNG"),
    "palette.png": lambda: saved(draw("kitchen", 7).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "grey16.png": lambda: saved(grey16(), "PNG"),
    "transparent.webp": lambda: saved(transparent(), "WEBP"),
    "cmyk.jpg": lambda: saved(draw("bedroom", 8).convert("CMYK"), "JPEG"),
    "exif.jpg": rotated,
}


@pytest.fixture(scope="module")
def network() -> Network:
    """A network as `compare` trains it, with weights that tell photos apart."""
    torch.manual_seed(2)
    made = Network(BACKBONE, 2, "finetuning", PREPROCESSINGS["crop_bilinear"])
    torch.nn.init.normal_(made.head.weight, std=0.4)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return made.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Bundle:
    """That network once for every preprocessing, as a multiclass head each."""
    members, tensors = [], {}
    for name, preprocessing in PREPROCESSINGS.items():
        head = {
            "name": name,
            "kind": "multiclass",
            "temperature": 1.0,
            "classes": [{"name": kind, "publish": True, "threshold": 0.5} for kind in ("one", "other")],
            "metrics": {},
        }
        weights = {"weights": f"{name}.safetensors", "backbone": BACKBONE, "bf16": None, "heads": [head]}
        members.append({**weights, "preprocessing": asdict(preprocessing)})
        tensors[f"{name}.safetensors"] = {k: v.clone() for k, v in network.exported(name).items()}
    manifest = {"name": "same pixels", "description": "", "created": "2026-01-01", "members": members}
    return write_bundle(tmp_path_factory.mktemp("pixels") / "bundle", manifest, tensors)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, make in PHOTOS.items():
        (folder / name).write_bytes(make())
    return folder


Served = tuple[dict[str, Decoded], dict[str, NDArray[np.float64]]]


@pytest.fixture(scope="module")
def served(bundle: Bundle, photos: Path) -> Served:
    """What serving makes of each photo: its pixels, and probabilities [preprocessings, 2]."""
    decoded = {
        name: decode((photos / name).read_bytes(), bundle.preprocessings, 10_000_000) for name in PHOTOS
    }
    answers = TorchEngine(bundle, "cpu").score([one.pixels for one in decoded.values()])
    chances = {
        name: np.array(
            [m.heads[0].probabilities(answer[m.model_id].scores[m.heads[0].name]) for m in bundle.members]
        )
        for name, answer in zip(PHOTOS, answers, strict=True)
    }
    return decoded, chances


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("place", range(len(PREPROCESSINGS)), ids=list(PREPROCESSINGS))
def test_validation_of_compare_is_what_is_served(
    network: Network, photos: Path, served: Served, photo: str, place: int
) -> None:
    preprocessing = list(PREPROCESSINGS.values())[place]
    loader = Loader(preprocessing, 4, 0, torch.device("cpu"))
    batch = next(loader.validation(Side([photos / photo], torch.tensor([0]))))
    assert np.array_equal(batch.pictures[0].permute(1, 2, 0).numpy(), served[0][photo].pixels[place])
    with torch.inference_mode():
        chances = network(batch.pictures)[0].softmax(1)[0].numpy()
    np.testing.assert_allclose(chances, served[1][photo][place], atol=TOLERANCE)


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("place", range(len(PREPROCESSINGS)), ids=list(PREPROCESSINGS))
def test_features_of_fit_are_those_of_what_is_served(
    network: Network, photos: Path, served: Served, photo: str, place: int
) -> None:
    preprocessing = list(PREPROCESSINGS.values())[place]
    seen = pixels(photos / photo, preprocessing, ["whole"])
    assert np.array_equal(seen[0], served[0][photo].pixels[place])
    with torch.inference_mode():
        features = compiled(network.backbone, preprocessing)(np.stack(seen))
        logits = network.head(torch.from_numpy(features))
    np.testing.assert_allclose(logits.softmax(1)[0].numpy(), served[1][photo][place], atol=TOLERANCE)


def test_the_scores_do_tell_photos_and_preprocessings_apart(served: Served) -> None:
    chances = np.stack([one[:, 0] for one in served[1].values()])
    assert chances.std(axis=0).min() > 0.02, "photos"
    squash, crop = chances[:, :4], chances[:, 4:]
    assert np.abs(squash - crop).max() > 0.02 and np.abs(chances[:, 0] - chances[:, 3]).max() > 0.001
