"""Shows long work: a progress bar on a terminal, one structured log line per interval elsewhere."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from enrich.errors import OutageError
from enrich.pipeline.figures import Figures

log = logging.getLogger(__name__)
REFRESH = 0.5  # seconds between looks at the figures on a terminal


@contextmanager
def shown(figures: Figures, remaining: Callable[[], int], interval: float) -> Iterator[None]:
    """Show `figures` while the block runs; `remaining()` says how many listings wait."""
    show = _bar if sys.stderr.isatty() else _lines
    with _beside(lambda done: show(figures, remaining, interval, done)):
        yield


@contextmanager
def counted(documents: Callable[[], int], interval: float) -> Iterator[None]:
    """Show how many documents are done while the block runs; how many there are, nobody knows."""

    def lines(done: Event) -> None:
        while not done.wait(interval):
            log.info("progress", extra={"documents": documents()})

    def bar(done: Event) -> None:
        columns = (TextColumn("documents"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("documents", total=None)
            while not done.wait(REFRESH):
                progress.update(task, completed=documents())

    with _beside(bar if sys.stderr.isatty() else lines):
        yield


@contextmanager
def _beside(show: Callable[[Event], None]) -> Iterator[None]:
    done = Event()

    def work() -> None:
        with suppress(OutageError):  # the work itself ends with it, and says so
            show(done)

    thread = Thread(target=work, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _lines(figures: Figures, remaining: Callable[[], int], interval: float, done: Event) -> None:
    while not done.wait(interval):
        log.info("progress", extra={"waiting": remaining(), **figures.as_json()})


def _bar(figures: Figures, remaining: Callable[[], int], interval: float, done: Event) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} photos/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("listings", total=remaining(), rate=0.0)
        ticks = 0
        while not done.wait(REFRESH):
            ticks += 1
            if ticks * REFRESH % 5 < REFRESH:  # other runs add and take work too: count again
                progress.update(task, total=figures.listings + remaining())
            progress.update(task, completed=figures.listings, rate=figures.speed)
