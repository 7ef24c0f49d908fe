"""Photos in object stores: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

`s3://bucket/key`, `gs://bucket/key` and `az://container/key`, read through `obstore`, which finds
credentials, region and endpoint in its own environment variables (`AWS_…`, `GOOGLE_…`, `AZURE_…`). What may
be read lies in a bucket, or a folder of one, that `ENRICH_ALLOWED_STORES` names.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from enrich.errors import SettingsError
from enrich.photos.addresses import BadUrlError, stored_url
from enrich.photos.http import status_of
from enrich.photos.transport import received
from enrich.records import Fetched, PhotoStatus, Validators
from enrich.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

SCHEMES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""Scheme -> how the environment variables of its credentials begin."""

_RETRIES = 2
_BLOCK = 1 << 16  # bytes
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}")
# How obstore's errors tell what happened: an HTTP status, or the kind of failure before there was one.
_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")
_NOWHERE = "redirect without LOCATION"
"""How S3 answers for a bucket that lies in another region."""


class ObjectStoreTransport:
    """Reads photos from the allowed buckets; an async context manager.

    `obstore` is imported with the first photo. A bucket's client is made once and tries a request that failed
    for a passing reason again, at most twice, within the photo's time.

    Raises:
        SettingsError: an entry of `ENRICH_ALLOWED_STORES` names no bucket.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._allowed = _allowed(settings.allowed_stores)
        self._stores: dict[str, ObjectStore] = {}

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(self._settings.fetch_concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stores.clear()

    async def fetch(self, url: str, validators: Validators | None = None) -> Fetched:
        """Ask for one photo; with an ETag, only if it changed. Waiting for a slot costs it no time."""
        try:
            bucket, key = _place(url)
        except BadUrlError as error:
            return Fetched(PhotoStatus.BAD_URL, error=str(error))
        if not any(f"{bucket}/{key}".startswith(folder) for folder in self._allowed):
            text = f"{bucket}: neither the bucket nor the object's folder is in ENRICH_ALLOWED_STORES"
            return Fetched(PhotoStatus.FORBIDDEN_ADDRESS, error=text)
        seconds = self._settings.fetch_timeout
        try:
            async with self._slots, asyncio.timeout(seconds):
                return await self._ask(bucket, key, (validators or Validators()).etag)
        except ImportError:
            text = "reading from object stores needs obstore: pip install 'listing-enrichment[cloud]'"
            return Fetched(PhotoStatus.CONNECT, error=text)
        except TimeoutError:
            return Fetched(PhotoStatus.TIMEOUT, error=f"{bucket}: not done within {seconds:g} s")

    async def _ask(self, bucket: str, key: str, etag: str | None) -> Fetched:
        from obstore.exceptions import BaseError, NotModifiedError

        try:
            store = self._stores.get(bucket) or self._open(bucket)
        except (BaseError, ValueError):  # its text may quote a credential
            variables = SCHEMES[bucket.partition(":")[0]]
            text = f"{bucket}: cannot be opened with the environment variables {variables}_… as they are"
            return Fetched(PhotoStatus.CONNECT, error=text)
        try:
            return await self._read(store, bucket, key, etag)
        except NotModifiedError:
            return Fetched(PhotoStatus.UNCHANGED, validators=Validators(etag))
        except (BaseError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            status, text = _failure(error)
            return Fetched(status, error=f"{bucket}: {text}")

    def _open(self, bucket: str) -> "ObjectStore":
        from obstore.store import AzureStore, GCSStore, S3Store

        retries: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=self._settings.fetch_timeout),
        }
        scheme, _, name = bucket.partition("://")
        stores = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
        # No `client_options`: they would displace those of the environment, such as AWS_ALLOW_HTTP.
        store: ObjectStore = stores[scheme](name, retry_config=retries)
        self._stores[bucket] = store
        return store

    async def _read(self, store: "ObjectStore", bucket: str, key: str, etag: str | None) -> Fetched:
        found = await store.get_async(key, options={"if_none_match": etag} if etag else {})
        most = self._settings.fetch_max_bytes
        body = bytearray()
        if found.meta["size"] <= most:
            async for block in found.stream(min_chunk_size=_BLOCK):
                body += block
                if len(body) > most:
                    break
        validators = Validators(found.meta["e_tag"])
        return received(body, found.meta["size"], most, f"{bucket}: the object", validators)


def _place(url: str) -> tuple[str, str]:
    """(scheme://bucket, key) of an object's URL."""
    scheme = url.strip(" ").partition("://")[0].lower()
    bucket, path = stored_url(url)
    if not _BUCKET.fullmatch(bucket):
        raise BadUrlError(f"the URL's bucket is not a name such as {scheme}://photos/…")
    try:
        key = path.decode()
    except UnicodeDecodeError:
        raise BadUrlError("the object's key is not UTF-8") from None
    if not all(part not in ("", ".", "..") for part in key.split("/")):
        raise BadUrlError("the object's key has a part that is empty or consists of dots")
    return f"{scheme}://{bucket}", key


def _allowed(entries: Sequence[str]) -> tuple[str, ...]:
    """The allowed folders as `scheme://bucket/` or `scheme://bucket/folder/`."""
    folders = []
    for entry in entries:
        scheme, mark, rest = entry.partition("://")
        bucket, _, folder = rest.partition("/")
        if scheme not in SCHEMES or not mark or not _BUCKET.fullmatch(bucket):
            raise SettingsError(
                f"ENRICH_ALLOWED_STORES: {entry!r} names no bucket; write s3://bucket, gs://bucket, "
                "az://container, or a folder in one, such as s3://bucket/listings"
            )
        folders.append("/".join(filter(None, (f"{scheme}://{bucket}", folder.strip("/")))) + "/")
    return tuple(folders)


def _failure(error: Exception) -> tuple[PhotoStatus, str]:
    """What a failed request comes to; the one place that knows obstore's errors.

    Their texts are not shown: they carry whole answers, and may carry credentials.
    """
    if found := _STATUS.search(str(error)):
        return status_of(int(found[1])), f"HTTP {found[1]}"
    if _NOWHERE in str(error):
        return PhotoStatus.CONNECT, "the bucket is in another region; set AWS_REGION, or AWS_ENDPOINT"
    kind = _KIND.search(str(error))
    match kind and kind[1]:
        case "Connect":
            return PhotoStatus.CONNECT, "no connection to the store"
        case "Timeout":
            return PhotoStatus.TIMEOUT, "the store gave no answer in time"
        case _:
            return PhotoStatus.CONNECTION_LOST, "the store's answer broke off, or is not proper HTTP"
