"""The pipeline: claim, fetch, decode, score, aggregate, save, for many listings' photos at once.

The only part that knows the order of the stages. One task per photo carries it from its request to its
scores; a window bounds the photos that are on their way at once, whatever the number of listings or of photos
per listing, and the last photo of a listing to arrive releases its aggregation.
"""

import asyncio
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from enrich.cores import usable_cores
from enrich.errors import EnrichError, ErrorBudgetError
from enrich.model.bundle import Bundle
from enrich.model.engine import Engine
from enrich.photos.transport import PhotoTransport
from enrich.pipeline.batching import Batcher
from enrich.pipeline.budget import ErrorBudget
from enrich.pipeline.features import FreshFeatures
from enrich.pipeline.figures import Figures
from enrich.pipeline.leases import Leases
from enrich.pipeline.listing import ListingStages, OpenListing
from enrich.pipeline.outcome import UNKNOWN, Known, seen
from enrich.pipeline.photo import PhotoStages
from enrich.pipeline.pools import Pools, run_in
from enrich.pipeline.saving import Ended, save
from enrich.pipeline.window import Window
from enrich.records import Claim, Decoded, ListingPhotos, ListingResult, Output
from enrich.settings import Settings
from enrich.source.portal import Source
from enrich.state.queue import WorkQueue

CLAIM_SIZE = 16  # listings leased at once: small, so that several workers share fairly
CLAIM_KNOWN = 128  # the same while photos are all known, and listings are done at once
KNOWN_AT_ONCE = 128  # listings that are finished without asking for a photo
GROUP = 32  # listings saved in one transaction, at most
WINDOW_PER_REQUEST = 2  # photos on their way per allowed request
PARKED = 1_000  # photos that wait for paused hosts
ABSENT_DELAY = 3600.0  # seconds until a listing that vanished between discovery and claim is looked at again
STOP_POLL = 0.1
UNCOLLECTED = 50_000  # objects until the garbage collector looks: a run's records hold no cycles
POLL = 1.0  # seconds between looks for listings that other workers still hold


@dataclass(slots=True)
class Pipeline:
    """Enriches every listing that can be claimed; made of its collaborators by `open_pipeline`, run once."""

    queue: WorkQueue
    source: Source
    transport: PhotoTransport
    stopping: Callable[[], bool]
    figures: Figures
    pools: Pools
    window: Window
    leases: Leases
    photos: PhotoStages
    listings: ListingStages
    budget: ErrorBudget
    batchers: Sequence[Batcher[Any, Any]]
    """Each as often as it is to run."""
    known: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(KNOWN_AT_ONCE))
    """Places for listings that are finished without asking for a photo."""
    claim_size: int = CLAIM_SIZE

    def run(self, *, ids: Sequence[str] | None = None, limit: int | None = None) -> None:
        """Work until nothing is claimable and no other worker holds a listing that might come back.

        `ids` and `limit` restrict the listings taken.

        Raises:
            ErrorBudgetError: too many photo requests failed for passing reasons.
            OutageError: Postgres was away for too long.
            Exception: whatever a stage raised; the leases in hand are given back first.
        """
        forgive = True
        thresholds = gc.get_threshold()
        gc.set_threshold(UNCOLLECTED)
        try:
            with self.pools:  # what is being saved or claimed at the end is dealt with below
                asyncio.run(self._run(ids, limit))
        except BaseExceptionGroup as group:
            error = _first(group)
            if isinstance(error, ErrorBudgetError):
                self.queue.forgive(self.budget.failed())
            else:
                forgive = isinstance(error, EnrichError)  # else the listing in hand may be what breaks it
            raise error from None
        finally:
            gc.set_threshold(*thresholds)
            self.leases.give_back(forgive)

    async def _run(self, ids: Sequence[str] | None, limit: int | None) -> None:
        """Claim and work beside the heartbeat and the batchers; a helper that raises ends it."""
        async with self.transport, asyncio.TaskGroup() as group:
            jobs = [self.leases.keep(self.listings.lost), self._watch_stop()]
            jobs += [batcher.run() for batcher in self.batchers]
            helpers = [group.create_task(job) for job in jobs]
            await self._claim_all(ids, limit)
            for helper in helpers:
                helper.cancel()

    async def _claim_all(self, ids: Sequence[str] | None, limit: int | None) -> None:
        async with asyncio.TaskGroup() as group:
            while not self.stopping():
                room = self.claim_size if limit is None else min(self.claim_size, limit - self.leases.taken)
                claims = await self.leases.claim(room, ids, alone=self.window.taken == 0)
                if claims:
                    await self._start(claims, group)
                elif self.leases or (room > 0 and await self._more_to_come(ids)):
                    await self.leases.change(POLL)
                else:
                    return

    async def _more_to_come(self, ids: Sequence[str] | None) -> bool:
        """Listings wait for a paused host, or another worker's may come back when its lease runs out."""
        if asyncio.get_running_loop().time() < self.listings.due:
            return True
        return await run_in(self.pools.state, self.queue.claimable, ids)

    async def _start(self, claims: list[Claim], group: asyncio.TaskGroup) -> None:
        by_id, known = await run_in(self.pools.state, self._read, claims)
        self.claim_size = CLAIM_KNOWN
        for claim in claims:
            listing = by_id.get(claim.id)
            if listing is None:  # gone since discovery: the next discovery says so
                await self.leases.put_off(claim, ABSENT_DELAY)
                continue
            opened = OpenListing(claim, listing)
            same = claim.photo_fp_done == listing.photo_fp
            own = seen(listing.photos, known) if same else known
            results = self.photos.settled(claim, listing.photos, own)
            if len(results) == len(listing.photos):
                await self.known.acquire()
                if self.stopping():
                    return  # what is in hand is given back at the end
                finishing = group.create_task(self.listings.settle(opened, results))
                finishing.add_done_callback(lambda _: self.known.release())
                continue
            self.claim_size = CLAIM_SIZE
            for photo in listing.photos:
                await self.window.take()
                if self.stopping() or claim not in self.leases:
                    self.window.give_back()
                    await self.listings.let_go(opened)
                    break
                group.create_task(self.listings.carry(opened, photo, own.get(photo.key, UNKNOWN)))

    def _read(self, claims: Sequence[Claim]) -> tuple[dict[str, ListingPhotos], dict[str, Known]]:
        """Claimed listings by id, and what is known of their photos by URL key; called in a thread."""
        with self.figures.timed("read"):
            found = {listing.id: listing for listing in self.source.photos([claim.id for claim in claims])}
            keys = sorted({photo.key for listing in found.values() for photo in listing.photos})
            return found, self.photos.look_up(keys)

    async def _watch_stop(self) -> None:
        """When the run is told to stop, drop the requests under way; what is fetched is finished."""
        while not self.stopping():  # noqa: ASYNC110 (set by a signal handler or another thread)
            await asyncio.sleep(STOP_POLL)
        self.photos.requests.cancel()
        self.window.close()
        self.leases.wake()


def open_pipeline(
    queue: WorkQueue,
    source: Source,
    bundle: Bundle,
    engine: Engine,
    transport: PhotoTransport,
    settings: Settings,
    *,
    stopping: Callable[[], bool] = lambda: False,
    figures: Figures | None = None,
) -> Pipeline:
    """The pipeline with all that it works with, ready to run; `stopping()` is asked often."""
    figures = figures or Figures()
    pools = Pools(engine, settings.decode_threads or usable_cores())
    window = Window(WINDOW_PER_REQUEST * settings.fetch_concurrency, PARKED)

    def score(batch: Sequence[Decoded]) -> Sequence[dict[str, Output]]:
        figures.batch(engine.batch_size)
        with figures.timed("score"):
            return engine.score([decoded.pixels for decoded in batch])

    def saved(group: Sequence[ListingResult]) -> Sequence[Ended]:
        with figures.timed("save"):
            return save(queue, group)

    batcher = Batcher(score, engine.batch_size, pools.score, lambda held: window.taken > held)
    leases = Leases(queue, pools, settings.lease_seconds)
    saves = Batcher(saved, GROUP, pools.state, lambda held: len(leases) > held)
    features = FreshFeatures(bundle, settings.keep_embeddings)
    photos = PhotoStages(
        queue, bundle, transport, batcher, pools, settings.max_pixels, features, figures, stopping
    )
    figures.queues = {
        "fetch": lambda: len(photos.requests),
        "decode": pools.decoding,
        "score": lambda: len(batcher),
        "save": lambda: len(saves),
    }
    budget = ErrorBudget(settings.error_budget)
    least = settings.min_photos_false
    listings = ListingStages(queue, bundle, photos, saves, window, leases, budget, pools, figures, least)
    return Pipeline(
        queue=queue,
        source=source,
        transport=transport,
        stopping=stopping,
        figures=figures,
        pools=pools,
        window=window,
        leases=leases,
        photos=photos,
        listings=listings,
        budget=budget,
        batchers=[*[batcher] * engine.lanes, photos.look_ups, saves],
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group, out of its nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
