"""How a job is told to end after the work in hand."""

import time
from threading import Event

POLL = 0.1  # seconds between looks


class Stop(Event):
    """Set when a job is to end after the work in hand."""

    signal: int | None = None
    """The signal that said so; None where it was not a signal."""

    @property
    def exit_code(self) -> int:
        """What a shell expects of a command that a signal ended: 130 for SIGINT, 143 for SIGTERM; else 0."""
        return 128 + self.signal if self.signal else 0

    def wait(self, timeout: float | None = None) -> bool:
        """As `Event.wait`, by polling: a signal handler may set it in the very thread that waits, and would
        hang where `Event.wait` holds the lock that `set` takes."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (deadline is None or time.monotonic() < deadline):
            time.sleep(POLL if deadline is None else max(min(POLL, deadline - time.monotonic()), 0.0))
        return self.is_set()
