"""Logging on stderr: for people on a terminal, one JSON object per line elsewhere."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from jobs.cli.terminal import readable

OURS = ("enrich", "jobs", "migrations")
QUIET = ("elastic_transport", "opensearch")  # warn of lost connections and refusals, which we tell as well
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOTHING: tuple[Any, ...] = (None, "", {}, [])


class _Formatter(logging.Formatter):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__("%(message)s")
        self._redact = redact

    def _extra(self, record: logging.LogRecord) -> dict[str, Any]:
        return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonFormatter(_Formatter):
    """One JSON object per record: time, level, logger, message, and what the record carries as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._redact(json.dumps(line, default=str))


class HumanFormatter(_Formatter):
    """The message, and what the record carries as `extra` behind it."""

    def format(self, record: logging.LogRecord) -> str:
        extra = " ".join(
            f"{name}={value}" for name, value in self._extra(record).items() if value not in _NOTHING
        )
        text, newline, traceback = super().format(record).partition("\n")
        return readable(self._redact(f"{text}  {extra}".rstrip() + newline + traceback))


def set_up(redact: Callable[[str], str], *, verbose: bool = False) -> None:
    """Send all logging to stderr; replaces what was set up before."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(
            console=Console(stderr=True), show_path=False, markup=False, log_time_format="%H:%M:%S"
        )
        handler.setFormatter(HumanFormatter(redact))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter(redact))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)
    logging.captureWarnings(True)
