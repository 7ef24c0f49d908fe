"""The engine for CPUs: OpenVINO, with PyTorch's logits up to rounding, and faster (see docs/benchmarks.md).

A bundle's backbone is converted once and kept in the cache folder by what names its features in fp32
(`feature_id`), so that the next run starts without PyTorch, also with other heads.
"""

import gzip
import logging
import os
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Lock, local
from typing import TYPE_CHECKING

import numpy as np

from enrich.atomic import new_folder
from enrich.cores import usable_cores
from enrich.errors import BundleError
from enrich.model.arithmetic import Ir
from enrich.model.bundle import Bundle, Member
from enrich.model.engine import CPU_BATCH, Pixels, outputs
from enrich.model.features import LinearHeads, feature_id
from enrich.model.tensors import read_file
from enrich.records import Output

# OpenVINO's converter tells its makers when it is used, unless this package is missing: nothing leaves here.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as ov  # noqa: E402

# Its table of NumPy's types is made when it is first asked for; two lanes that ask at once hang for ever.
ov.Type.u8.to_dtype()

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)
_MODEL = "model.xml"
_CONVERSION = 2
"""Part of the cached model's name; another number converts anew."""
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""In what is computed that is not int8 in the backbone itself."""


class OpenVinoEngine:
    """An `Engine` on OpenVINO, on the CPU, in the bundle's arithmetic.

    `cache`: the folder in which converted models are kept; where it cannot be written, each start converts
    anew. `batch_size` is the most photos per batch.

    Raises:
        BundleError: a backbone is unknown, or its weights do not fit it.
    """

    def __init__(self, bundle: Bundle, cache: Path, *, batch_size: int = CPU_BATCH) -> None:
        self.lanes = usable_cores()  # passes of one thread each get the most out of the cores
        self.batch_size = min(batch_size, CPU_BATCH)
        self._members = bundle.members
        self._places = [bundle.preprocessings.index(member.preprocessing) for member in bundle.members]
        # A network in int8 takes whole batches only. Where an Intel CPU with AMX meets a batch of few, small
        # feature maps, OpenVINO takes another kernel for a convolution than the one that it prepared for a
        # batch of any size, and that one reads from a wild address (openvinotoolkit/openvino#37577).
        self._whole = bundle.arithmetic == "int8"
        self._compiled = []
        for member in bundle.members:
            model = backbone(bundle, member, cache)
            if self._whole:
                model.reshape([self.batch_size, *member.preprocessing.size, 3])
            hint = _HINTS[bundle.arithmetic]
            self._compiled.append(compiled(model, hint, streams=self.lanes, threads=self.lanes))
        self._heads = [LinearHeads(bundle, member) for member in bundle.members]
        self._lane = local()

    def start_lane(self) -> None:
        """Make the calling thread's own requests."""
        self._lane.requests = [compiled.create_infer_request() for compiled in self._compiled]

    def score(self, batch: Sequence[Pixels]) -> list[dict[str, Output]]:
        """See `Engine`."""
        if not batch:
            return []
        if len(batch) > self.batch_size:
            return self.score(batch[: self.batch_size]) + self.score(batch[self.batch_size :])
        if not hasattr(self._lane, "requests"):
            self.start_lane()
        answers: list[dict[str, Output]] = [{} for _ in batch]
        repeated = [batch[-1]] * (self.batch_size - len(batch)) if self._whole else []
        parts = zip(self._members, self._places, self._lane.requests, self._heads, strict=True)
        for member, place, request, heads in parts:
            pixels = np.stack([photo[place] for photo in (*batch, *repeated)])
            features = request.infer([pixels], share_inputs=True)[0][: len(batch)]
            made = outputs(member.heads, heads.logits(features), features)
            for photo, output in zip(answers, made, strict=True):
                photo[member.model_id] = output
        return answers


@cache
def _core() -> ov.Core:
    """The one core of this process, kept to its end.

    A core gives the thread that first uses it a stack for signal handlers and frees that stack with itself,
    also where a later core took it for the one to go back to: the next signal would then end the process.
    """
    return ov.Core()


def compiled(model: ov.Model, hint: str, *, streams: int, threads: int) -> ov.CompiledModel:
    """The model for this CPU, which computes in `hint` (f32, bf16) where the model does not say otherwise."""
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # other work shares these cores
    }
    return _core().compile_model(model, "CPU", options)


def backbone(bundle: Bundle, member: Member, cache: Path) -> ov.Model:
    """The member's backbone, from uint8 pixels [N, height, width, 3] to float32 features [N, features]: the
    bundle's own IR, or that from the cache, or converted and put there.

    Raises:
        BundleError: as for the engine, or an IR of the bundle takes other pixels, or is another by now.
    """
    ir = member.variant.ir
    return _converted(bundle, member, cache) if ir is None else _own(bundle, member, ir)


def _own(bundle: Bundle, member: Member, ir: Ir) -> ov.Model:
    path = bundle.folder / ir.ir
    try:
        model = _core().read_model(_unpacked(bundle, ir.ir), _unpacked(bundle, ir.weights))
        taken, made = (model.input(0), model.output(0))
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        reason = str(error).strip().splitlines()[-1]
        raise BundleError(f"{path}: OpenVINO cannot read it ({reason}); make the bundle again") from None
    features = bundle.tensors(member)[f"head.{member.heads[0].name}.weight"].shape[1]
    shapes = [[-1, *member.preprocessing.size, 3], [-1, features]]
    if taken.element_type != ov.Type.u8 or any(
        port.partial_shape != ov.PartialShape(shape)
        for port, shape in zip((taken, made), shapes, strict=True)
    ):
        raise BundleError(
            f"{path}: takes {taken.element_type} {taken.partial_shape} and gives {made.partial_shape}, the "
            f"manifest asks for pixels {shapes[0]} and features {shapes[1]}; make the bundle again"
        )
    return model


def _unpacked(bundle: Bundle, name: str) -> bytes:
    data = read_file(bundle.folder / name, bundle.manifest["files"][name])
    return gzip.decompress(data) if name.endswith(".gz") else data


def _converted(bundle: Bundle, member: Member, cache: Path) -> ov.Model:
    kept = cache / "models" / f"{feature_id(replace(member, arithmetic='fp32'))}-{_CONVERSION}"
    if os.path.isfile(kept / _MODEL):  # the path's own `is_file` raises where the folder may not be entered
        try:
            return _core().read_model(kept / _MODEL)
        except RuntimeError as error:
            log.warning("%s cannot be read and is made again: %s", kept, str(error).splitlines()[0])
    model = _convert(bundle, member)
    try:
        with new_folder(kept) as made:
            ov.save_model(model, made / _MODEL, compress_to_fp16=False)
        return _core().read_model(kept / _MODEL)  # as every later start does: it rounds a little otherwise
    except (OSError, RuntimeError) as error:  # OpenVINO tells of a full disk by the latter
        log.info("the converted model is not kept in %s: %s", cache, error)
    return model


_CONVERTING = Lock()
"""Two at a time fail in the tracing of PyTorch, and each would find the log that the other one silenced."""


@contextmanager
def _log_kept() -> Iterator[None]:
    """Undo what OpenVINO does to the root logger while it converts: where that fails, it stays silent."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _convert(bundle: Bundle, member: Member) -> ov.Model:
    from enrich.model.network import Network  # only here: a run whose model is in the cache loads no torch

    log.info("converting %s for OpenVINO, once", bundle.name)
    made = converted(Network(bundle, member), member.preprocessing.size)
    return ov.Model([made.output(1)], made.get_parameters(), member.backbone)


def converted(network: "nn.Module", size: tuple[int, int]) -> ov.Model:
    """A network of PyTorch that takes uint8 pixels [N, height, width, 3], `size` being height and width."""
    import torch

    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    network.eval()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with _CONVERTING, _log_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of shapes that become constants, as is meant
        try:
            for parameter in learning:
                parameter.requires_grad_(False)  # in a function it becomes a constant
            # OpenVINO itself would trace every module for its own sake, and all of it twice.
            traced = torch.jit.trace(lambda pixels: network(pixels), example, check_trace=False)  # type: ignore[no-untyped-call]
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
        return ov.convert_model(traced, example_input=example, input=[ov.PartialShape([-1, *size, 3])])
