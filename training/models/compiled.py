"""Networks that do not learn, on the CPU: by OpenVINO in fp32, several times as fast as by PyTorch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from enrich.model import openvino_engine
from enrich.model.bundle import Preprocessing
from enrich.model.engine import CPU_BATCH
from enrich.model.network import Normalise


def compiled(
    network: nn.Module, preprocessing: Preprocessing
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """What makes of pictures, uint8 [n, height, width, 3], what `network` makes of them normalised.

    It works in as many threads as PyTorch has now.
    """
    model = openvino_engine.converted(
        nn.Sequential(Normalise(preprocessing), network).eval(), preprocessing.size
    )
    on_cpu = openvino_engine.compiled(model, "f32", streams=1, threads=torch.get_num_threads())
    request = on_cpu.create_infer_request()

    def made(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = np.split(pictures, range(CPU_BATCH, len(pictures), CPU_BATCH))
        return np.concatenate([request.infer([part], share_inputs=True)[0] for part in parts])

    return made
