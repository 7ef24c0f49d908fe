"""Which engine the settings ask for."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from enrich.model.bundle import Bundle
from enrich.model.engine import Engine, Pixels
from enrich.records import Output
from enrich.settings import Settings

NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Where a driver of NVIDIA's shows; PyTorch, which takes seconds to load, is asked only where one does."""


def open_engine(bundle: Bundle, settings: Settings) -> Engine:
    """The bundle's models, ready: on OpenVINO where a CPU is to score in fp32, else on PyTorch.

    Raises:
        SettingsError: the device is unknown or not there, or the engine cannot do what other settings ask.
        BundleError: a backbone is unknown, or its weights do not fit it.
    """
    if settings.engine == "openvino" or (settings.engine == "auto" and _on_cpu(settings)):
        from enrich.model.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, settings.cache_folder, batch_size=settings.batch_size)
    from enrich.model.torch_engine import TorchEngine

    return TorchEngine(bundle, settings.device, settings.precision, batch_size=settings.batch_size)


class LateEngine:
    """An `Engine` that opens the real one when there is something to score: for work that expects nothing."""

    lanes = 1

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.batch_size = settings.batch_size
        self._open: Callable[[], Engine] = cache(lambda: open_engine(bundle, settings))

    def start_lane(self) -> None:
        self._open().start_lane()

    def score(self, batch: Sequence[Pixels]) -> list[dict[str, Output]]:
        """See `Engine`."""
        return self._open().score(batch)


def _on_cpu(settings: Settings) -> bool:
    """Whether `auto` comes down to fp32 on a CPU."""
    if settings.precision == "bf16" or settings.device not in ("auto", "cpu"):
        return False
    if settings.device == "cpu" or not any(path.exists() for path in NVIDIA):
        return True
    from torch.cuda import is_available

    return not is_available()
