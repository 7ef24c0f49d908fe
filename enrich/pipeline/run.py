"""The pipeline: claim, fetch, decode, score, aggregate, save, for many listings' photos at once.

The only module that knows the order of the stages. One task per photo carries it from its request to its
scores; at most `WINDOW` photos are on their way at once, whatever the number of listings or of photos per
listing, and the last photo of a listing to arrive releases its aggregation.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import cpu_count
from typing import Any, TypeVar

from enrich.errors import EnrichError, ErrorBudgetError, OutageError
from enrich.model.aggregate import aggregate
from enrich.model.bundle import Bundle
from enrich.model.engine import Engine, lane_pool
from enrich.photos.decode import decode
from enrich.photos.http import HttpTransport
from enrich.pipeline.batching import Batcher, Memo
from enrich.pipeline.figures import Figures
from enrich.records import (
    Claim,
    Decoded,
    Fetched,
    ListingPhotos,
    ListingResult,
    Photo,
    PhotoResult,
    PhotoScore,
    PhotoState,
    PhotoStatus,
    Scores,
)
from enrich.settings import Settings
from enrich.source.portal import Source
from enrich.state.queue import WorkQueue

log = logging.getLogger(__name__)
T = TypeVar("T")

CLAIM_SIZE = 16  # listings leased at once: small, so that several workers share fairly
WINDOW_PER_REQUEST = 2  # photos on their way per allowed request
BUDGET_WINDOW, BUDGET_LEAST = 500, 200  # photo requests that the error budget looks at
ABSENT_DELAY = 3600.0  # seconds until a listing that vanished between discovery and claim is looked at again
STOP_POLL = 0.1
POLL = 1.0  # seconds between looks for listings that other workers still hold


@dataclass(slots=True)
class _Open:
    """A claimed listing on its way."""

    claim: Claim
    source: ListingPhotos
    results: list[PhotoResult] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Known:
    """What state already knows of the photos of a claim batch."""

    photos: Mapping[str, PhotoState]
    scores: dict[str, PhotoScore]


class Pipeline:
    """Enriches every listing that can be claimed."""

    def __init__(
        self,
        state: WorkQueue,
        source: Source,
        bundle: Bundle,
        engine: Engine,
        settings: Settings,
        *,
        stopping: Callable[[], bool] = lambda: False,
        figures: Figures | None = None,
    ) -> None:
        self._state, self._source, self._bundle = state, source, bundle
        self._engine, self._settings = engine, settings
        self._model_ids = [member.model_id for member in bundle.members]
        self._stopping = stopping
        self.figures = figures or Figures()
        self._open: dict[str, Claim] = {}
        self._alone: list[Claim] = []
        self._attempts: deque[tuple[str, bool]] = deque(maxlen=BUDGET_WINDOW)
        self._photos_on_their_way = 0
        self._fetching: set[asyncio.Task[Fetched]] = set()
        self._fetch_memo, self._score_memo = Memo(), Memo()

    def run(self, *, ids: Sequence[str] | None = None, limit: int | None = None) -> Figures:
        """Work until nothing is claimable and no other worker holds a listing that might come back.

        `ids` and `limit` restrict the listings taken.

        Raises:
            ErrorBudgetError: too many photo requests failed for passing reasons.
            OutageError: Postgres was away for too long.
            Exception: whatever a stage raised; the leases in hand are given back first.
        """
        asyncio.run(self._run(ids, limit))
        return self.figures

    async def _run(self, ids: Sequence[str] | None, limit: int | None) -> None:
        workers = self._settings.decode_threads or cpu_count() or 1
        with (
            ThreadPoolExecutor(workers, "decode") as self._decoders,
            lane_pool(self._engine) as scorers,
            ThreadPoolExecutor(4, "state") as self._savers,
            ThreadPoolExecutor(1, "heartbeat") as self._heart,
        ):
            self._batcher: Batcher[Decoded, dict[str, Scores]] = Batcher(
                self._score_batch,
                self._engine.batch_size,
                scorers,
                lambda: self._photos_on_their_way,
            )
            self._window = asyncio.Semaphore(WINDOW_PER_REQUEST * self._settings.fetch_concurrency)
            self._wake = asyncio.Event()
            forgive = True
            try:
                async with HttpTransport(self._settings) as self._transport:
                    await self._with_helpers(self._claim_all(ids, limit))
            except BaseExceptionGroup as group:
                error = _first(group)
                self._savers.shutdown()  # so that what is saved or claimed just now is dealt with too
                if isinstance(error, ErrorBudgetError):
                    failed = {listing for listing, transient in self._attempts if transient}
                    self._state.forgive(sorted(failed))
                else:
                    forgive = isinstance(error, EnrichError)  # else the listing in hand may be what breaks it
                raise error from None
            finally:
                if self._open:
                    with suppress(OutageError):  # a lease not given back runs out by itself
                        self._state.release(list(self._open.values()), forgive=forgive)

    async def _with_helpers(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the heartbeat and the batcher; a helper that raises ends it."""
        async with asyncio.TaskGroup() as group:
            lanes = [self._batcher.run() for _ in range(self._engine.lanes)]
            jobs = (self._heartbeat(), self._watch_stop(), *lanes)
            helpers = [group.create_task(job) for job in jobs]
            await work
            for helper in helpers:
                helper.cancel()

    async def _claim_all(self, ids: Sequence[str] | None, limit: int | None) -> None:
        taken = 0
        async with asyncio.TaskGroup() as group:
            while not self._stopping() and (limit is None or taken < limit):
                size = CLAIM_SIZE if limit is None else min(CLAIM_SIZE, limit - taken)
                claims = await self._in(self._savers, self._claim, size, ids)
                if claims:
                    taken += len(claims)
                    await self._start(claims, group)
                elif await self._in(self._savers, self._state.claimable, ids):
                    # Ours are on their way, or another worker's may come back when its lease runs out.
                    self._wake.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), POLL)
                else:
                    return

    def _claim(self, size: int, ids: Sequence[str] | None) -> list[Claim]:
        if any(claim.id in self._open for claim in self._alone):
            return []
        claims = self._state.claim(size, ids)
        if not claims and not self._open:
            claims = self._alone = self._state.claim(1, ids, alone=True)
        self._open.update((claim.id, claim) for claim in claims)
        return claims

    async def _start(self, claims: list[Claim], group: asyncio.TaskGroup) -> None:
        with self.figures.timed("read"):
            found = await self._in(self._savers, self._source.photos, [claim.id for claim in claims])
            keys = sorted({photo.key for listing in found for photo in listing.photos})
            known = await self._in(self._savers, self._look_up, keys)
        by_id = {listing.id: listing for listing in found}
        for claim in claims:
            listing = by_id.get(claim.id)
            if listing is None:  # gone since discovery: the next discovery says so
                await self._in(self._savers, self._put_off, claim)
                continue
            opened = _Open(claim, listing)
            if not listing.photos:
                group.create_task(self._finish(opened))
            for photo in listing.photos:
                await self._window.acquire()
                if self._stopping():
                    self._window.release()
                    return
                self._photos_on_their_way += 1
                group.create_task(self._carry(opened, photo, known))

    def _put_off(self, claim: Claim) -> None:
        self._state.release([claim], later=ABSENT_DELAY)
        self._open.pop(claim.id, None)

    def _look_up(self, keys: list[str]) -> _Known:
        photos = self._state.photo_states(keys)
        shas = sorted({state.sha256 for state in photos.values() if state.sha256})
        scores = self._state.scores(shas, self._model_ids)
        complete = {s: score for s, score in scores.items() if set(self._model_ids) <= set(score.by_model)}
        return _Known(photos, complete)

    async def _carry(self, opened: _Open, photo: Photo, known: _Known) -> None:
        """One photo, from what is known of it to its result; the listing's last one finishes the listing."""
        try:
            result = await self._result(opened.claim, photo, known)
        finally:
            self._photos_on_their_way -= 1
            self._window.release()
        if result is None:
            return  # the run is stopping
        opened.results.append(result)
        self.figures.count(result)
        if result.requested:
            self._spend(opened.claim.id, result.transient)
        if len(opened.results) == len(opened.source.photos):
            await self._finish(opened)

    async def _result(self, claim: Claim, photo: Photo, known: _Known) -> PhotoResult | None:
        before = known.photos.get(photo.key)
        cached = known.scores.get(before.sha256) if before and before.sha256 else None
        if before is not None and not claim.revalidate and before.version == photo.version:
            if before.status.ok and cached is not None:
                return PhotoResult(photo, PhotoStatus.OK, before.sha256, cached, before.validators)
            if not before.status.ok and not before.retry_due:
                return _failed(photo, before.status, before.error, before.failures, before.sha256, cached)
        key = (photo.key, photo.version, claim.revalidate and claim.token)
        result, made = await self._fetch_memo.get(key, lambda: self._fetch(photo, before, cached))
        if result is None or result.transient:
            self._fetch_memo.forget(key)
        return result if made or result is None else replace(result, photo=photo, requested=False)

    async def _fetch(
        self, photo: Photo, before: PhotoState | None, cached: PhotoScore | None
    ) -> PhotoResult | None:
        """Request one photo and take it to its scores; None where the run is stopping."""
        if self._stopping():
            return None
        request = asyncio.ensure_future(
            self._transport.fetch(photo.url, before.validators if before and cached else None)
        )
        self._fetching.add(request)
        try:
            with self.figures.timed("fetch"):
                fetched = await request
        except asyncio.CancelledError:
            if self._stopping():
                return None
            raise
        finally:
            self._fetching.discard(request)
        self.figures.bytes += fetched.bytes_read
        if fetched.status is PhotoStatus.UNCHANGED and before is not None:
            return PhotoResult(
                photo, fetched.status, before.sha256, cached, before.validators, requested=True
            )
        failures = (before.failures if before else 0) + 1
        if fetched.body is None or fetched.sha256 is None:
            sha = before.sha256 if before else None
            failed = _failed(photo, fetched.status, fetched.error, failures, sha, cached)
            return replace(failed, requested=True)
        score = await self._score(fetched)
        if isinstance(score, Decoded):
            failed = _failed(photo, score.status, score.error, failures, fetched.sha256, None)
            return replace(failed, requested=True, validators=fetched.validators)
        return PhotoResult(photo, PhotoStatus.OK, fetched.sha256, score, fetched.validators, requested=True)

    async def _score(self, fetched: Fetched) -> PhotoScore | Decoded:
        """The scores of some bytes, made once per run and model; or why they cannot be decoded."""
        sha, body = fetched.sha256, fetched.body
        assert sha is not None and body is not None

        async def make() -> PhotoScore | Decoded:
            known = await self._in(self._savers, self._state.scores, [sha], self._model_ids)
            if sha in known and set(self._model_ids) <= set(known[sha].by_model):
                return known[sha]
            decoded = await self._in(self._decoders, self._decode, body)
            if not decoded.status.ok:
                return decoded
            scores = await self._batcher.submit(decoded)
            self.figures.scored += 1
            return PhotoScore(sha, decoded.dhash, scores)

        return (await self._score_memo.get(sha, make))[0]

    def _decode(self, body: bytes) -> Decoded:
        with self.figures.timed("decode"):
            return decode(body, self._bundle.preprocessings, self._settings.max_pixels)

    def _score_batch(self, batch: Sequence[Decoded]) -> Sequence[dict[str, Scores]]:
        with self.figures.timed("score"):
            return self._engine.score([decoded.pixels for decoded in batch])

    async def _finish(self, opened: _Open) -> None:
        """Aggregate and save one listing. What breaks on one listing quarantines that listing."""
        claim = opened.claim
        results = tuple(sorted(opened.results, key=lambda r: (r.photo.position, r.photo.key)))
        try:
            with self.figures.timed("aggregate"):
                attributes = aggregate(self._bundle, results, self._settings.min_photos_false)
        except Exception as error:
            log.exception("listing %s cannot be aggregated", claim.id)
            await self._in(self._savers, self._state.fail, claim, f"aggregate: {error!r}")
            self.figures.quarantined += 1
        else:
            result = ListingResult(claim, opened.source, results, attributes, self._bundle.bundle_id)
            with self.figures.timed("save"):
                saved = await self._in(self._savers, self._state.complete, result)
            self.figures.listings += saved
            self.figures.stale += not saved
            self.figures.retry += saved and any(r.transient for r in results)
        self._open.pop(claim.id, None)
        self._wake.set()

    def _spend(self, listing: str, transient: bool) -> None:
        """Count one request against the error budget."""
        self._attempts.append((listing, transient))
        failed = sum(bad for _, bad in self._attempts)
        if len(self._attempts) >= BUDGET_LEAST and failed > self._settings.error_budget * len(self._attempts):
            raise ErrorBudgetError(
                f"{failed} of the last {len(self._attempts)} photo requests failed for passing reasons "
                f"(most often {', '.join(k for k, _ in self.figures.failures.most_common(3))}), more than "
                f"ENRICH_ERROR_BUDGET={self._settings.error_budget:g} allows; nothing is held against the "
                "listings: look at the photo hosts and run again"
            )

    async def _watch_stop(self) -> None:
        """When the run is told to stop, drop the requests under way; what is fetched is finished."""
        while not self._stopping():  # noqa: ASYNC110 (set by a signal handler or another thread)
            await asyncio.sleep(STOP_POLL)
        for request in self._fetching:
            request.cancel()
        self._wake.set()

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            if claims := list(self._open.values()):
                for lost in await self._in(self._heart, self._state.heartbeat, claims):
                    log.warning("listing %s: the lease went to another worker", lost.id)

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *args)


def _failed(
    photo: Photo,
    status: PhotoStatus,
    error: str | None,
    failures: int,
    sha256: str | None,
    earlier: PhotoScore | None,
) -> PhotoResult:
    """A failure; while it may pass, the scores of the bytes we had stand in, so that no filter flickers."""
    result = PhotoResult(photo, status, sha256, error=error, failures=failures)
    return replace(result, score=earlier) if result.transient else result


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group, out of its nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
