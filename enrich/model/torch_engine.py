"""The engine for CUDA and bf16, and for any CPU: PyTorch. One pass of a backbone feeds all of its heads."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from enrich.cores import usable_cores
from enrich.errors import SettingsError
from enrich.model.backbones import fold_batch_norms
from enrich.model.bundle import Bundle, Member
from enrich.model.engine import CPU_BATCH, Pixels, outputs
from enrich.model.network import Network
from enrich.records import Output


class TorchEngine:
    """An `Engine` on PyTorch: CPUs and CUDA.

    It computes in the bundle's arithmetic. `device` is auto, cpu, cuda or cuda:N. `batch_size` is the most
    photos per batch.

    Raises:
        SettingsError: the device is unknown or not there, or the bundle is one in int8.
        BundleError: a backbone is unknown, or its weights do not fit it.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", *, batch_size: int = 32) -> None:
        if bundle.arithmetic == "int8":
            raise SettingsError("ENRICH_PRECISION=int8: only OpenVINO runs it; set it to auto, fp32 or bf16")
        self.device = find_device(device)
        self.batch_size = min(batch_size, CPU_BATCH) if self.device.type == "cpu" else batch_size
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32, on every device
        self._preprocessings = bundle.preprocessings
        self._models = tuple(_MemberModel(bundle, member, self.device) for member in bundle.members)

    @property
    def lanes(self) -> int:
        """How many batches to score at once: on a CPU one per core, since passes of one thread each get far
        more out of the cores than one pass of many threads (docs/benchmarks.md); on a GPU one."""
        return usable_cores() if self.device.type == "cpu" else 1

    def start_lane(self) -> None:
        """On a CPU the calling thread does its passes alone."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)

    def score(self, batch: Sequence[Pixels]) -> list[dict[str, Output]]:
        """See `Engine`."""
        if not batch:
            return []
        answers: list[dict[str, Output]] = [{} for _ in batch]
        with torch.inference_mode():
            inputs = {
                preprocessing: self._on_device([photo[place] for photo in batch])
                for place, preprocessing in enumerate(self._preprocessings)
            }
            # All members are under way before the first result is waited for.
            made = [(model.member, model(inputs[model.member.preprocessing])) for model in self._models]
            for member, (logits, features) in made:
                found = outputs(member.heads, logits.cpu().numpy(), features.cpu().numpy())
                for photo, output in zip(answers, found, strict=True):
                    photo[member.model_id] = output
        return answers

    def _on_device(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """uint8 [N, height, width, 3] on the device."""
        shape = (len(pictures), *pictures[0].shape)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.stack(pictures, out=pixels.numpy())
        return pixels.to(self.device, non_blocking=True)


class _MemberModel:
    """One member on its device, with batch norms folded, in the bundle's arithmetic."""

    def __init__(self, bundle: Bundle, member: Member, device: torch.device) -> None:
        self.member = member
        self._bf16 = bundle.arithmetic == "bf16"
        self._device = device
        self._network = Network(bundle, member).to(device).to(memory_format=torch.channels_last)
        self._network.backbone = fold_batch_norms(self._network.backbone, self._noise())

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, height, width, 3] to float32 logits [N, outputs of all heads] and features."""
        pictures = self._network.normalised(pixels)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            pooled = self._network.backbone(pictures)
        return self._network.answer(pooled)

    def _noise(self) -> Tensor:
        shape = (2, 3, *self.member.preprocessing.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self._device)
        return noise.to(memory_format=torch.channels_last)


def find_device(wanted: str, asked_by: str = "ENRICH_DEVICE=") -> torch.device:
    """The device auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises:
        SettingsError: it is unknown or not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return torch.device("cuda" if there else "cpu")
    kind, _, number = wanted.partition(":")
    if wanted not in ("cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise SettingsError(f"{asked_by}{wanted}: use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= there:
        raise SettingsError(f"{asked_by}{wanted} is not here ({there} CUDA devices found); use auto or cpu")
    return torch.device(wanted)
