"""Publish: from the outbox in state to the index, each document at its revision.

Killed between the index's answer and the record of it, the next publish sends the same revision again, and
the index answers that it has it.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from enrich.errors import OutageError
from enrich.index.document import build
from enrich.index.protocol import IndexLost, IndexUnavailable, SearchIndex
from enrich.model.bundle import Bundle
from enrich.records import DocumentWrite, WriteResult, WriteStatus
from enrich.settings import Settings
from enrich.state.outbox import Outbox, OutboxRow

log = logging.getLogger(__name__)
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between tries while the index is away


@dataclass(slots=True)
class PublishFigures:
    """What one publish did."""

    written: int = 0
    removed: int = 0
    awaiting: int = 0
    refused: int = 0


class Publisher:
    """Sends the outbox to the index. The caller holds the lock `publish`."""

    def __init__(
        self,
        outbox: Outbox,
        index: SearchIndex,
        bundle: Bundle,
        settings: Settings,
    ) -> None:
        self._outbox = outbox
        self._index = index
        self._heads = bundle.heads
        self._settings = settings
        self._until: Callable[[], bool] = lambda: False
        self._check: Callable[[], None] = lambda: None
        self.figures = PublishFigures()

    def publish(
        self, until: Callable[[], bool] = lambda: False, check: Callable[[], None] = lambda: None
    ) -> None:
        """Write everything that is unpublished, waiting out an index that is away; end early when `until()`.

        `check` is called before every batch, and raises where this process may write no longer.

        Raises:
            OutageError: no usable answer for `ENRICH_OUTAGE_SECONDS`.
            IndexSetupError: the index cannot be used as set up.
        """
        self._until, self._check = until, check
        with suppress(_Ended):
            self._patiently(self._prepare)
            again = True
            while again:
                self.figures.awaiting = self.figures.refused = 0
                try:
                    again = self._pass()
                except IndexLost:
                    log.warning("the index went away while it was written to: creating it again")
                    self._patiently(self._prepare)

    def _prepare(self) -> None:
        identity = self._index.prepare()
        if self._outbox.set_target(self._settings.index, self._settings.index_mode, identity):
            log.info("nothing is known to be in this index yet: everything will be published to it")
        for ids in self._index.lost():
            self._outbox.mark_unpublished(ids)

    def _pass(self) -> bool:
        """One walk through the outbox; whether documents were outdated and are to be sent again."""
        after: str | None = None
        again = False
        while True:
            if self._until():
                raise _Ended
            rows = self._outbox.unpublished(after, self._settings.publish_batch)
            if not rows:
                return again
            after = rows[-1].id
            again |= self._send(rows)

    def _send(self, rows: list[OutboxRow]) -> bool:
        pending = {row.id: row for row in rows}
        outdated = False

        def attempt() -> None:
            nonlocal outdated
            self._check()
            results = self._index.write([self._write(row) for row in pending.values()])
            self._outbox.record(results)
            outdated |= self._count(results, pending)
            if pending:
                raise IndexUnavailable(f"{len(pending)} documents were put off: the index is overloaded")

        self._patiently(attempt)
        return outdated

    def _count(self, results: list[WriteResult], pending: dict[str, OutboxRow]) -> bool:
        outdated = False
        for result in results:
            if result.status is WriteStatus.RETRY:
                continue
            row = pending.pop(result.id)
            if result.status is WriteStatus.DONE:
                self.figures.removed += row.gone
                self.figures.written += not row.gone
            elif result.status is WriteStatus.AWAITING:
                self.figures.awaiting += 1
            elif result.status is WriteStatus.REFUSED:
                self.figures.refused += 1
                log.warning("the index refused listing %s: %s", result.id, result.error)
            else:
                outdated = True
        return outdated

    def _write(self, row: OutboxRow) -> DocumentWrite:
        document = None if row.gone else build(row, self._heads, self._settings.index_mode)
        return DocumentWrite(row.id, row.revision, document)

    def _patiently(self, work: Callable[[], None]) -> None:
        seconds = self._settings.outage_seconds
        deadline, wait = time.monotonic() + seconds, FIRST_WAIT
        while True:
            try:
                return work()
            except IndexUnavailable as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise OutageError(
                        f"the index gave no usable answer for {seconds:.0f} s ({error}); nothing is lost: "
                        "what is not published waits in the outbox for the next run"
                    ) from None
                log.warning("index away (%s); trying again in %.1f s", error, min(wait, left))
                self._sleep(min(wait, left))
                wait = min(wait * 2, LONGEST_WAIT)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._until():
                raise _Ended
            time.sleep(min(left, 0.2))


class _Ended(Exception):
    """The caller's `until()` said so."""
