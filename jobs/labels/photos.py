"""Photos of listings as files, fetched by the job's own transport."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from enrich.atomic import new_file, writing
from enrich.photos.open import open_transport
from enrich.photos.transport import Paused, PhotoTransport
from enrich.records import Fetched, PhotoStatus
from enrich.settings import Settings
from enrich.source.portal import Source
from enrich.state.labels import Place

LISTINGS = 100  # read from the portal at once
PATIENCE = 3  # pauses of its host that a photo waits out
_BEGINNINGS = {b"\xff\xd8": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}  # of what is decoded


@dataclass(slots=True)
class Saved:
    """Photos that lie in a folder now: sha256 -> file name; and why others do not."""

    names: dict[str, str] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)


def save_photos(settings: Settings, source: Source, wanted: Mapping[str, Place], folder: Path) -> Saved:
    """Have photos lie in `folder`, named by their sha256; what lies there already is not fetched.

    `wanted`: sha256 -> where it is shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = Saved({path.stem: path.name for path in folder.iterdir() if path.stem in wanted})
    missing = {sha: place for sha, place in wanted.items() if sha not in saved.names}
    if missing:
        asyncio.run(_fetch_all(settings, source, missing, folder, saved))
    return saved


async def _fetch_all(
    settings: Settings, source: Source, wanted: Mapping[str, Place], folder: Path, saved: Saved
) -> None:
    keys = {(place.listing, place.key): sha for sha, place in wanted.items()}
    places = asyncio.Semaphore(settings.fetch_concurrency)
    async with open_transport(settings) as transport:
        holders = sorted({id for id, _ in keys})
        for start in range(0, len(holders), LISTINGS):
            ids = holders[start : start + LISTINGS]
            urls = {
                keys[listing.id, photo.key]: photo.url
                for listing in await asyncio.to_thread(source.photos, ids)
                for photo in listing.photos
                if (listing.id, photo.key) in keys
            }
            jobs = [_fetch(transport, url, sha, folder, places, saved) for sha, url in urls.items()]
            await asyncio.gather(*jobs)
    left = len(wanted) - len(saved.names.keys() & wanted.keys()) - saved.failures.total()
    if left:
        saved.failures["not among the listing's photos any more"] += left


async def _fetch(
    transport: PhotoTransport, url: str, sha: str, folder: Path, places: asyncio.Semaphore, saved: Saved
) -> None:
    async with places:
        found = await _patiently(transport, url)
    if found.body is None:
        saved.failures[found.status.value] += 1
    elif found.sha256 != sha:
        saved.failures["shows other bytes by now"] += 1
    else:
        kind = next(kind for beginning, kind in _BEGINNINGS.items() if found.body.startswith(beginning))
        name = f"{sha}.{kind}"
        with writing(str(folder / name)), new_file(folder / name) as part:
            part.write_bytes(found.body)
        saved.names[sha] = name


async def _patiently(transport: PhotoTransport, url: str) -> Fetched:
    for _ in range(PATIENCE):
        found = await transport.fetch(url)
        if isinstance(found, Fetched):
            return found
        await asyncio.sleep(found.seconds)
    refusal = found.refusal if isinstance(found, Paused) else None
    return refusal or Fetched(PhotoStatus.THROTTLED)
