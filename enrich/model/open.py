"""Which arithmetic the settings come down to on this machine, and which engine runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import local

from enrich.errors import SettingsError
from enrich.model.arithmetic import NEEDED, Arithmetic, cpu_has
from enrich.model.bundle import Bundle
from enrich.model.engine import Engine, Pixels
from enrich.model.precision import at_precision
from enrich.records import Output
from enrich.settings import Settings

NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Where a driver of NVIDIA's shows; PyTorch, which takes seconds to load, is asked only where one does."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The bundle in the arithmetic that is used, and why it is that one, in a few words."""

    bundle: Bundle
    why: str

    def __str__(self) -> str:
        return f"{self.bundle.arithmetic} ({self.why})"


def choose(bundle: Bundle, settings: Settings) -> Choice:
    """The bundle with the thresholds that `ENRICH_PRECISION_TARGET` asks for, in the arithmetic that
    `ENRICH_PRECISION` asks for; `auto`: in the fastest that this engine
    and this machine have and that the bundle's held-out figures show to be as good as fp32.

    Raises:
        SettingsError: what is asked for is not in the bundle, or not possible here.
        BundleError: it has no thresholds for the precision of homes that is asked for.
    """
    if settings.precision_target is not None:
        bundle = at_precision(bundle, settings.precision_target)
    wanted = settings.precision
    if wanted != "auto":
        if reason := missing(wanted, bundle, settings):
            raise SettingsError(f"ENRICH_PRECISION={wanted}: {reason}; set it to auto or fp32")
        return Choice(bundle.at(wanted), "as ENRICH_PRECISION says")
    passed_over = []
    for name in ("int8", "bf16"):
        reason = missing(name, bundle, settings) or bundle.flaw(name)
        if reason is None and (name == "int8" or not _emulated(settings)):
            return Choice(
                bundle.at(name), "auto: the fastest here that is as good as fp32 on held-out photos"
            )
        processor = "GPU" if _on_cuda(settings) else "CPU"
        passed_over.append(f"{name}: {reason or f'this {processor} only emulates it'}")
    return Choice(bundle.at("fp32"), f"auto; {'; '.join(passed_over)}")


def open_engine(bundle: Bundle, settings: Settings) -> Engine:
    """The bundle's models, ready, in the bundle's arithmetic: on OpenVINO on a CPU, else on PyTorch.

    Raises:
        SettingsError: the device is unknown or not there, or the engine cannot do what other settings ask.
        BundleError: a backbone is unknown, or its weights do not fit it.
    """
    if _on_openvino(settings):
        from enrich.model.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, settings.cache_folder, batch_size=settings.batch_size)
    from enrich.model.torch_engine import TorchEngine

    return TorchEngine(bundle, settings.device, batch_size=settings.batch_size)


def check_device(settings: Settings) -> None:
    """Find out that a GPU that is asked for by name is not there, before there is something to score.

    Raises:
        SettingsError: it is not.
    """
    if settings.device not in ("auto", "cpu") and not _on_openvino(settings):
        from enrich.model.torch_engine import find_device

        find_device(settings.device)


class LateEngine:
    """An `Engine` that opens the real one when there is something to score: for work that expects nothing."""

    lanes = 1

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.batch_size = settings.batch_size
        self._open: Callable[[], Engine] = cache(lambda: open_engine(bundle, settings))
        self._lane = local()

    def start_lane(self) -> None:
        """Nothing yet: what keeps an engine from opening would break the pool whose thread starts."""

    def score(self, batch: Sequence[Pixels]) -> list[dict[str, Output]]:
        """See `Engine`. Raises, with the first batch, what `open_engine` does."""
        engine = self._open()
        if not hasattr(self._lane, "started"):
            engine.start_lane()
            self._lane.started = True
        return engine.score(batch)


def missing(name: Arithmetic, bundle: Bundle, settings: Settings) -> str | None:
    """Why an arithmetic cannot be used at all; None: it can."""
    if name not in bundle.arithmetics:
        return "the bundle has no thresholds for it"
    if name == "int8" and not _on_openvino(settings):
        return "only OpenVINO runs it, on a CPU"
    if _on_openvino(settings) and not cpu_has(name):
        return f"this CPU has no {NEEDED[name]}"
    return None


def _emulated(settings: Settings) -> bool:
    """Whether PyTorch would emulate bf16."""
    if not _on_cuda(settings):
        return not cpu_has("bf16")
    from torch.cuda import is_available, is_bf16_supported

    return is_available() and not is_bf16_supported(including_emulation=False)


def _on_openvino(settings: Settings) -> bool:
    return settings.engine == "openvino" or (settings.engine == "auto" and not _on_cuda(settings))


def _on_cuda(settings: Settings) -> bool:
    if settings.device != "auto":
        return settings.device != "cpu"
    if not any(path.exists() for path in NVIDIA):
        return False
    from torch.cuda import is_available

    return is_available()
