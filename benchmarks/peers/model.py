"""What the scripts that score share: the weights of the job in fp32 torch, and pictures made ready for it."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from enrich.model.bundle import load_bundle
from enrich.model.network import Network
from enrich.settings import STARTER_BUNDLE

BUNDLE = load_bundle(STARTER_BUNDLE)
(MEMBER,) = BUNDLE.members
SIDE, _ = MEMBER.preprocessing.size


def ready(body: bytes) -> NDArray[np.uint8]:
    """JPEG to uint8 [SIDE, SIDE, 3]."""
    return np.asarray(
        Image.open(io.BytesIO(body)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    )


class Scorer:
    """uint8 pictures [SIDE, SIDE, 3] to the logits of all heads.

    Args:
        threads: of torch, per instance.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.network = Network(BUNDLE, MEMBER)

    def __call__(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.network(torch.from_numpy(np.stack(pictures)))[0].numpy()
