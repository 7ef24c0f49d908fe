"""The window: how many photos are on their way at once, and where those wait whose host is paused."""

import asyncio

from enrich.records import Claim


class Window:
    """Places for photos on their way, and some more for photos that are parked.

    A parked photo holds no place. At most `parked` of them wait at once, but the photos of the listing that
    came to the park first always may, so that a listing with more photos than that gets done too.
    """

    def __init__(self, places: int, parked: int) -> None:
        self._places = asyncio.Semaphore(places)
        self._most_parked = parked
        self._parked: dict[Claim, set[asyncio.Future[None]]] = {}
        self._closed = False
        self.taken = 0
        """Photos on their way."""

    async def take(self) -> None:
        """Wait for a place."""
        await self._places.acquire()
        self.taken += 1

    def give_back(self) -> None:
        """Leave a place to the next photo."""
        self.taken -= 1
        self._places.release()

    def has_room(self, claim: Claim) -> bool:
        """Whether one more photo of the claim's listing may be parked."""
        first = next(iter(self._parked), claim)
        return claim == first or sum(map(len, self._parked.values())) < self._most_parked

    async def park(self, claim: Claim, seconds: float) -> bool:
        """Wait out a pause; False as soon as the claim leaves or the window closes."""
        if self._closed:
            return False
        sent_away: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked.setdefault(claim, set()).add(sent_away)
        try:
            async with asyncio.timeout(seconds):
                await sent_away
            return False
        except TimeoutError:
            return True
        finally:
            self._parked.get(claim, set()).discard(sent_away)

    def leave(self, claim: Claim) -> None:
        """Send the claim's parked photos away; called when a claim ends, parked photos or not."""
        for sent_away in self._parked.pop(claim, ()):
            if not sent_away.done():
                sent_away.set_result(None)

    def close(self) -> None:
        """Send all parked photos away, and those that come later."""
        self._closed = True
        for claim in list(self._parked):
            self.leave(claim)
