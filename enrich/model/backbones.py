"""Backbones: built by name, filled with a bundle's weights, made faster for scoring."""

import copy
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from enrich.errors import BundleError, reason
from enrich.model.bundle import Pool


def build_backbone(name: str, pool: Pool | None = None) -> nn.Module:
    """The backbone `timm:…` or `torchvision:…` without its classifier: pictures in, pooled features out.

    `pool` replaces the way in which a timm backbone pools its last feature map.

    Untrained. Training builds it the same way, so that its parameter names are those of the bundle.

    Raises:
        BundleError: no such backbone, one whose classifier is not a linear layer at its end, or one that
            cannot pool so.
    """
    library, _, model_name = name.partition(":")
    if library == "timm" and timm.is_model(model_name):
        pooling: dict[str, Any] = {"global_pool": pool} if pool else {}
        try:
            model: nn.Module = timm.create_model(model_name, pretrained=False, num_classes=0, **pooling)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            if not pool:
                raise
            raise BundleError(
                f"backbone {name!r} cannot pool by {pool} ({reason(error)}); leave the pooling out"
            ) from None
        return model
    if library == "torchvision" and model_name in torchvision.models.list_models(module=torchvision.models):
        slow_or_aux = {"init_weights": False, "aux_logits": False}
        options = slow_or_aux if model_name in ("inception_v3", "googlenet") else {}
        model = torchvision.models.get_model(model_name, weights=None, **options)
        for place in ("fc", "classifier", "head", "heads"):
            classifier = getattr(model, place, None)
            if isinstance(classifier, nn.Linear):
                setattr(model, place, nn.Identity())
                return model
            if isinstance(classifier, nn.Sequential) and isinstance(classifier[-1], nn.Linear):
                classifier[-1] = nn.Identity()
                return model
    raise BundleError(
        f"backbone {name!r}: {library} has none of that name that ends in a linear classifier here; "
        "correct the name or upgrade"
    )


def load_weights(backbone: nn.Module, tensors: dict[str, Tensor], path: Path, name: str) -> None:
    """Put the tensors `backbone.…` of the file `path` into the backbone called `name`.

    Raises:
        BundleError: they are not its weights.
    """
    weights = {
        key.removeprefix("backbone."): tensor
        for key, tensor in tensors.items()
        if key.startswith("backbone.")
    }
    try:
        missing, unexpected = backbone.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise BundleError(
            f"{path}: weights are not those of {name} ({str(error).splitlines()[-1].strip()})"
        ) from None
    # Batch norm counts its training batches; scoring does not need the count.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        problem, key = ("missing", missing[0]) if missing else ("not known to it", unexpected[0])
        raise BundleError(f"{path}: weights are not those of {name}: {key!r} is {problem}; export it again")


def fold_batch_norms(backbone: nn.Module, pictures: Tensor) -> nn.Module:
    """The backbone with batch norms folded into the convolutions that they follow: a third less time on CPUs.

    Which follows which is seen by running it on `pictures`. Where the folded features of these differ by
    more than rounding (a convolution that feeds something else besides), the backbone is left as it is.
    """
    folded = copy.deepcopy(backbone)
    outputs: list[tuple[nn.Conv2d, Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs.append((module, output))
        elif isinstance(module, nn.BatchNorm2d):
            pairs.extend((conv, module) for conv, made in outputs if made is inputs[0])

    hooks = [module.register_forward_hook(watch) for module in folded.modules()]
    folded(pictures)
    for hook in hooks:
        hook.remove()
    places = {child: (parent, name) for parent in folded.modules() for name, child in parent.named_children()}
    for conv, norm in pairs:
        if norm.running_mean is None or norm.running_var is None:
            return backbone
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        # timm's batch norms carry the activation that comes after them.
        setattr(*places[norm], getattr(norm, "act", nn.Identity()))
    wanted, found = backbone(pictures), folded(pictures)
    same = (wanted - found).norm() <= 1e-4 * wanted.norm()
    return folded.to(memory_format=torch.channels_last) if same else backbone
