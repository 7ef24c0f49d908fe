"""A fetcher against the photo server: what the tests of fetching share."""

import asyncio
from typing import Any

from enrich.photos.http import HttpTransport
from enrich.photos.transport import Paused, PhotoTransport
from enrich.records import Fetched, Validators
from enrich.settings import Settings, load_settings

PHOTO = bytes(range(256)) * 40
CAP = 100_000
REFUSALS = 2  # of one photo, that its caller waits out


def settings(**changed: Any) -> Settings:
    usual: dict[str, Any] = {
        "allowed_private_hosts": ("127.0.0.1",),
        "fetch_timeout": 20.0,
        "fetch_connect_timeout": 5.0,
        "fetch_max_bytes": CAP,
    }
    return load_settings(**usual | changed)


async def patiently(fetcher: PhotoTransport, url: str, validators: Validators | None = None) -> Fetched:
    """What the photo ends as, after the pauses that its host asks for."""
    refusals = 0
    while isinstance(answer := await fetcher.fetch(url, validators), Paused):
        if answer.refusal is not None and refusals == REFUSALS:
            return answer.refusal
        refusals += answer.refusal is not None
        await asyncio.sleep(answer.seconds)
    return answer


def fetch(url: str, validators: Validators | None = None, **changed: Any) -> Fetched:
    async def go() -> Fetched:
        async with HttpTransport(settings(**changed)) as fetcher:
            return await patiently(fetcher, url, validators)

    return asyncio.run(go())


def fetch_all(*urls: str, **changed: Any) -> list[Fetched]:
    """All at once, by one fetcher."""

    async def go() -> list[Fetched]:
        async with HttpTransport(settings(**changed)) as fetcher, asyncio.timeout(60):
            return await asyncio.gather(*(patiently(fetcher, url) for url in urls))

    return asyncio.run(go())
