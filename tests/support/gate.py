"""Photos that wait at a gate: what happens in the middle of a run happens while they wait.

::

    gate.holds(world.photos, "/7/0.jpg")
    running = beside.submit(world.run)
    until(lambda: world.requests("/7/0.jpg"), "the photo was asked for")
    ...                                              # the run is under way
    gate.open()
    running.result()
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from urllib.parse import urlsplit

import pytest

from tests.support.photo_server import FINE, Answer, PhotoServer


class Gate:
    """Closed until `open`."""

    def __init__(self) -> None:
        self._opened = Event()

    def open(self) -> None:
        self._opened.set()

    def holds(self, photos: PhotoServer, *urls: str) -> None:
        """These photos (URLs or paths) are answered as they are, but only once the gate is open."""
        for url in urls:
            photos.behave(urlsplit(url).path, self._wait)

    def _wait(self, answer: Answer) -> None:
        while not self._opened.wait(0.05) and not answer.photos.stopping.is_set():
            continue
        FINE(answer)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A closed gate; opened at the end in any case, so that nothing waits for ever."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def beside(gate: Gate) -> Iterator[ThreadPoolExecutor]:
    """Runs jobs beside the test; the gate is opened before it waits for them to end."""
    with ThreadPoolExecutor(3) as pool:
        yield pool
        gate.open()
