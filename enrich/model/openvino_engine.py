"""The engine for CPUs: OpenVINO, with PyTorch's logits up to rounding, and faster (see docs/benchmarks.md).

A bundle's network is converted once and kept in the cache folder by its model id, so that the next run starts
without PyTorch.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrich.atomic import new_folder
from enrich.cores import usable_cores
from enrich.model.bundle import Bundle, Member
from enrich.model.engine import CPU_BATCH, Pixels, by_head
from enrich.records import Scores

# OpenVINO's converter tells its makers when it is used, unless this package is missing: nothing leaves here.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov  # noqa: E402

# Its table of NumPy's types is made when it is first asked for; two lanes that ask at once hang for ever.
ov.Type.u8.to_dtype()

log = logging.getLogger(__name__)
_MODEL = "model.xml"
_CONVERSION = 1
"""Part of the cached model's name; another number converts anew."""


class OpenVinoEngine:
    """An `Engine` on OpenVINO, on the CPU, in fp32.

    `cache`: the folder in which converted models are kept; where it cannot be written, each start converts
    anew. `batch_size` is the most photos per batch.

    Raises:
        BundleError: a backbone is unknown, or its weights do not fit it.
    """

    def __init__(self, bundle: Bundle, cache: Path, *, batch_size: int = CPU_BATCH) -> None:
        self._lanes = usable_cores()
        self._batch_size = min(batch_size, CPU_BATCH)
        self._members = bundle.members
        self._places = [bundle.preprocessings.index(member.preprocessing) for member in bundle.members]
        core = ov.Core()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": self._lanes,
            "INFERENCE_NUM_THREADS": self._lanes,
            "ENABLE_CPU_PINNING": False,  # other work shares these cores
        }
        self._compiled = [
            core.compile_model(_converted(core, bundle, member, cache), "CPU", options)
            for member in bundle.members
        ]
        self._lane = local()

    @property
    def lanes(self) -> int:
        """One batch per core at once: passes of one thread each get the most out of the cores."""
        return self._lanes

    @property
    def batch_size(self) -> int:
        """The photos per batch that suit one core."""
        return self._batch_size

    def start_lane(self) -> None:
        """Make the calling thread's own requests."""
        self._lane.requests = [compiled.create_infer_request() for compiled in self._compiled]

    def score(self, batch: Sequence[Pixels]) -> list[dict[str, Scores]]:
        """See `Engine`."""
        if not batch:
            return []
        if not hasattr(self._lane, "requests"):
            self.start_lane()
        scores: list[dict[str, Scores]] = [{} for _ in batch]
        for member, place, request in zip(self._members, self._places, self._lane.requests, strict=True):
            pixels = np.stack([photo[place] for photo in batch])
            logits: NDArray[Any] = request.infer([pixels], share_inputs=True)[0]
            for photo, row in zip(scores, logits.tolist(), strict=True):
                photo[member.model_id] = by_head(member.heads, row)
        return scores


def _converted(core: ov.Core, bundle: Bundle, member: Member, cache: Path) -> ov.Model:
    """The member's network, from the cache or converted and put there."""
    kept = cache / "models" / f"{member.model_id}-{_CONVERSION}"
    if (kept / _MODEL).is_file():
        try:
            return core.read_model(kept / _MODEL)
        except RuntimeError as error:
            log.warning("%s cannot be read and is made again: %s", kept, str(error).splitlines()[0])
    model = _convert(bundle, member)
    try:
        with new_folder(kept) as made:
            ov.save_model(model, made / _MODEL, compress_to_fp16=False)
    except OSError as error:
        log.info("the converted model is not kept in %s: %s", cache, error)
    return model


def _convert(bundle: Bundle, member: Member) -> ov.Model:
    import torch  # only here: a run whose model is in the cache does not load it

    from enrich.model.network import Network

    log.info("converting %s for OpenVINO, once", bundle.name)
    network = Network(bundle, member)
    height, width = member.preprocessing.size
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of shapes that become constants, as is meant
        return ov.convert_model(
            network, example_input=example, input=[ov.PartialShape([-1, height, width, 3])]
        )
