"""Publish: from the outbox in state to the index, each document at its revision.

Killed between the index's answer and the record of it, the next publish sends the same revision again, and
the index answers that it has it.
"""

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Lock

from enrich.errors import IndexSetupError, OutageError
from enrich.index.document import build
from enrich.index.protocol import IndexLost, IndexUnavailable, SearchIndex
from enrich.model.bundle import Bundle
from enrich.model.head import Head
from enrich.records import DocumentWrite, WriteResult, WriteStatus
from enrich.settings import Settings
from enrich.state.outbox import VARYING, Outbox, OutboxRow

log = logging.getLogger(__name__)
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between tries while the index is away
MOST_LOSSES = 3  # of the index, with nothing written between them
IN_FLIGHT = 3  # batches under way at once: one is made and one recorded while the index takes another


@dataclass(slots=True)
class PublishFigures:
    """What the publishing of one run did: written, removed; and what is left: awaiting, refused.

    `answers` counts what the index said of each document sent (`WriteStatus`), and how often it said nothing
    (`unavailable`).
    """

    written: int = 0
    removed: int = 0
    awaiting: int = 0
    refused: int = 0
    answers: dict[str, int] = field(default_factory=dict)

    def answered(self, status: str) -> None:
        self.answers[status] = self.answers.get(status, 0) + 1


class Refusals:
    """What the index refused in one run, by reasons without what differs from document to document."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, result: WriteResult) -> None:
        log.info("the index refused listing %s: %s", result.id, result.error)
        reason = re.sub(VARYING, "...", result.error or "unknown")
        self._counts[reason] += 1
        self._examples.setdefault(reason, result.id)

    def warn(self) -> None:
        """Say each reason once."""
        for reason, count in self._counts.most_common():
            told = "the index refused %d documents, of listing %s among others: %s"
            log.warning(told, count, self._examples[reason], reason)


class _Batches:
    """Batches under way at once, each in a thread. What ends one is raised, once the others have ended."""

    def __init__(self) -> None:
        self.failed: list[BaseException] = []
        """What ended a batch or the reading of them, the first first. Whoever waits in a batch looks here."""

    def send(self, pages: Iterator[list[OutboxRow]], send: Callable[[list[OutboxRow]], None]) -> None:
        """Send each page."""

        def sent(rows: list[OutboxRow]) -> None:
            try:
                send(rows)
            except BaseException as error:
                self.failed.append(error)

        with ThreadPoolExecutor(IN_FLIGHT, "publish") as pool:
            under_way: deque[Future[None]] = deque()
            try:
                for rows in pages:
                    if len(under_way) == IN_FLIGHT:
                        under_way.popleft().result()
                    if self.failed:
                        break
                    under_way.append(pool.submit(sent, rows))
            except BaseException as error:
                self.failed.append(error)
        if self.failed:
            first, self.failed = self.failed[0], []
            raise first


class Publisher:
    """Sends the outbox to the index, as often as a run likes. The caller holds the lock `publish`.

    What was refused or awaited the portal's document in earlier runs is tried by the first publish, and once
    more in the next run.
    """

    def __init__(self, outbox: Outbox, index: SearchIndex, bundle: Bundle, settings: Settings) -> None:
        self._outbox = outbox
        self._index = index
        self._heads = bundle.heads
        self._settings = settings
        self._until: Callable[[], bool] = lambda: False
        self._check: Callable[[], None] = lambda: None
        self._started = False
        self._outdated = False  # whether documents were that this walk through the outbox sent
        self._overtaken: set[str] = set()
        self._batches = _Batches()
        self._counting = Lock()
        self.refusals = Refusals()
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
            losses, written, prepared = 0, 0, False
            while self._outdated or not prepared:
                try:
                    if not prepared:
                        self._patiently(self._prepare)
                    prepared, self._outdated = True, False
                    self._batches.send(self._pages(), self._send)
                except IndexLost as error:
                    done = self.figures.written + self.figures.removed
                    losses, written = (losses + 1 if done == written else 1), done
                    if losses > MOST_LOSSES:
                        raise IndexSetupError(
                            f"index {self._settings.index} cannot be written to: {error}. Look at its alias "
                            "and its settings; nothing is lost, the next run goes on"
                        ) from None
                    log.warning("the index went away while it was written to: creating it again")
                    self._started = prepared = False
                    self._sleep(FIRST_WAIT)
        left = self._outbox.counts()
        self.figures.awaiting, self.figures.refused = left.awaiting, left.refused

    def _prepare(self) -> None:
        identity = self._index.prepare()
        if self._outbox.set_target(self._settings.index, self._settings.index_mode, identity):
            log.info("nothing is known to be in this index yet: everything will be published to it")
        if not self._started:
            self._outbox.ask_again()
            for ids in self._index.lost():
                self._outbox.mark_unpublished(ids)
            self._started = True

    def _pages(self) -> Iterator[list[OutboxRow]]:
        """One walk through the outbox."""
        after: str | None = None
        while rows := self._outbox.unpublished(after, self._settings.publish_batch):
            after = rows[-1].id
            self._go_on()
            yield rows

    def _go_on(self) -> None:
        if self._batches.failed or self._until():
            raise _Ended

    def _send(self, rows: list[OutboxRow]) -> None:
        """Write one batch."""
        pending = {row.id: row for row in rows}

        def attempt() -> None:
            self._check()
            results = _write(self._outbox, self._index, self._heads, self._settings, [*pending.values()])
            with self._counting:
                results = [self._overtaken_once(result) for result in results]
            self._outbox.record(results)
            with self._counting:
                self._count(results, pending)
            if pending:
                why = next(result.error for result in results if result.status is WriteStatus.RETRY)
                raise IndexUnavailable(f"{len(pending)} documents were put off: {why}")

        self._patiently(attempt)

    def _overtaken_once(self, result: WriteResult) -> WriteResult:
        """Refused, where the index again holds a later version and does not say which: not tried for ever."""
        if result.status is not WriteStatus.OUTDATED or result.index_revision is not None:
            return result
        if result.id in self._overtaken:
            return replace(result, status=WriteStatus.REFUSED)
        self._overtaken.add(result.id)
        return result

    def _count(self, results: list[WriteResult], pending: dict[str, OutboxRow]) -> None:
        for result in results:
            self.figures.answered(result.status.value)
            if result.status is WriteStatus.RETRY:
                continue
            row = pending.pop(result.id)
            if result.status is WriteStatus.DONE:
                self.figures.removed += row.gone and not result.absent
                self.figures.written += not row.gone
            elif result.status is WriteStatus.REFUSED:
                self.refusals.add(result)
            self._outdated |= result.status is WriteStatus.OUTDATED

    def _patiently(self, work: Callable[[], None]) -> None:
        seconds = self._settings.outage_seconds
        deadline, wait = time.monotonic() + seconds, FIRST_WAIT
        while True:
            try:
                return work()
            except IndexUnavailable as error:
                with self._counting:
                    self.figures.answered("unavailable")
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
            self._go_on()
            time.sleep(min(left, 0.2))


def publish_these(
    outbox: Outbox, index: SearchIndex, bundle: Bundle, settings: Settings, ids: Sequence[str]
) -> list[WriteResult] | None:
    """Write what is unpublished of these listings, each once; the caller holds the lock `publish`.

    A listing that another bundle gave answers of heads that this one lacks is put off: who asks may have been
    started before that bundle came, and the document would lose them.

    None: the index is another one than the last publish wrote to, and gets everything from the next one.

    Raises:
        IndexUnavailable, IndexLost: the index took nothing.
        IndexSetupError: the index cannot be used as set up.
    """
    if outbox.set_target(settings.index, settings.index_mode, index.prepare()):
        return None
    rows = outbox.waiting(ids)
    put_off = [
        WriteResult(row.id, row.revision, WriteStatus.RETRY, f"another bundle made its {', '.join(answers)}")
        for row in rows
        if (answers := _of_other_heads(row, bundle))
    ]
    left = {result.id for result in put_off}
    to_write = [row for row in rows if row.id not in left]
    results = _write(outbox, index, bundle.heads, settings, to_write)
    outbox.record(results)
    return results + put_off


def _of_other_heads(row: OutboxRow, bundle: Bundle) -> list[str]:
    """Fields with answers of another bundle, for which this one has no head."""
    if row.gone or row.attributes is None or row.bundle_id == bundle.bundle_id:
        return []
    known = {name for head in bundle.heads for name in head.rules.fields(head.name)}
    return sorted(row.attributes["fields"].keys() - known)


def _write(
    outbox: Outbox, index: SearchIndex, heads: Sequence[Head], settings: Settings, rows: Sequence[OutboxRow]
) -> list[WriteResult]:
    """Write these documents, without the columns that were taken out since a discovery read them."""
    there = [row for row in rows if not row.gone]
    without = index.unmapped({name for row in there for name in row.columns})
    if cut := [row.id for row in there if not without.isdisjoint(row.columns)]:
        outbox.cut(cut, without)
    made = {row.id: build(row, heads, settings.index_mode, without) for row in there}
    return index.write([DocumentWrite(row.id, row.revision, made.get(row.id)) for row in rows])


class _Ended(Exception):
    """The caller's `until()` said so."""
