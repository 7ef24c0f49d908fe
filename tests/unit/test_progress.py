"""The display beside long work."""

import sys
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from enrich.errors import OutageError
from enrich.pipeline.figures import HOSTS_KEPT, Figures
from enrich.records import Photo, PhotoResult, PhotoStatus
from jobs.run.progress import shown


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_outage_ends_the_display_and_is_left_to_the_work_to_tell() -> None:
    asked = Event()

    def remaining() -> int:
        asked.set()
        raise OutageError("no database")

    with shown(Figures(), remaining, interval=0.01):
        assert asked.wait(10)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns after a few steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_figures_can_be_told_while_photos_of_one_host_after_another_fail(restless: None) -> None:
    failed = [
        PhotoResult(Photo(0, "", str(n), f"https://host-{n}.example/1.jpg"), PhotoStatus.DNS)
        for n in range(HOSTS_KEPT)
    ]
    for _ in range(10):
        figures = Figures()

        def count(figures: Figures = figures) -> None:
            for result in failed:
                figures.count(result)

        counting = Thread(target=count)
        counting.start()
        while counting.is_alive():
            assert len(figures.as_json()["failing_hosts"]) <= HOSTS_KEPT
        counting.join()
