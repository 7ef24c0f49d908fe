"""The scorer answers for each photo what its model says, in whatever company the photo comes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from enrich.errors import BundleError, SettingsError
from enrich.model.backbones import build_backbone, fold_batch_norms
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.torch_engine import TorchEngine
from enrich.model.writing import write_bundle
from enrich.settings import STARTER_BUNDLE
from tests.support.bundles import (
    BACKBONE,
    COLOURS,
    ROOMS,
    binary_head,
    draw,
    faster,
    make_bundle,
    preprocessing,
    room_head,
    tiny_tensors,
)

Photo = tuple[NDArray[np.uint8], ...]


def photo(shows: str, seed: int = 0, *sizes: int) -> Photo:
    picture = draw(shows, seed)
    return tuple(
        np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)) for size in sizes or (64,)
    )


def logits(scorer: TorchEngine, batch: list[Photo]) -> NDArray[np.float64]:
    """All logits of a scorer with one model, [photos, logits of all heads]."""
    rows = [next(iter(by_model.values())).scores for by_model in scorer.score(batch)]
    return np.array([[value for head in row.values() for value in head] for row in rows])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("scored") / "bundle", arithmetics={"bf16": faster()})


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> TorchEngine:
    return TorchEngine(bundle, device="cpu")


def test_each_head_says_what_the_photo_shows(bundle: Bundle, scorer: TorchEngine) -> None:
    (member,) = bundle.members
    kinds = list(COLOURS)
    for kind, by_model in zip(kinds, scorer.score([photo(kind, 3) for kind in kinds]), strict=True):
        scores = by_model[member.model_id].scores
        chances = {head.name: head.probabilities(scores[head.name]) for head in member.heads}
        assert set(scores) == {"balcony", "fireplace", "room"}
        assert (chances["balcony"][0] > 0.9) == (kind == "balcony")
        assert (chances["fireplace"][0] > 0.9) == (kind == "fireplace")
        assert ROOMS[int(chances["room"].argmax())] == (kind if kind in ROOMS else "other")


def test_logits_are_those_of_the_plain_model(bundle: Bundle, scorer: TorchEngine) -> None:
    """The same weights, by hand: pixels to -1..1, plain layout, one photo."""
    backbone = build_backbone(BACKBONE).eval()
    weights = {name: torch.from_numpy(tensor) for name, tensor in tiny_tensors().items()}
    backbone.load_state_dict(
        {
            name.removeprefix("backbone."): tensor
            for name, tensor in weights.items()
            if name.startswith("backbone.")
        }
    )
    shown = photo("kitchen", 5)
    pixels = torch.from_numpy(shown[0].astype(np.float32)).permute(2, 0, 1)[None].contiguous()
    with torch.no_grad():
        features = backbone((pixels / 255 - 0.5) / 0.5)[0]
        wanted = weights["head.room.weight"] @ features + weights["head.room.bias"]
    got = scorer.score([shown])[0][bundle.members[0].model_id].scores["room"]
    assert got == pytest.approx(wanted.tolist(), abs=1e-3)


def test_scores_do_not_depend_on_the_rest_of_the_batch(scorer: TorchEngine) -> None:
    batch = [photo(kind, seed) for seed in range(4) for kind in COLOURS]
    together = logits(scorer, batch)
    alone = np.concatenate([logits(scorer, [one]) for one in batch])
    backwards = logits(scorer, batch[::-1])[::-1]
    assert np.abs(together - alone).max() < 1e-3
    assert np.abs(together - backwards).max() < 1e-3
    assert np.abs(together[0] - together[1]).max() > 1  # or the test would show nothing
    assert scorer.score([]) == []


def test_members_share_a_decoded_picture_or_have_their_own(tmp_path: Path) -> None:
    small, large = preprocessing(), {**preprocessing(), "size": [96, 96]}

    def member(number: int, pixels: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
        weights = f"{number}.safetensors"
        return {"backbone": BACKBONE, "weights": weights, "preprocessing": pixels, "heads": [head]}

    heads = [binary_head("balcony"), binary_head("fireplace"), room_head()]
    members = [member(n, pixels, heads[n]) for n, pixels in enumerate([small, large, small])]
    tensors = {
        f"{n}.safetensors": {
            name: tensor
            for name, tensor in tiny_tensors().items()
            if name.startswith(("backbone.", f"head.{heads[n]['name']}."))
        }
        for n in range(3)
    }
    bundle = write_bundle(tmp_path / "three", {"name": "three", "members": members}, tensors)
    assert [one.size for one in bundle.preprocessings] == [(64, 64), (96, 96)]
    (scores,) = TorchEngine(bundle, device="cpu").score([photo("bedroom", 1, 64, 96)])
    assert [list(scores[one.model_id].scores) for one in bundle.members] == [
        ["balcony"],
        ["fireplace"],
        ["room"],
    ]
    whole = make_bundle(tmp_path / "one")
    (reference,) = TorchEngine(whole, device="cpu").score([photo("bedroom", 1)])
    room = reference[whole.members[0].model_id].scores["room"]
    assert scores[bundle.members[2].model_id].scores["room"] == pytest.approx(room, abs=1e-3)


def test_bf16_rounds_the_backbone_and_keeps_the_decisions(bundle: Bundle, scorer: TorchEngine) -> None:
    batch = [photo(kind, seed) for seed in range(4) for kind in COLOURS]
    exact, rounded = logits(scorer, batch), logits(TorchEngine(bundle.at("bf16"), device="cpu"), batch)
    assert 0 < np.abs(exact - rounded).max() < 0.5
    assert ((exact > 0) == (rounded > 0)).all()


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:first", "cuda:", "cpu:1", "cuda:99", ""])
def test_a_device_that_is_not_there_is_a_settings_error(bundle: Bundle, device: str) -> None:
    with pytest.raises(SettingsError, match="ENRICH_DEVICE"):
        TorchEngine(bundle, device=device)


def test_a_cpu_has_a_lane_per_core_that_may_be_used(
    scorer: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4})
    assert scorer.lanes == 1


def test_int8_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="ENRICH_PRECISION=int8: only OpenVINO runs it"):
        TorchEngine(load_bundle(STARTER_BUNDLE).at("int8"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "timm:resnet_of_tomorrow"}, "timm:resnet_of_tomorrow"),
        ({"backbone": "torchvision:squeezenet1_0"}, "torchvision:squeezenet1_0"),
        ({"backbone": "torchvision:fasterrcnn_resnet50_fpn"}, "fasterrcnn"),
        ({"backbone": "timm:test_vit"}, "weights are not those of timm:test_vit"),
        ({"backbone": "torchvision:resnet18"}, "weights are not those of torchvision:resnet18"),
    ],
)
def test_a_backbone_that_is_not_that_of_the_weights_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        TorchEngine(make_bundle(tmp_path / "bundle", **fields), device="cpu")


def _dropped(name: str) -> dict[str, Any]:
    return {key: tensor for key, tensor in tiny_tensors().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (_dropped("backbone.conv1.0.weight"), r"'conv1\.0\.weight' is missing"),
        (_dropped("backbone.bn1.running_mean"), r"'bn1\.running_mean' is missing"),
        ({**tiny_tensors(), "backbone.extra": np.zeros(1, np.float32)}, "'extra' is not known"),
        ({**tiny_tensors(), "backbone.bn1.bias": np.zeros(2, np.float32)}, r"bn1\.bias"),
        (
            {
                **tiny_tensors(),
                **{
                    f"head.{name}.weight": np.zeros((outputs, 95), np.float32)
                    for name, outputs in (("balcony", 1), ("fireplace", 1), ("room", 4))
                },
            },
            "cannot score a picture of 64x64",
        ),
    ],
)
def test_weights_that_do_not_fit_the_backbone_are_refused(
    tmp_path: Path, tensors: dict[str, Any], message: str
) -> None:
    manifest = make_bundle(tmp_path / "bundle").manifest
    broken = write_bundle(tmp_path / "broken", manifest, {"tiny.safetensors": tensors})
    with pytest.raises(BundleError, match=message) as caught:
        TorchEngine(broken, device="cpu")
    assert "\n" not in str(caught.value)


def test_batch_norm_counters_may_be_left_out(tmp_path: Path, scorer: TorchEngine) -> None:
    manifest = make_bundle(tmp_path / "bundle").manifest
    tensors = {key: value for key, value in tiny_tensors().items() if "num_batches" not in key}
    assert len(tensors) < len(tiny_tensors())
    lean = TorchEngine(write_bundle(tmp_path / "lean", manifest, {"tiny.safetensors": tensors}), "cpu")
    assert (logits(lean, [photo("kitchen")]) == logits(scorer, [photo("kitchen")])).all()


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("torchvision:resnet18", 64, 512),
        ("torchvision:alexnet", 64, 4096),
        ("torchvision:vgg11_bn", 32, 4096),
        ("torchvision:densenet121", 64, 1024),
        ("torchvision:inception_v3", 80, 2048),
        ("torchvision:mobilenet_v3_small", 64, 1024),
        ("timm:tf_efficientnet_lite0", 64, 1280),
    ],
)
def test_backbones_end_at_the_features_before_their_classifier(name: str, size: int, features: int) -> None:
    with torch.inference_mode():
        pooled = build_backbone(name).eval()(torch.zeros(1, 3, size, size))
    assert pooled.shape == (1, features)


class Branching(nn.Module):
    """A convolution that feeds a batch norm and something else: not to be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        made = self.conv(pictures)
        return (self.norm(made) + made.sigmoid()).mean((2, 3))


def trained_a_little(backbone: nn.Module) -> nn.Module:
    """Batch norms that do something, as after training."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(1))
            module.bias.data.fill_(0.1)
    return backbone.eval()


@pytest.mark.parametrize(
    ("backbone", "left"),
    [
        (lambda: build_backbone("timm:tf_efficientnet_lite0"), 0),
        (lambda: build_backbone("timm:test_resnet"), 0),
        (lambda: build_backbone("torchvision:resnet18"), 0),
        (lambda: build_backbone("torchvision:densenet121"), 62),  # those before a convolution stay
        (Branching, 1),
    ],
)
def test_folding_batch_norms_keeps_the_features(backbone: Callable[[], nn.Module], left: int) -> None:
    plain = trained_a_little(backbone())
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wanted = plain(pictures)
        folded = fold_batch_norms(plain, pictures)
        other = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        assert torch.allclose(folded(other), plain(other), rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
        assert torch.equal(plain(pictures), wanted)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == left


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_scores_as_the_cpu_does(bundle: Bundle, scorer: TorchEngine) -> None:
    batch = [photo(kind, seed) for seed in range(4) for kind in COLOURS]
    cuda = TorchEngine(bundle, device="cuda")
    assert np.abs(logits(cuda, batch) - logits(scorer, batch)).max() < 1e-3
    fast = TorchEngine(bundle.at("bf16"), device="auto")
    assert np.abs(logits(fast, batch) - logits(scorer, batch)).max() < 0.5
