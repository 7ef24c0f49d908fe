"""Decodes every file of a folder, as the job does, and says what it cost: for a process of its own.

    python -m tests.faults.decoding FOLDER MAX_PIXELS

One line of JSON per file, the smallest first. Who reads them knows what the process died of: the file behind
the last line.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from enrich.model.bundle import Preprocessing
from enrich.photos.decode import decode

HALF = (0.5, 0.5, 0.5)
PREPROCESSINGS = (
    Preprocessing((224, 224), "squash", "bicubic", HALF, HALF),
    Preprocessing((224, 224), "crop", "bilinear", HALF, HALF, crop_ratio=0.875),
)


class _Kept(logging.Handler):
    """What would stand in the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def memory(field: str) -> int:
    """What this process has (VmRSS) or had at most since `forget_peak` (VmHWM), in bytes, on Linux."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main(folder: Path, max_pixels: int) -> None:
    logging.captureWarnings(True)
    log = _Kept()
    logging.getLogger().addHandler(log)
    before = memory("VmRSS")
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_size):
        data = path.read_bytes()
        forget_peak()
        start = time.process_time()
        found = decode(data, PREPROCESSINGS, max_pixels)
        line: dict[str, Any] = {
            "name": path.name,
            "status": found.status,
            "error": found.error,
            "pictures": [array.shape for array in found.pixels],
            "seconds": round(time.process_time() - start, 3),
            "grown": memory("VmHWM") - before,
            "logged": log.lines[:3],
        }
        log.lines.clear()
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
