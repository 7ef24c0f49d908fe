"""What learns in finetuning: the upper blocks of an EfficientNet-Lite, fast on a CPU, or all of any backbone.

Batch norm keeps its statistics and is folded into the convolution before it; depthwise kernels stay as
pretrained (their gradient costs more than all the rest and they hold 2 % of the weights). What learns: the
1x1 convolutions, and every scale and shift behind them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.layers.padding import pad_same
from torch import Tensor, nn

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from enrich.model.network import Normalise
from training.models.backbones import compiled

START = 3
"""The first of timm's stages that learns; what comes before stays as pretrained."""
LAST = 6
"""The last of them."""


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution with a fixed kernel; only input and bias get a gradient.

    That of the input is again a depthwise convolution. With torch's own backward a step takes 3.8 times as
    long (Lite2 at 320 px, batch 32, one thread in bf16, on a CPU with AMX).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.padding, ctx.shape = stride, padding, x.shape
        return F.conv2d(x, kernel, bias, stride, padding, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None, None]:
        (kernel,) = ctx.saved_tensors
        batch, channels, *shape = ctx.shape
        side, stride, padding = kernel.shape[-1], ctx.stride, ctx.padding
        of_bias = grad.sum((0, 2, 3))
        if stride > 1:
            rows, columns = (size + 2 * pad - side + 1 for size, pad in zip(shape, padding, strict=True))
            spread = grad.new_zeros(batch, rows, columns, channels).permute(0, 3, 1, 2)
            spread[:, :, ::stride, ::stride] = grad
            grad = spread
        grad, around = grad.contiguous(memory_format=torch.channels_last), [side - 1 - pad for pad in padding]
        return F.conv2d(grad, kernel.flip(2, 3), None, 1, around, groups=channels), None, of_bias, None, None


class LiteTop:
    """The upper stages of an EfficientNet-Lite learn, from what its lower ones make of a picture. Raises
    UsageError: it is not built of EfficientNet-Lite's plain inverted residuals; with what can be done."""

    def __init__(self, module: nn.Module, name: str) -> None:
        stages = getattr(module, "blocks", None)
        plain = isinstance(stages, nn.Sequential) and len(stages) > START
        if plain:
            upper = [block for stage in stages[START:] for block in stage]  # type: ignore[index]
            plain = all(type(block).__name__ == "InvertedResidual" for block in upper)
            plain &= all(isinstance(getattr(block, "se", nn.Identity()), nn.Identity) for block in upper)
        if not plain:
            raise UsageError(
                f"--finetune top cannot train {name}: use --finetune all or none, or an EfficientNet-Lite"
            )
        self.module: Any = module
        # In place, each would be copied for its gradient, into a layout that costs as much again.
        for layer in [*upper, module.bn2]:
            for part in layer.modules():
                if hasattr(part, "inplace"):
                    part.inplace = False

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by timm's names; all others are set not to learn."""
        chosen = {}
        for name, parameter in self.module.requires_grad_(False).named_parameters():
            upper = self.depth(name) <= LAST - START + 1 and name.startswith(
                ("blocks.", "conv_head.", "bn2.")
            )
            if upper and ".conv_dw." not in name and ".bn2.weight" not in name:
                chosen[name] = parameter.requires_grad_(True)
        return chosen

    def depth(self, name: str) -> int:
        """How many stages lie between the parameter `name` and the heads."""
        return LAST - int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0

    @property
    def front(self) -> nn.Sequential:
        """What makes activations [n, channels, h, w] of normalised pictures, for the stages that learn."""
        return nn.Sequential(self.module.conv_stem, self.module.bn1, *self.module.blocks[:START])

    def features(self, x: Tensor) -> Tensor:
        """Pooled features float [n, width] from `front`'s activations; the numbers of timm's own pass."""
        for stage in self.module.blocks[START:]:
            for block in stage:
                y = _pointwise(block.conv_pw, block.bn1, x)
                y = _depthwise(block.conv_dw, block.bn2, y)
                y = _pointwise(block.conv_pwl, block.bn3, y)
                x = y + x if block.has_skip else y
        x = _pointwise(self.module.conv_head, self.module.bn2, x)
        return self.module.global_pool(x.float())  # type: ignore[no-any-return]


class Whole:
    """Every weight of any timm backbone learns; batch norm keeps its statistics. Methods as of `LiteTop`."""

    front = nn.Identity()

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module = module

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.module.requires_grad_(True).named_parameters())

    def depth(self, name: str) -> int:
        return 0

    def features(self, x: Tensor) -> Tensor:
        return self.module(x).flatten(1).float()  # type: ignore[no-any-return]


def front(
    learner: LiteTop | Whole, preprocessing: Preprocessing, device: torch.device
) -> Callable[[NDArray[np.uint8]], Tensor]:
    """What makes of pictures, uint8 [n, h, w, 3], what `learner` starts from, float32.

    On a CPU that is OpenVINO where there is something to compute. PyTorch takes longer for that than for all
    that learns, and in bf16, where it is faster, it is off by 6 % (Lite2 at 320 px, in the norm).
    """
    if device.type == "cpu" and isinstance(learner, LiteTop):
        lower = compiled(learner.front, preprocessing)
        return lambda pictures: torch.from_numpy(lower(pictures)).contiguous(
            memory_format=torch.channels_last
        )

    normalise = Normalise(preprocessing).to(device)

    def made(pictures: NDArray[np.uint8]) -> Tensor:
        with torch.no_grad():
            return learner.front(normalise(torch.from_numpy(pictures).to(device))).float()  # type: ignore[no-any-return]

    return made


LEARNERS: dict[str, type[LiteTop] | type[Whole]] = {"top": LiteTop, "all": Whole}
"""What `--finetune` names."""


def _scale(norm: Any) -> Tensor:
    return norm.weight / torch.sqrt(norm.running_var + norm.eps)  # type: ignore[no-any-return]


def _pointwise(conv: Any, norm: Any, x: Tensor) -> Tensor:
    scale = _scale(norm)
    weight, bias = conv.weight[:, :, 0, 0] * scale[:, None], norm.bias - norm.running_mean * scale
    return norm.act(F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def _depthwise(conv: Any, norm: Any, x: Tensor) -> Tensor:
    scale, padding = _scale(norm).detach(), conv.padding
    if type(conv).__name__ == "Conv2dSame":  # may pad one edge by more than the other
        x, padding = pad_same(x, conv.kernel_size, conv.stride, conv.dilation), (0, 0)
    kernel = conv.weight.detach() * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    x = x.contiguous(memory_format=torch.channels_last)
    y = _Depthwise.apply(x, kernel.to(x.dtype), bias.to(x.dtype), conv.stride[0], padding)
    return norm.act(y)  # type: ignore[no-any-return]
