"""Requests to photo hosts under way, which can be dropped."""

import asyncio
from collections.abc import Callable

from enrich.photos.transport import Paused, PhotoTransport
from enrich.pipeline.figures import Figures
from enrich.records import Fetched, Validators


class PhotoRequests:
    """`stopping()` says that the run was told to stop: then no photo is asked for any more."""

    def __init__(self, transport: PhotoTransport, stopping: Callable[[], bool]) -> None:
        self._transport, self._stopping = transport, stopping
        self._under_way: set[asyncio.Task[Fetched | Paused]] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    async def ask(self, url: str, validators: Validators | None, figures: Figures) -> Fetched | Paused | None:
        """The transport's answer; None where the run is stopping."""
        if self._stopping():
            return None
        request = asyncio.ensure_future(self._transport.fetch(url, validators))
        self._under_way.add(request)
        try:
            with figures.timed("fetch"):
                return await request
        except asyncio.CancelledError:
            if self._stopping():
                return None
            raise
        finally:
            self._under_way.discard(request)

    def cancel(self) -> None:
        """Drop the requests under way."""
        for request in self._under_way:
            request.cancel()
