"""The `enrich` command inside the test's process: for tests of many short commands, without the start-up."""

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from jobs.cli import logs
from jobs.cli.commands import app
from jobs.cli.guard import guarded


@contextmanager
def logging_restored() -> Iterator[None]:
    """Undo what a command did to logging."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in (*logs.OURS, *logs.QUIET):
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(False)


def enrich_here(environment: Mapping[str, str], *arguments: str) -> "CompletedProcess[str]":
    """The command's end and output, run as from a shell with just this environment."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as patch,
        logging_restored(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        for name in set(os.environ) - set(environment):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        code = guarded(app, arguments)
    said = []
    for stream in (out, err):
        stream.seek(0)
        said.append(stream.read())
    return CompletedProcess(arguments, code, *said)
