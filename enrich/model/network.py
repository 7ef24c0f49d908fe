"""A member of a bundle as a network: pixels in, logits of all its heads and the features behind them out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from enrich.errors import BundleError, reason
from enrich.model.backbones import build_backbone, load_weights
from enrich.model.bundle import Bundle, Member, Preprocessing


class Normalise(nn.Module):
    """uint8 [N, height, width, 3] to float32 [N, 3, height, width], laid out as the pictures are."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).reshape(1, 3, 1, 1)
            self.register_buffer(name, values * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std


class Network(nn.Module):
    """Normalisation, backbone and heads with the bundle's weights, in fp32 and for scoring only.

    Raises:
        BundleError: the backbone is unknown, its weights do not fit it, or it cannot take pictures of the
            size that the bundle states.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, bundle: Bundle, member: Member) -> None:
        super().__init__()
        path = bundle.folder / member.weights
        tensors = {name: torch.from_numpy(array) for name, array in bundle.tensors(member).items()}
        self.backbone = build_backbone(member.backbone, member.pool)
        load_weights(self.backbone, tensors, path, member.backbone)
        self.normalised = Normalise(member.preprocessing)
        for part in ("weight", "bias"):
            heads = [tensors[f"head.{head.name}.{part}"] for head in member.heads]
            self.register_buffer(part, torch.cat(heads))
        self.eval().requires_grad_(False)
        height, width = member.preprocessing.size
        try:
            self(torch.zeros(1, height, width, 3, dtype=torch.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise BundleError(
                f"{path}: {member.backbone} with these heads cannot score a picture of {height}x{width} "
                f"({reason(error)}); correct the size or the head weights"
            ) from error

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, height, width, 3] to logits and features, see `answer`."""
        return self.answer(self.backbone(self.normalised(pixels)))

    def answer(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What the backbone made of pictures to float32 logits [N, outputs of all heads], and to the features
        that the heads see, float32 [N, features]."""
        features = pooled.flatten(1).float()
        return functional.linear(features, self.weight, self.bias), features
