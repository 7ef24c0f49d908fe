"""The networks compared: a pretrained backbone with a new last layer, and which of it learns.

In `feature_extraction` only the new layer learns (of Inception v3 the auxiliary head's last layer, too) and
the frozen part stays in eval mode, batch norm statistics and dropout included: what it makes of a picture is
the same in every epoch. (PyTorch's tutorials leave the frozen part in train mode, where its batch norm
statistics drift.) In `finetuning` all weights learn.
"""

import functools
import hashlib
import pickle
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.inception import InceptionAux

from enrich.errors import UsageError, reason
from enrich.model.backbones import build_backbone
from enrich.model.bundle import Preprocessing
from training import thesis
from training.models.backbones import LITE_COLOURS, PACKAGED, features_of, hub_weights, load_backbone

MODES = tuple(thesis.MODES)
AUXILIARY_WIDTH = 768
"""Channels that Inception v3 hands to its auxiliary head."""
INCEPTION = "inception_v3"
HALF = (0.5, 0.5, 0.5)
CONNECT_SECONDS = 20.0
_OLD_DENSENET = re.compile(r"\b(norm|relu|conv)\.([12])\.")
"""In published DenseNet files layers are called `norm.1`, which module names cannot be any more."""


def architecture_name(given: str) -> str:
    """`given` as results name it: the thesis's five bare, else `timm:<model>` or `torchvision:<model>`; a
    UsageError where there is no such architecture."""
    name = thesis.plain(given)
    if name in thesis.ARCHITECTURES:
        return name
    library, _, model = given.partition(":")
    if library == "timm" and timm.is_model(model):
        return given
    if library == "torchvision" and model in torchvision.models.list_models(module=torchvision.models):
        return given
    raise UsageError(
        f"--architecture {given}: use {', '.join(thesis.ARCHITECTURES)}, torchvision:MODEL or timm:MODEL"
    )


def backbone_name(architecture: str) -> str:
    """As a bundle names it: `timm:<model>` or `torchvision:<model>`."""
    return architecture if ":" in architecture else f"torchvision:{architecture}"


def preprocessing_of(architecture: str, weights: str, size: int = 0) -> Preprocessing:
    """What the backbone was pretrained with; `size`: side of the input in pixels, 0: its own.

    Pictures are resized so that the shorter side fits and cut out of the centre. Inception v3 takes pixels on
    -1..1, to which torchvision rescales normalised ImageNet pixels first.
    """
    library, _, model = backbone_name(architecture).partition(":")
    if library == "torchvision":
        preset = next(iter(torchvision.models.get_model_weights(model))).transforms()
        side = int(preset.crop_size[0])
        found = Preprocessing((side, side), "crop", "bilinear", tuple(preset.mean), tuple(preset.std))
        if model == INCEPTION:
            found = replace(found, mean=HALF, std=HALF)
    elif weights == "package" and architecture in PACKAGED:
        side = PACKAGED[architecture][2]
        found = Preprocessing((side, side), "crop", "bicubic", *LITE_COLOURS)
    else:
        config: Any = timm.get_pretrained_cfg(model) or timm.models.PretrainedCfg()
        interpolation: Literal["bilinear", "bicubic"] = (
            "bilinear" if config.interpolation == "bilinear" else "bicubic"
        )
        found = Preprocessing(config.input_size[1:], "crop", interpolation, config.mean, config.std)
    return replace(found, size=(size, size)) if size else found


@functools.cache
def own_size(architecture: str, weights: str) -> int | None:
    """Side of the input that an architecture was pretrained with; None: it is not known here."""
    try:
        return preprocessing_of(architecture_name(architecture), weights).size[0]
    except UsageError:
        return None


class Network(nn.Module):
    """Backbone and new last layer(s). Pictures: uint8 [n, 3, h, w], or what `features` made of them."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, architecture: str, classes: int, mode: str, preprocessing: Preprocessing, bf16: bool = False
    ) -> None:
        super().__init__()
        self.mode, self.bf16 = mode, bf16
        self.backbone: Any = build_backbone(backbone_name(architecture))
        self.has_auxiliary = thesis.plain(architecture) == INCEPTION
        if self.has_auxiliary:
            self.backbone.AuxLogits = InceptionAux(AUXILIARY_WIDTH, classes)
            self.backbone.aux_logits = True  # type: ignore[assignment]
        self.backbone.eval()
        self.backbone.training = self.has_auxiliary  # to see that the auxiliary head takes it, too
        width = features_of(architecture, self.backbone, preprocessing.size, "--input-size")
        self.head = nn.Linear(width, classes)
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            scaled = torch.tensor(values).reshape(1, 3, 1, 1) * 255
            self.register_buffer(name, scaled, persistent=False)
        if mode == MODES[0]:
            for name, parameter in self.backbone.named_parameters():
                parameter.requires_grad_(name.startswith("AuxLogits.fc."))

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> None:
        """Take over the backbone's weights without those of the old last layers; a UsageError where these are
        not weights of this architecture."""
        new = {"AuxLogits.fc.weight", "AuxLogits.fc.bias"}
        kept = {name: tensor for name, tensor in state.items() if name not in new}
        try:
            missing, unexpected = self.backbone.load_state_dict(kept, strict=False)
        except RuntimeError as error:
            raise UsageError(f"{source} does not fit: {str(error).splitlines()[-1].strip()}") from None
        missing = [key for key in missing if key not in new and not key.endswith("num_batches_tracked")]
        if missing or len(unexpected) > 2:
            raise UsageError(f"{source} does not fit: {(missing or unexpected)[0]} should not differ")

    def learn(self, learning: bool) -> None:
        """Switch between a training step and looking at photos."""
        self.train(learning and self.mode == MODES[1])
        if learning and self.has_auxiliary:
            # Only the network's own flag: it asks for the auxiliary output and changes nothing else.
            self.backbone.training = True

    def features(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 [n, width] that the last layer gets, and the auxiliary logits."""
        if pictures.ndim == 2:
            return pictures, None
        x = ((pictures.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            made = self.backbone(x)
        if isinstance(made, Tensor):
            return made.flatten(1).float(), None
        return made.logits.flatten(1).float(), made.aux_logits.float()

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 logits [n, classes] of pictures; and the auxiliary ones of Inception v3 while it learns."""
        features, auxiliary = self.features(pictures)
        return self.head(features), auxiliary

    def learnt(self) -> dict[str, Tensor]:
        """All that training changes, by name: parameters that learn and, in finetuning, statistics."""
        if self.mode == MODES[1]:
            return dict(self.state_dict())
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def exported(self, task: str) -> dict[str, Tensor]:
        """Weights by a bundle's names: `backbone.…` and `head.<task>.…`; without the auxiliary head."""
        return {
            f"head.{task}.{name.removeprefix('head.')}" if name.startswith("head.") else name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("backbone.AuxLogits.")
        }

    def parameter_counts(self) -> tuple[int, int]:
        """Of all parameters, and of those that learn."""
        sizes = [(p.numel(), p.requires_grad) for p in self.parameters()]
        return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


@dataclass(frozen=True)
class WeightSource:
    """`kind`: imagenet, package or none. `folder`: local files by torchvision's names, instead of its hub."""

    kind: str = "imagenet"
    folder: Path | None = None


def pretrained(architecture: str, source: WeightSource) -> tuple[dict[str, Tensor], str] | None:
    """The weights by the names of the model, and where they are from; None where the source is `none`.

    They are from torchvision's and timm's hubs, files, or pip packages; the latter come rounded to half
    precision, as bundles ship them. Files are checked against the sha256 prefix in their name and read
    without unpickling code.

    Raises:
        UsageError: they cannot be had, or not be read.
    """
    if source.kind == "none":
        return None
    if source.kind == "package":
        if architecture not in PACKAGED:
            known = ", ".join(PACKAGED)
            raise UsageError(f"--architecture {architecture}: no pip package brings its weights; use {known}")
        state = dict(load_backbone(architecture, "package").module.state_dict())
        return state, f"the package of {architecture}"
    if not backbone_name(architecture).startswith("torchvision:"):
        return hub_weights(architecture)[0], architecture
    path = _file(architecture, source)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {_OLD_DENSENET.sub(r"\1\2.", name): tensor for name, tensor in state.items()}, str(path)
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError) as error:
        raise UsageError(f"{path} is not a file of weights ({reason(error)}); fetch it again") from None


def _file(architecture: str, source: WeightSource) -> Path:
    """The weights file, checked."""
    model = backbone_name(architecture).removeprefix("torchvision:")
    url: str = next(iter(torchvision.models.get_model_weights(model))).url
    name = Path(urlsplit(url).path).name
    if source.folder is not None:
        path = source.folder / name
        if not path.is_file():
            raise UsageError(f"{path} is missing: fetch {url} and put it into {source.folder}")
    else:
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
        if not path.is_file():
            _download(url, path)
    stated = re.search(r"-([0-9a-f]{8,})\.", name)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if stated and not found.startswith(stated[1]):
        raise UsageError(
            f"{path} is broken: its sha256 begins with {found[:8]}, not with {stated[1]}; fetch {url} again"
        )
    return path


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)  # torch's download has none of its own
    try:
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"{path.name} cannot be downloaded ({reason(error)}): fetch {url} on another machine and put it "
            f"into {path.parent}, or into a folder that --weights-dir names"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
