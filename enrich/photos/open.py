"""The transport for a whole run: each photo goes to the one that knows its URL's scheme."""

from contextlib import AsyncExitStack
from typing import Self

from enrich.photos.files import FileTransport
from enrich.photos.http import HttpTransport
from enrich.photos.object_store import SCHEMES, ObjectStoreTransport
from enrich.photos.transport import Paused, PhotoTransport
from enrich.records import Fetched, PhotoStatus, Validators
from enrich.settings import Settings


def open_transport(settings: Settings) -> PhotoTransport:
    """Photos over HTTP, from folders and from object stores, as far as the settings allow.

    Raises:
        SettingsError: an `ENRICH_ALLOWED_…` setting or `ENRICH_USER_AGENT` cannot be used.
    """
    return _ByScheme(HttpTransport(settings), FileTransport(settings), ObjectStoreTransport(settings))


class _ByScheme:
    def __init__(self, http: PhotoTransport, files: PhotoTransport, stores: PhotoTransport) -> None:
        self._all = (http, files, stores)
        self._transports = {"http": http, "https": http, "file": files, **dict.fromkeys(SCHEMES, stores)}

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        for transport in self._all:
            await self._stack.enter_async_context(transport)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def fetch(self, url: str, validators: Validators | None = None) -> Fetched | Paused:
        """As the transport of the URL's scheme does it; a URL of another scheme is a `BAD_URL`."""
        scheme = url.strip(" ").partition("://")[0].lower()
        if transport := self._transports.get(scheme):
            return await transport.fetch(url, validators)
        known = [f"{name}://" for name in self._transports]
        text = f"the URL is not {', '.join(known[:-1])} or {known[-1]}"
        return Fetched(PhotoStatus.BAD_URL, error=text)
