"""Leases: the claims in this process's hands, from the claim to the completion or the giving back."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from enrich.errors import OutageError
from enrich.pipeline.pools import Pools, run_in
from enrich.records import Claim
from enrich.state.queue import WorkQueue

log = logging.getLogger(__name__)


class Leases:
    """Told apart by claim, token and all, not by listing: after an outage this very process may get a listing
    again while it still works on an earlier claim of it."""

    def __init__(self, queue: WorkQueue, pools: Pools, lease_seconds: float) -> None:
        self._queue, self._pools = queue, pools
        self._lease = lease_seconds
        self._turn = time.monotonic() + lease_seconds
        self._held: set[Claim] = set()
        self._ending: set[Claim] = set()
        self._alone: Claim | None = None
        self._changed = asyncio.Event()
        self.taken = 0
        """Listings claimed so far, without those that were put off."""

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._held

    def __len__(self) -> int:
        return len(self._held)

    def alone(self, claim: Claim) -> bool:
        """Whether no other listing is worked on beside this one."""
        return claim == self._alone

    async def claim(self, size: int, ids: Sequence[str] | None, *, alone: bool) -> list[Claim]:
        """Lease up to `size` listings; or, with nothing in hand, one in whose hands a worker died.

        Such a listing is worked on alone: until it has left our hands no other is claimed. `alone` says
        whether it may come now. It comes behind all others; but so that a backfill does not keep those of the
        nightly run waiting for days, they have a turn once per lease, for which nothing else is claimed.
        """
        if size < 1 or self._alone in self._held:
            return []
        return await run_in(self._pools.state, self._claim, size, ids, alone and not self._held)

    def _claim(self, size: int, ids: Sequence[str] | None, alone: bool) -> list[Claim]:
        # All in the thread, so that no claim is lost when the run ends just now.
        claims = [] if self._their_turn(ids) else self._queue.claim(size, ids)
        if not claims and alone:
            claims = self._queue.claim(1, ids, alone=True)
            self._alone = next(iter(claims), None)
        self._held.update(claims)
        self.taken += len(claims)
        return claims

    def _their_turn(self, ids: Sequence[str] | None) -> bool:
        now = time.monotonic()
        if now < self._turn:
            return False
        if self._queue.orphaned(ids):
            return True
        self._turn = now + self._lease
        return False

    def drop(self, claim: Claim) -> bool:
        """Let go of a claim that has ended; False where it had left our hands before."""
        if claim not in self._held:
            return False
        self._held.remove(claim)
        self._ending.discard(claim)
        self._changed.set()
        return True

    def ending(self, claim: Claim) -> bool:
        """Say that a claim is about to be ended, by its own work; False where it has left our hands."""
        if claim in self._held:
            self._ending.add(claim)
        return claim in self._held

    async def put_off(self, claim: Claim, seconds: float) -> None:
        """Give a listing back, to be claimed in `seconds` from now at the earliest."""
        if self.drop(claim):
            self.taken -= 1
            await run_in(self._pools.state, self._queue.release, [claim], later=seconds)

    def give_back(self, forgive: bool) -> None:
        """Give back whatever is in hand; with `forgive` the attempts do not count."""
        if self._held:
            with suppress(OutageError):  # a lease not given back runs out by itself
                self._queue.release(list(self._held), forgive=forgive)

    async def keep(self, lost: Callable[[Claim], None]) -> None:
        """Renew the leases until cancelled; what is not ours any more leaves our hands, and is told."""
        while True:
            await asyncio.sleep(self._lease / 3)
            if not self._held:
                continue
            for claim in await run_in(self._pools.heartbeat, self._queue.heartbeat, list(self._held)):
                # One that is just being ended says by itself whether it was still ours.
                if claim not in self._ending and self.drop(claim):
                    log.warning(
                        "listing %s: its claim is over, and what is still done for it is thrown away: "
                        "another worker took it, its backfill was ended, or it left the portal",
                        claim.id,
                    )
                    lost(claim)

    async def change(self, seconds: float) -> None:
        """Wait until a claim leaves our hands, at most so long."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def wake(self) -> None:
        """End the wait of `change`."""
        self._changed.set()
