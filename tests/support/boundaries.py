"""The boundaries between two steps of the `enrich` command, and the program that dies at one of them.

It is started by `tests.support.killer`, and imports nothing that only
tests need: PyTorch alone takes seconds.
"""

import http.client
import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from alembic.ddl.impl import DefaultImpl

from enrich.index.elastic.generations import Generations
from enrich.index.elastic.own import OwnIndex
from enrich.model.openvino_engine import OpenVinoEngine
from enrich.photos.http import HttpTransport
from enrich.pipeline import run
from enrich.pipeline.photo import PhotoStages
from enrich.source.discover import _Comparison
from enrich.source.portal import Source
from enrich.state import backfills, completion, flips, pruning
from enrich.state.backfills import Backfills
from enrich.state.listings import Listings
from enrich.state.outbox import Outbox
from enrich.state.pruning import Pruning
from jobs.cli.commands import main
from jobs.run import reindex


@dataclass(frozen=True)
class Boundary:
    """Where the command dies: before or after a step of it."""

    owner: type | ModuleType
    step: str
    side: str
    most: int
    """The last time that it comes to this step in a small portal and much is still to be done."""
    command: tuple[str, ...] = ("run",)


BACKFILL, REINDEX, PRUNE = ("backfill",), ("reindex",), ("prune", "--yes")
BOUNDED = ("backfill", "--stale-bundle", "--max-flips", "0")

BOUNDARIES: Mapping[str, Boundary] = {
    # Discovery
    "discovering": Boundary(Source, "by_ids", "before", 3),  # a page of the source is about to be read
    "discovered": Boundary(_Comparison, "_record", "after", 3),  # a page is written down, others are not
    # From the claim to the save
    "claimed": Boundary(Listings, "claim", "after", 2),  # leases are taken, nothing is fetched
    "fetching": Boundary(HttpTransport, "_body", "before", 30),  # a photo's headers have come, others' bytes
    "decoded": Boundary(PhotoStages, "_decode", "after", 30),  # pixels wait for the model
    "scoring": Boundary(OpenVinoEngine, "score", "before", 3),  # a batch goes in, others are under way
    "scored": Boundary(OpenVinoEngine, "score", "after", 3),  # a batch comes out, and is nowhere else
    "fetched": Boundary(Listings, "complete", "before", 8),  # photos are scored, nothing of them is saved
    "written": Boundary(completion, "_save", "after", 8),  # all is written, and not committed
    "completed": Boundary(Listings, "complete", "after", 8),  # listings are saved, not published
    "renewing": Boundary(Listings, "heartbeat", "before", 2),  # leases are about to be renewed
    "renewed": Boundary(Listings, "heartbeat", "after", 2),
    # Publishing; three batches are under way at once
    "bulk": Boundary(http.client.HTTPConnection, "send", "half", 2),  # half of a bulk has left
    "sent": Boundary(Outbox, "record", "before", 3),  # the index has documents, state does not know
    "recorded": Boundary(Outbox, "record", "after", 2),
    # Backfills, and the bound on what a new bundle changes
    "asked": Boundary(Backfills, "ask", "after", 1, BACKFILL),  # nothing is marked
    "marking": Boundary(Backfills, "_mark_page", "after", 4, BACKFILL),  # a page is marked, others are not
    "exceeded": Boundary(
        flips, "hold", "before", 1, BOUNDED
    ),  # the bound is passed, the roll-out is not held
    "holding": Boundary(flips, "hold", "after", 1, BOUNDED),  # nor is this committed
    "held": Boundary(Backfills, "held", "before", 1, BOUNDED),
    # Reindexing
    "building": Boundary(OwnIndex, "write", "after", 3, REINDEX),
    "catching up": Boundary(reindex, "catch_up", "before", 1, REINDEX),
    "caught up": Boundary(reindex, "catch_up", "after", 1, REINDEX),
    "swapping": Boundary(Generations, "swap", "before", 1, REINDEX),
    "swapped": Boundary(
        Generations, "swap", "after", 1, REINDEX
    ),  # searches find the new index, state does not know
    "removing": Boundary(Generations, "prune", "before", 1, REINDEX),  # older indices are about to be removed
    # Other commands
    "migrating": Boundary(
        DefaultImpl, "_exec", "after", 6, ("migrate",)
    ),  # some of a migration's statements are sent
    "pruning": Boundary(Pruning, "_delete", "after", 2, PRUNE),  # a batch is deleted, others are not
}


def _end_at(boundary: Boundary, count: int, number: signal.Signals) -> None:
    """From now on the process gets the signal the `count`-th time that it comes to the boundary."""
    scored = _counting_scores()
    step: Callable[..., Any] = getattr(boundary.owner, boundary.step)
    turns = itertools.count(1)  # several threads come by

    def end() -> None:
        if number == signal.SIGKILL:
            os.write(sys.stdout.fileno(), str(len(scored)).encode())
        os.kill(os.getpid(), number)

    def patched(*args: Any, **kwargs: Any) -> Any:
        last = (boundary.side != "half" or _is_bulk(args[1])) and next(turns) == count
        if last and boundary.side == "before":
            end()
        if last and boundary.side == "half":
            connection, data = args
            step(connection, data[: len(data) // 2])
            end()
            args = connection, data[len(data) // 2 :]
        answer = step(*args, **kwargs)
        if last and boundary.side == "after":
            end()
        return answer

    setattr(boundary.owner, boundary.step, patched)


def _counting_scores() -> list[Any]:
    """Grows by one for each photo that the model has scored."""
    scored: list[Any] = []
    score = OpenVinoEngine.score

    def counting(engine: OpenVinoEngine, batch: Any) -> Any:
        outputs = score(engine, batch)
        scored.extend(outputs)
        return outputs

    OpenVinoEngine.score = counting  # type: ignore[method-assign]
    return scored


def _is_bulk(data: Any) -> bool:
    return bytes(data).startswith((b'{"index":', b'{"delete":'))


if __name__ == "__main__":
    run.GROUP = 3  # many boundaries in a small portal
    backfills.MARK_PAGE = 7
    pruning.BATCH = 2
    _end_at(BOUNDARIES[sys.argv[2]], int(sys.argv[3]), signal.Signals[sys.argv[1]])
    del sys.argv[1:4]
    main()
