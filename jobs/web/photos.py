"""Photos as the page shows them: fetched as the job fetches them, decoded, written anew, kept in a folder.

Only photos that state holds are asked for, so nobody has the page fetch an address of his own. No byte of a
photo host reaches a browser.
"""

import asyncio
import io
import logging
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from threading import Lock

from fastapi.concurrency import run_in_threadpool
from PIL import Image

from enrich.errors import UsageError
from enrich.photos.decode import Fit, decode
from enrich.photos.transport import Paused, PhotoTransport
from enrich.records import PhotoStatus
from enrich.state.photos import holders
from jobs.run.services import Services

QUALITY = {320: 80, 1280: 85}  # of the JPEGs, by size
SIZES = tuple(QUALITY)
"""Pixels of a picture's longer side."""
AT_ONCE = 8  # photos that are fetched
DECODED_AT_ONCE = 2
HOLDERS = 5  # listings whose rows at the portal are looked at for a photo's address
FAILED_FOR = 60.0  # seconds after which a photo that could not be had is asked for again
MOST_FAILED = 10_000
_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[0-9a-f]{40}-[0-9a-f]{1,16}-\d+\.jpg")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """A JPEG, or why there is none: `status` is 200, 404 (there is none) or 502 (not now)."""

    status: int
    jpeg: bytes = b""
    reason: str = ""


class Photos:
    """Thumbnails of the photos that state knows. `transport` is open when one is asked for.

    Raises:
        UsageError: the folder that keeps them cannot be used.
    """

    def __init__(self, services: Services, transport: PhotoTransport) -> None:
        settings = services.settings
        self._services, self._transport = services, transport
        folder = (settings.photo_cache or settings.cache_folder / "photos").expanduser()
        self._kept = Folder(folder, settings.photo_cache_bytes)
        self._fetching = asyncio.Semaphore(AT_ONCE)
        self._decoding = asyncio.Semaphore(DECODED_AT_ONCE)
        self._under_way: dict[str, asyncio.Lock] = {}
        self._failed: dict[str, tuple[float, Shown]] = {}

    async def show(self, key: str, size: int, version: str = "") -> Shown:
        """The photo of a URL key, its longer side one of `SIZES`; `version`: how its sha256 begins."""
        if not _KEY.fullmatch(key):
            return Shown(404, reason="no photo has this key")
        known = (await run_in_threadpool(self._services.queue.photo_states, [key])).get(key)
        if known is None or known.sha256 is None:
            return Shown(404, reason="no photo was seen under this key")
        if not known.sha256.startswith(version):
            return Shown(404, reason="other bytes were seen there since")
        name = f"{key[:40]}-{known.sha256[:16]}"  # other bytes are another file
        if (kept := await run_in_threadpool(self._kept.read, f"{name}-{size}.jpg")) is not None:
            return Shown(200, kept)
        lock = self._under_way.setdefault(name, asyncio.Lock())
        try:
            async with lock, self._fetching:
                return await self._made(key, known.sha256, name, size)
        finally:
            if not lock.locked():
                self._under_way.pop(name, None)

    async def _made(self, key: str, sha256: str, name: str, size: int) -> Shown:
        """The photo from the folder, where another request has put it meanwhile, or from its host."""
        if (kept := await run_in_threadpool(self._kept.read, f"{name}-{size}.jpg")) is not None:
            return Shown(200, kept)
        failed_at, failed = self._failed.get(name, (0.0, None))
        if failed is not None and time.monotonic() - failed_at < FAILED_FOR:
            return failed
        fetched = await self._fetched(key, sha256)
        if isinstance(fetched, Shown):
            if len(self._failed) >= MOST_FAILED:
                self._failed.clear()
            self._failed[name] = time.monotonic(), fetched
            return fetched
        for other, jpeg in fetched.items():
            await run_in_threadpool(self._kept.write, f"{name}-{other}.jpg", jpeg)
        return Shown(200, fetched[size])

    async def _fetched(self, key: str, sha256: str) -> dict[int, bytes] | Shown:
        """The photo in all sizes, if it has the bytes that the model saw: what it says is said of these."""
        url = await run_in_threadpool(self._url, key)
        if url is None:
            return Shown(404, reason="no listing on the market has this photo any more")
        answer = await self._transport.fetch(url)
        if isinstance(answer, Paused):
            return Shown(502, reason="the photo host wants to be left alone for now")
        if answer.body is None:
            return Shown(502 if answer.status.transient() else 404, reason=answer.error or answer.status)
        if answer.sha256 != sha256:
            return Shown(404, reason="its host shows other bytes by now")
        async with self._decoding:
            return await run_in_threadpool(thumbnails, answer.body, self._services.settings.max_pixels)

    def _url(self, key: str) -> str | None:
        """Where the photo is asked for now: the portal may sign its addresses anew every night."""
        database = self._services.database
        listings = database.run(lambda connection: holders(connection, key, HOLDERS))
        found = self._services.source.photos(listings)
        return next((photo.url for one in found for photo in one.photos if photo.key == key), None)


def thumbnails(data: bytes, max_pixels: int) -> dict[int, bytes] | Shown:
    """A photo's file as JPEGs by size, with nothing in them but pixels."""
    decoded = decode(data, [Fit(size) for size in SIZES], max_pixels)
    if decoded.status is not PhotoStatus.OK:
        return Shown(404, reason=decoded.error or decoded.status)
    made = {}
    for size, pixels in zip(SIZES, decoded.pixels, strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY[size], optimize=True, progressive=True)
        made[size] = file.getvalue()
    return made


class Folder:
    """Files in a folder, at most so many bytes of them: what was not read for longest goes first.

    Several processes may share one. A folder that cannot be used keeps nothing, and says so once.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path, self._most = path, most_bytes
        self._lock = Lock()
        self._told = False
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._bytes = sum(size for _, size, _ in self._files())
        except OSError as error:
            raise UsageError(
                f"the page keeps its photos in {path}, which cannot be used ({error.strerror}): set "
                "ENRICH_PHOTO_CACHE to a folder that may be written to"
            ) from None

    def read(self, name: str) -> bytes | None:
        path = self._path / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # taken away meanwhile, or another user's
            os.utime(path)
        return data

    def write(self, name: str, data: bytes) -> None:
        """Keep a file; the oldest make room for it."""
        with self._lock:
            part = self._path / f".{name}.{token_hex(4)}.part"  # another process may write the same photo
            try:
                part.write_bytes(data)
                part.replace(self._path / name)
            except OSError as error:
                with suppress(OSError):
                    part.unlink()
                if not self._told:
                    log.warning(
                        "photos are not kept: %s cannot be written to (%s)", self._path, error.strerror
                    )
                self._told = True
                return
            self._bytes += len(data)
            if self._bytes > self._most:
                self._make_room()

    def _make_room(self) -> None:
        """Down to nine tenths, so that not every photo has the folder read."""
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._bytes <= self._most * 0.9:
                return
            with suppress(OSError):
                path.unlink()
            self._bytes -= size

    def _files(self) -> Iterable[tuple[int, int, Path]]:
        """(when it was read last, bytes, path) of each of our files; others are not ours to remove."""
        for path in self._path.glob("*.jpg"):
            if not _NAME.fullmatch(path.name):
                continue
            with suppress(OSError):  # another process took it away
                told = path.stat()
                yield told.st_mtime_ns, told.st_size, path
