"""What every command ends through: exit codes, one-line errors, no secrets, and signals that stop gently."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
from sqlalchemy.exc import DBAPIError

from enrich.atomic import FULL, no_room
from enrich.errors import EnrichError, FlipLimitError, OutageError, RemovalGuardError, SignalError
from enrich.index.protocol import IndexUnavailable
from enrich.state.refusals import servers_state
from jobs.cli import logs
from jobs.cli.redact import Redactor
from jobs.cli.terminal import readable
from jobs.run.stop import Stop

if TYPE_CHECKING:  # loads the pipeline, which most commands do without
    from jobs.run.record import RunReport

BUG, INTERRUPTED = 70, 130
log = logging.getLogger(__name__)


def guarded(app: typer.Typer, args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every way to fail ends as one line on stderr."""
    redact = Redactor.from_surroundings()
    _verbose.clear()
    logs.set_up(redact)

    def say(message: str) -> None:
        with suppress(OSError):  # nobody reads it, or its disk is full: the exit code tells
            sys.stderr.write(f"enrich: {readable(redact(' '.join(message.split())))}\n")

    try:
        code = app(args=args, prog_name="enrich", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except EnrichError as error:
        say(str(error))
        return error.exit_code
    except IndexUnavailable as error:
        say(f"the index gives no answer ({error}): check ELASTICSEARCH_URL, or try again later")
        return 3
    except typer.Abort:
        return INTERRUPTED
    except DBAPIError as error:
        if (ended := servers_state(error)) is None:
            return _bug(error, say, redact)
        say(str(ended))
        return ended.exit_code
    except BrokenPipeError:  # as typer ends where more was written than is kept back
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            ended = no_room(error.strerror or "the disk is full", error.filename)
            say(str(ended))
            return ended.exit_code
        if (code := _usage(error, say)) is not None:
            return code
        return _bug(error, say, redact)


def forget_unwritten() -> None:
    """Let go of what stdout or stderr do not take: Python would end with an exit code of its own, 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _bug(error: Exception, say: Callable[[str], None], redact: Redactor) -> int:
    if _verbose.is_set():
        sys.stderr.write(readable(redact(traceback.format_exc())))
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
    told = message().rstrip(".") or "no command was given"  # whose help was printed
    say(f"{told} (see `{command} --help`)")
    return int(getattr(error, "exit_code", 2))


_verbose = Event()


def be_verbose(wanted: bool) -> None:
    """The option -v: debug logs, and tracebacks of unexpected errors."""
    if wanted:
        _verbose.set()
        logs.set_up(Redactor.from_surroundings(), verbose=True)


@contextmanager
def stopping() -> Iterator[Stop]:
    """What SIGTERM or Ctrl-C sets; the second one ends the process at once.

    Raises:
        SignalError: told to stop, the block gave up waiting for a server.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        stop.set()
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        if sys.stderr.isatty():  # not through logging: the interrupted code may be in the middle of a line
            os.write(2, b"\nstopping after the work in hand; once more ends at once\n")

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    except OutageError as error:
        if not stop.signal:
            raise
        raise SignalError(f"stopped by signal: {error}", stop.exit_code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def showing(as_json: bool) -> Iterator[None]:
    """Show what the job in the block did where it did all its work but for what it withheld."""
    try:
        yield
    except (RemovalGuardError, FlipLimitError) as error:
        if error.report is not None:
            from jobs.views.report import show_report

            show_report(error.report, as_json=as_json)
        raise


def end(report: "RunReport", as_json: bool) -> None:
    """Show what a job did, and end with its exit code.

    Raises:
        SignalError: a signal stopped it.
    """
    from jobs.views.report import show_report

    show_report(report, as_json=as_json)
    if report.exit_code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        left = "" if report.left is None else f", {report.left} left"
        raise SignalError(f"stopped by signal{left}: the same command goes on", report.exit_code)
    raise typer.Exit(report.exit_code)
