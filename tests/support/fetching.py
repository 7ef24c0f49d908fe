"""A fetcher against the photo server: what the tests of fetching share."""

import asyncio
from typing import Any

from enrich.photos.http import HttpTransport
from enrich.records import Fetched, Validators
from enrich.settings import Settings, load_settings

PHOTO = bytes(range(256)) * 40
CAP = 100_000


def settings(**changed: Any) -> Settings:
    usual: dict[str, Any] = {
        "allowed_private_hosts": ("127.0.0.1",),
        "fetch_timeout": 20.0,
        "fetch_connect_timeout": 5.0,
        "fetch_max_bytes": CAP,
    }
    return load_settings(**usual | changed)


def fetch(url: str, validators: Validators | None = None, **changed: Any) -> Fetched:
    async def go() -> Fetched:
        async with HttpTransport(settings(**changed)) as fetcher:
            return await fetcher.fetch(url, validators)

    return asyncio.run(go())


def fetch_all(*urls: str, **changed: Any) -> list[Fetched]:
    """All at once, by one fetcher."""

    async def go() -> list[Fetched]:
        async with HttpTransport(settings(**changed)) as fetcher, asyncio.timeout(60):
            return await asyncio.gather(*(fetcher.fetch(url) for url in urls))

    return asyncio.run(go())
