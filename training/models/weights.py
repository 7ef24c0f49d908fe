"""Pretrained weights: torchvision's and timm's hubs, local files, pip packages, or none.

Files are checked against the sha256 prefix in their name and read without unpickling code.
"""

import hashlib
import pickle
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torchvision
from torch import Tensor

from enrich.errors import UsageError, reason
from training.models.architectures import backbone_name
from training.models.backbones import PACKAGED, hub_weights, load_backbone

CONNECT_SECONDS = 20.0
_OLD_DENSENET = re.compile(r"\b(norm|relu|conv)\.([12])\.")
"""In published DenseNet files layers are called `norm.1`, which module names cannot be any more."""


@dataclass(frozen=True)
class WeightSource:
    """`kind`: imagenet, package or none. `folder`: local files by torchvision's names, instead of its hub."""

    kind: str = "imagenet"
    folder: Path | None = None


def pretrained(architecture: str, source: WeightSource) -> tuple[dict[str, Tensor], str] | None:
    """The weights by the names of the model, and where they are from; None where the source is `none`.

    Those of pip packages come rounded to half precision, as bundles ship them.

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
