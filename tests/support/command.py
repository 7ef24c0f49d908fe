"""The `enrich` command inside the test's process: for tests of many short commands, without the start-up."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from subprocess import CompletedProcess

import pytest

from jobs.cli import logs
from jobs.cli.commands import app
from jobs.cli.guard import guarded

Enrich = Callable[..., "CompletedProcess[str]"]


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


@pytest.fixture
def enrich_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Enrich:
    """`enrich_here(environment, *arguments)`: as from a shell with just this environment."""

    def enrich(environment: Mapping[str, str], *arguments: str) -> "CompletedProcess[str]":
        with monkeypatch.context() as patch, logging_restored():
            for name in set(os.environ) - set(environment):
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = guarded(app, arguments)
            captured = capsys.readouterr()
        return CompletedProcess(arguments, code, captured.out, captured.err)

    return enrich
