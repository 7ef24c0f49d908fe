"""What every command ends through: exit codes, one-line errors, no secrets, and signals that stop gently."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import Any

import typer

from enrich.errors import EnrichError, UsageError
from enrich.index.protocol import IndexUnavailable
from jobs.cli import logs
from jobs.cli.redact import Redactor

BUG, INTERRUPTED = 70, 130
FORBIDDEN = "42501"  # Postgres: insufficient privilege
log = logging.getLogger(__name__)


def guarded(app: typer.Typer, args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every way to fail ends as one line on stderr."""
    redact = Redactor.from_surroundings()
    _verbose.clear()
    logs.set_up(redact)

    def say(message: str) -> None:
        sys.stderr.write(f"enrich: {redact(' '.join(message.split()))}\n")

    try:
        code = app(args=args, prog_name="enrich", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except EnrichError as error:
        say(str(error))
        return error.exit_code
    except IndexUnavailable as error:
        say(f"the index gives no answer ({error}): check ELASTICSEARCH_URL, or try again later")
        return 3
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        if getattr(getattr(error, "orig", None), "pgcode", None) == FORBIDDEN:
            reason = str(getattr(error, "orig", "")).splitlines()[0]
            say(f"Postgres: {reason}. GRANT it, see docs/database.md; `enrich check` lists what is missing")
            return UsageError.exit_code
        if (code := _usage(error, say)) is not None:
            return code
        if _verbose.is_set():
            sys.stderr.write(redact(traceback.format_exc()))
        hint = "" if _verbose.is_set() else "; run with -v for the traceback"
        summary = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        say(f"{summary} - this is a bug, please report it{hint}")
        return BUG


def _usage(error: Exception, say: Callable[[str], None]) -> int | None:
    """Say what the parser did not understand; None where `error` is not the parser's.

    Recognised by its shape: the class lives in `click` or inside `typer`, depending on typer's version.
    """
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else "enrich"
    say(f"{message().rstrip('.')} (see `{command} --help`)")
    return int(getattr(error, "exit_code", 2))


_verbose = Event()


def be_verbose(wanted: bool) -> None:
    """The option -v: debug logs, and tracebacks of unexpected errors."""
    if wanted:
        _verbose.set()
        logs.set_up(Redactor.from_surroundings(), verbose=True)


@contextmanager
def stopping() -> Iterator[Event]:
    """An event that SIGTERM or Ctrl-C sets; the second one ends the process at once."""
    stop = Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        if sys.stderr.isatty():  # not through logging: the interrupted code may be in the middle of a line
            os.write(2, b"\nstopping after the work in hand; once more ends at once\n")

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
