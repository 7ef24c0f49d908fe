"""One listing, from its claim to its completion: photos past the pauses of their hosts, aggregate, save."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from enrich.model.aggregate import aggregate
from enrich.model.bundle import Bundle
from enrich.photos.transport import Paused
from enrich.pipeline.batching import Batcher
from enrich.pipeline.budget import ErrorBudget
from enrich.pipeline.figures import Figures
from enrich.pipeline.leases import Leases
from enrich.pipeline.outcome import Known
from enrich.pipeline.photo import PhotoStages
from enrich.pipeline.pools import Pools, run_in
from enrich.pipeline.saving import Ended, quarantine
from enrich.pipeline.window import Window
from enrich.records import Claim, ListingPhotos, ListingResult, Photo, PhotoResult
from enrich.state.queue import WorkQueue

log = logging.getLogger(__name__)

REFUSALS = 2  # of one photo by a host that asks to be left alone, after which it is asked for once more
PATIENCE = 600.0  # seconds that one photo waits for such a host in all
PATIENCE_ALONE = 10.0  # the same where nothing else is worked on meanwhile


@dataclass(slots=True)
class OpenListing:
    """A claimed listing on its way."""

    claim: Claim
    source: ListingPhotos
    results: list[PhotoResult] = field(default_factory=list)
    put_off: bool = False
    """It finds no room to wait for a paused host."""


@dataclass(slots=True)
class ListingStages:
    """Works on claimed listings, many at once."""

    queue: WorkQueue
    bundle: Bundle
    photos: PhotoStages
    saves: Batcher[ListingResult, Ended]
    window: Window
    leases: Leases
    budget: ErrorBudget
    pools: Pools
    figures: Figures
    min_photos_false: int
    due: float = field(default=0.0, init=False)
    """When listings that were put off for a paused host can be claimed again, by the event loop's clock."""

    async def settle(self, opened: OpenListing, results: Sequence[PhotoResult]) -> None:
        """Finish a listing none of whose photos is to be asked for."""
        opened.results.extend(results)
        for result in results:
            self.figures.count(result)
        await self.finish(opened)

    async def carry(self, opened: OpenListing, photo: Photo, known: Known) -> None:
        """One photo, from its place in the window to its result; the last one finishes its listing."""
        result = await self._past_pauses(opened, photo, known)
        if result is not None:
            opened.results.append(result)
        if opened.claim not in self.leases:
            await self.let_go(opened)
        elif result is not None:
            self.figures.count(result)
            if result.requested and not result.left_alone:
                self.budget.spend(opened.claim.id, result.status.value if result.transient else None)
            if len(opened.results) == len(opened.source.photos):
                await self.finish(opened)

    async def _past_pauses(self, opened: OpenListing, photo: Photo, known: Known) -> PhotoResult | None:
        """A photo's result, or None where the run or the claim ended first.

        While its host is paused it holds no place in the window.
        """
        claim, refusals, waited = opened.claim, 0, 0.0
        alone = self.leases.alone(claim)
        patience = PATIENCE_ALONE if alone else PATIENCE
        while True:
            last = refusals >= REFUSALS or waited >= patience
            try:
                outcome = await self.photos.result(claim, photo, known, last)
            finally:
                self.window.give_back()
            if not isinstance(outcome, Paused):
                return outcome
            refusals += outcome.refusal is not None
            waited += outcome.seconds
            if claim not in self.leases or opened.put_off:
                return None
            if not self.window.has_room(claim):
                await self._put_off(opened, outcome.seconds)
                return None
            overlong = alone and waited >= patience  # taken for the answer at once: all others would wait too
            if not overlong and not await self.window.park(claim, outcome.seconds):
                return None
            await self.window.take()

    async def _put_off(self, opened: OpenListing, seconds: float) -> None:
        opened.put_off = True
        self.window.leave(opened.claim)
        self.due = max(self.due, asyncio.get_running_loop().time() + seconds)
        await self.let_go(opened)
        await self.leases.put_off(opened.claim, seconds)

    async def finish(self, opened: OpenListing) -> None:
        """Aggregate and save one listing. What breaks on one listing quarantines that listing."""
        claim = opened.claim
        if not self.leases.ending(claim):
            return
        results = tuple(sorted(opened.results, key=lambda r: (r.photo.position, r.photo.key)))
        try:
            with self.figures.timed("aggregate"):
                attributes = aggregate(self.bundle, results, self.min_photos_false)
        except Exception as error:
            log.exception("listing %s cannot be aggregated", claim.id)
            ended = await run_in(self.pools.state, quarantine, self.queue, claim, f"aggregate: {error!r}")
        else:
            result = ListingResult(claim, opened.source, results, attributes, self.bundle.bundle_id)
            ended = await self.saves.submit(result)
            if ended is Ended.SAVED:
                self.figures.listings += 1
                self.figures.answered(attributes)
                self.figures.retry += any(r.transient for r in results)
        if ended is not Ended.SAVED:
            self.figures.quarantined += ended is Ended.QUARANTINED
            self.figures.stale += ended is Ended.STALE
            await self.let_go(opened)
        self.window.leave(claim)
        self.leases.drop(claim)

    def lost(self, claim: Claim) -> None:
        """The claim is not ours any more: what is still done for it is thrown away."""
        self.figures.stale += 1
        self.window.leave(claim)

    async def let_go(self, opened: OpenListing) -> None:
        """Let the photos of a listing that is not saved be asked for again by those who need them.

        Of one that is put off, what need not be tried again is kept: it comes back after the pause.
        """
        results, opened.results = opened.results, []
        if opened.put_off and (ended := [result for result in results if not result.transient]):
            with suppress(ValueError):  # one that cannot be written down: saving the listing will say so
                await run_in(self.pools.state, self.queue.keep, opened.claim, ended)
                return
        self.photos.forget(opened.claim, results)
