"""The `enrich` command, killed by SIGKILL at a named boundary between two steps: as a power cut would.

::

    python -m tests.support.killer sent 2 run     # die when the 2nd bulk was answered, before it is recorded
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from enrich.pipeline import run
from enrich.source.portal import Source
from enrich.state.listings import Listings
from enrich.state.outbox import Outbox
from jobs.cli.commands import main

BOUNDARIES: dict[str, tuple[type, str, str]] = {
    "discovering": (Source, "by_ids", "before"),  # a page of the source is about to be read
    "claimed": (Listings, "claim", "after"),  # leases are taken, nothing is fetched
    "fetched": (Listings, "complete", "before"),  # some listings' photos are scored, nothing of them is saved
    "completed": (Listings, "complete", "after"),  # some listings are saved, not published
    "sent": (Outbox, "record", "before"),  # the index has the documents, state does not know
}


def die_at(boundary: str, count: int) -> None:
    """From now on the process kills itself at the `count`-th time that it comes to `boundary`."""
    owner, name, side = BOUNDARIES[boundary]
    step: Callable[..., Any] = getattr(owner, name)
    turns = itertools.count(1)  # several threads come by

    def patched(*args: Any, **kwargs: Any) -> Any:
        last = next(turns) == count
        if last and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = step(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, patched)


if __name__ == "__main__":
    run.GROUP = 3  # many boundaries in a small portal
    die_at(sys.argv[1], int(sys.argv[2]))
    del sys.argv[1:3]
    main()
