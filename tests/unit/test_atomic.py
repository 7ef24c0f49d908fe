"""Files that are put in their place in one step: what stands there already, and is more than a file."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from enrich.atomic import new_file, new_folder
from enrich.settings import load_settings
from jobs.metrics.watching import _hand_over


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Stands for /dev/stdout and /dev/null, which root could replace."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def read(pipe: Path) -> Iterator[Callable[[], str]]:
    """What was written to the pipe."""
    reading = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    yield lambda: os.read(reading, 10_000).decode()
    os.close(reading)


def test_a_pipe_is_written_to_and_not_replaced(pipe: Path, read: Callable[[], str]) -> None:
    with new_file(pipe) as part:
        part.write_text("all of it")
    assert pipe.is_fifo() and os.listdir(pipe.parent) == ["pipe"]
    assert read() == "all of it"


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "night.html").write_text("old")
    link = tmp_path / "last.html"
    link.symlink_to("night.html")
    with new_file(link) as part:
        part.write_text("new")
    assert link.is_symlink() and (tmp_path / "night.html").read_text() == "new"


def test_metrics_go_into_a_pipe_and_do_not_take_its_place(pipe: Path, read: Callable[[], str]) -> None:
    registry = CollectorRegistry()
    Gauge("one", "of them", registry=registry).set(1)
    _hand_over(load_settings(metrics_file=pipe), registry)  # type: ignore[arg-type]
    assert pipe.is_fifo() and os.listdir(pipe.parent) == ["pipe"]
    assert "one 1.0" in read()


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_a_disk_that_is_full_is_told_with_the_place(
    tmp_path: Path, new: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    """The system names no file where one that is open grows."""
    with pytest.raises(OSError, match="No space left") as told, new(tmp_path / "homes"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert told.value.filename == str(tmp_path / "homes")
