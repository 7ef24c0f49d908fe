"""The five architectures: published sizes, the right head replaced, the right weights learning."""

import hashlib
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from enrich.errors import UsageError
from enrich.model.backbones import build_backbone
from training import thesis
from training.models.architectures import (
    AUXILIARY_WIDTH,
    MODES,
    Network,
    WeightSource,
    architecture_name,
    backbone_name,
    preprocessing_of,
    pretrained,
)
from training.models.backbones import load_backbone

PUBLISHED = {
    "resnet18": (11_689_512, 512),
    "alexnet": (61_100_840, 4096),
    "vgg11_bn": (132_868_840, 4096),
    "densenet121": (7_978_856, 1024),
    "inception_v3": (27_161_264, 2048),
}
"""Parameters with 1000 classes, and the width of what the last layer gets."""
IMAGENET, CLASSES = 1000, 3


def on_meta(architecture: str, mode: str, classes: int = CLASSES) -> Network:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return Network(architecture, classes, mode, preprocessing_of(architecture, "none"))


def head_sizes(architecture: str, classes: int) -> int:
    widths = [PUBLISHED[architecture][1], *([AUXILIARY_WIDTH] if architecture == "inception_v3" else [])]
    return sum(width * classes + classes for width in widths)


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_parameters_are_those_published_with_a_new_head(architecture: str) -> None:
    network = on_meta(architecture, "finetuning")
    expected = (
        PUBLISHED[architecture][0] - head_sizes(architecture, IMAGENET) + head_sizes(architecture, CLASSES)
    )
    assert network.parameter_counts() == (expected, expected)
    assert (network.head.in_features, network.head.out_features) == (PUBLISHED[architecture][1], CLASSES)


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_in_feature_extraction_only_the_new_layers_learn(architecture: str) -> None:
    network = on_meta(architecture, "feature_extraction")
    assert network.parameter_counts()[1] == head_sizes(architecture, CLASSES)
    names = {name for name, p in network.named_parameters() if p.requires_grad}
    auxiliary = {"backbone.AuxLogits.fc.weight", "backbone.AuxLogits.fc.bias"}
    assert names == {"head.weight", "head.bias"} | (auxiliary if architecture == "inception_v3" else set())


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_input_size_is_the_architectures_own_unless_told(architecture: str) -> None:
    side = 299 if architecture == "inception_v3" else 224
    assert preprocessing_of(architecture, "imagenet").size == (side, side)
    assert preprocessing_of(architecture, "imagenet", 96).size == (96, 96)


def test_inception_learns_from_its_auxiliary_head_and_serves_without() -> None:
    preprocessing = preprocessing_of("inception_v3", "none")
    torch.manual_seed(0)
    network = Network("inception_v3", CLASSES, "feature_extraction", preprocessing)
    pictures = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    before = {name: t.clone() for name, t in network.backbone.state_dict().items()}
    network.learn(True)
    _, auxiliary = network(pictures)
    assert auxiliary is not None and auxiliary.shape == (1, CLASSES)
    auxiliary.sum().backward()
    assert network.backbone.AuxLogits.fc.weight.grad is not None
    assert all(torch.equal(before[name], t) for name, t in network.backbone.state_dict().items())
    network.learn(False)
    assert network(pictures)[1] is None
    names = {name.removeprefix("backbone.") for name in network.exported("rooms")}
    served = set(build_backbone(backbone_name("inception_v3")).state_dict())
    assert names == served | {"head.rooms.weight", "head.rooms.bias"}


def test_an_input_too_small_is_refused() -> None:
    """Inception's auxiliary head needs more than the rest of it."""
    with torch.device("meta"), pytest.raises(UsageError, match="cannot see a picture of 96x96"):
        Network("inception_v3", CLASSES, "finetuning", preprocessing_of("inception_v3", "none", 96))


@pytest.mark.parametrize("mode", MODES)
def test_frozen_statistics_stay_and_others_move(mode: str) -> None:
    network = Network("timm:test_resnet", CLASSES, mode, preprocessing_of("timm:test_resnet", "none", 32))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    network.learn(True)
    network(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8))
    pairs = zip(before, [norm.running_mean for norm in norms], strict=True)
    moved = [not torch.equal(old, new) for old, new in pairs if new is not None]
    assert moved and all(moved) == any(moved) == (mode == "finetuning")


def test_weights_of_another_network_are_refused_in_one_line() -> None:
    preprocessing = preprocessing_of("timm:test_resnet", "none")
    network = Network("timm:test_resnet", 2, "finetuning", preprocessing)
    with pytest.raises(UsageError, match="file does not fit") as error:
        network.load_pretrained({"conv1.weight": torch.zeros(1)}, "file")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["resnet19", "timm:resnet19", "torchvision:fcn_resnet50", "hub:resnet18"])
def test_unknown_architectures_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--architecture {name}: use resnet18"):
        architecture_name(name)


def test_the_five_have_one_name() -> None:
    assert architecture_name("torchvision:resnet18") == architecture_name("resnet18") == "resnet18"
    assert architecture_name("torchvision:resnet50") == "torchvision:resnet50"


def unreachable(*arguments: object, **options: object) -> None:
    raise socket.gaierror(-3, "Temporary failure in name resolution")


def test_a_hub_out_of_reach_is_one_line_with_file_address_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(UsageError) as error:
        pretrained("vgg11_bn", WeightSource())
    said = str(error.value)
    assert "\n" not in said and "://" in said and "--weights-dir" in said
    assert said.count("vgg11_bn-6002323d.pth") == 2 and str(tmp_path / "checkpoints") in said


def test_timms_hub_out_of_reach_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def offline(*arguments: object, **options: object) -> None:
        logging.getLogger("huggingface_hub.utils").warning("retrying")
        raise OSError("no connection")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UsageError, match=r"timm:resnet18 cannot be had from timm's hub \(no connection\)"):
        pretrained("timm:resnet18", WeightSource())
    assert not caplog.records


@pytest.mark.parametrize("name", [*thesis.ARCHITECTURES, "timm:test_resnet"])
def test_what_no_package_brings_is_said_of_options_that_compare_has(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        pretrained(name, WeightSource("package"))
    said = str(caught.value)
    assert said.startswith(f"--architecture {name}: no pip package brings its weights; ")
    assert "timm:tf_efficientnet_lite0" in said and "--backbone" not in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"size": 320}, "timm:vit_tiny_patch16_224 cannot see a picture of 320x320 ("),
        ({"pool": "catavgmax"}, "backbone 'timm:vit_tiny_patch16_224' cannot pool by catavgmax ("),
    ],
)
def test_a_backbone_that_cannot_be_had_so_is_refused_in_one_line(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_backbone("timm:vit_tiny_patch16_224", "none", **more)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_local_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"resnet18-f37072fd\.pth is missing: fetch .*://"):
        pretrained("resnet18", WeightSource(folder=tmp_path))


def test_a_local_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"not these")
    begins = hashlib.sha256(b"not these").hexdigest()[:8]
    with pytest.raises(UsageError, match=f"its sha256 begins with {begins}, not with f37072fd"):
        pretrained("resnet18", WeightSource(folder=tmp_path))


def test_old_names_in_a_densenet_file_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network("densenet121", 2, "finetuning", preprocessing_of("densenet121", "imagenet"))
    state: dict[str, Tensor] = {
        name.replace("norm1", "norm.1").replace("conv2", "conv.2"): torch.full_like(tensor, 0.5)
        for name, tensor in network.backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    } | {"classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    monkeypatch.setattr("training.models.architectures._file", lambda *_: path)
    loaded = pretrained("densenet121", WeightSource(folder=tmp_path))
    assert loaded is not None
    network.load_pretrained(*loaded)
    assert all(bool((p == 0.5).all()) for p in network.backbone.parameters())
