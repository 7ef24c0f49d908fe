"""Fetch: a photo's bytes over HTTP, from hosts that may be slow, broken or hostile.

One `HttpTransport` serves a whole run: it keeps connections open, limits the requests under way in all and
per host, and leaves a host alone that said `Retry-After`. Whatever a photo does is a `PhotoStatus`, never an
exception.
"""

import asyncio
import errno
import os
import socket
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import aiohttp
from yarl import URL

from enrich.errors import SettingsError
from enrich.photos.addresses import AllowedHosts, BadUrlError, photo_url
from enrich.photos.hosts import HostLimits, retry_after
from enrich.photos.transport import Paused, received
from enrich.records import Fetched, PhotoStatus, Validators
from enrich.settings import Settings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REFUSALS = {
    404: PhotoStatus.NOT_FOUND,
    408: PhotoStatus.TIMEOUT,
    410: PhotoStatus.GONE,
    429: PhotoStatus.THROTTLED,
}
_PAUSE_UNSAID = 2.0  # after a 429 that does not say how long
_LONGEST_HEADER = 512

_HEADERS = {
    "Accept": "image/jpeg, image/png, image/webp, */*;q=0.1",
    "Accept-Encoding": "identity",  # photos are compressed already
}


@dataclass(slots=True)
class _Connecting:
    """The addresses tried for one request: the socket factory is told an address, not for whom."""

    host: str
    refused: str | None = None
    tried: bool = False


_connecting: ContextVar[_Connecting] = ContextVar("_connecting")


@dataclass(slots=True)
class _Trip:
    """What one photo may still spend, over all its redirects; waiting for a slot is free."""

    validators: Validators
    seconds: float
    redirects: int
    host: str | None = None
    """The photo's own, where the trip began."""
    bytes_read: int = 0
    redirected: bool = False

    @property
    def conditions(self) -> dict[str, str]:
        """A date says nothing of the file at another URL, which is taken for unchanged if it is no newer."""
        sent = {"If-None-Match": self.validators.etag}
        if not self.redirected:
            sent["If-Modified-Since"] = self.validators.last_modified
        return {name: value for name, value in sent.items() if value}


class HttpTransport:
    """Fetches photos as the settings allow; an async context manager.

    Raises:
        SettingsError: `ENRICH_ALLOWED_PRIVATE_HOSTS` or `ENRICH_USER_AGENT` cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._allowed = AllowedHosts(settings.allowed_private_hosts)
        if not _sendable(settings.user_agent):
            raise SettingsError("ENRICH_USER_AGENT: printable ASCII, 512 characters at most, can be sent")
        self._limits = HostLimits(settings.fetch_concurrency, settings.fetch_per_host)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # The limits are in `HostLimits`.
            connector=aiohttp.TCPConnector(limit=0, socket_factory=self._open_socket, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**_HEADERS, "User-Agent": self._settings.user_agent},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.fetch_connect_timeout),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fetch(self, url: str, validators: Validators | None = None) -> Fetched | Paused:
        """Ask for one photo; with validators, only if it changed.

        Redirects are followed, each checked like the first URL; from https to http as well, since photos are
        no secrets. A 429, or a 503 with `Retry-After`, pauses its host: it is not asked for any photo
        until the pause is over.
        """
        settings = self._settings
        trip = _Trip(validators or Validators(), settings.fetch_timeout, settings.fetch_max_redirects)
        try:
            answer: Fetched | Paused | URL = photo_url(url)
            while isinstance(answer, URL):
                answer = await self._ask_in_slot(answer, trip)
            return answer
        except BadUrlError as error:
            return Fetched(PhotoStatus.BAD_URL, error=str(error))

    async def _ask_in_slot(self, url: URL, trip: _Trip) -> Fetched | Paused | URL:
        host = url.raw_authority
        trip.host = trip.host or url.raw_host
        elsewhere = url.raw_host != trip.host
        async with self._limits.take(host) as pause:
            if pause > 0:
                return Paused(pause, elsewhere=elsewhere)
            answer = await self._ask(url, trip)
            if isinstance(answer, Paused):
                return Paused(self._limits.pause(host, answer.seconds), answer.refusal, elsewhere)
            return answer

    async def _ask(self, url: URL, trip: _Trip) -> Fetched | Paused | URL:
        """One request: how the photo ends, or the URL that the answer redirects to.

        `Paused` as the host asks for it, whatever it asked for before.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        connecting = _Connecting(url.raw_host or "")
        token = _connecting.set(connecting)
        try:
            async with (
                asyncio.timeout(trip.seconds),
                self._session.get(url, headers=trip.conditions, allow_redirects=False) as response,
            ):
                return await self._read(response, trip)
        except (TimeoutError, OSError, UnicodeError, aiohttp.ClientError) as error:
            status, text = self._failure(error, connecting)
            return Fetched(status, error=text, bytes_read=trip.bytes_read)
        finally:
            _connecting.reset(token)
            trip.seconds -= loop.time() - started

    def _open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, (address, *_) = info
        connecting = _connecting.get()
        if not self._allowed.allow(connecting.host, address):
            connecting.refused = address
            raise OSError(errno.EACCES, f"{address} is not a public address")
        connecting.tried = True
        return socket.socket(family, kind, protocol)

    async def _read(self, response: aiohttp.ClientResponse, trip: _Trip) -> Fetched | Paused | URL:
        if response.status in _REDIRECTS:
            return _redirected(response, trip)
        if response.status == 304 and trip.conditions:
            return Fetched(PhotoStatus.UNCHANGED, validators=_validators(response, trip, trip.validators))
        if not 200 <= response.status < 300:
            return _refusal(response)
        body = await self._body(response, trip)
        host, stated = response.url.host, response.content_length or 0
        if not (body or stated):
            return Fetched(PhotoStatus.EMPTY, error=f"{host}: HTTP {response.status} without a body")
        validators = _validators(response, trip, Validators())
        return received(body, stated, self._settings.fetch_max_bytes, f"{host}: the file", validators)

    async def _body(self, response: aiohttp.ClientResponse, trip: _Trip) -> bytearray:
        """The body, or so much of it as tells that it is too large: none where its header says so."""
        most = self._settings.fetch_max_bytes
        body = bytearray()
        if (response.content_length or 0) <= most:
            async for chunk in response.content.iter_any():
                body += chunk
                trip.bytes_read += len(chunk)
                if len(body) > most:
                    break
        return body

    def _failure(self, error: Exception, connecting: _Connecting) -> tuple[PhotoStatus, str]:
        """What a failed request comes to; the one place that knows the errors of the HTTP library."""
        host, settings = connecting.host, self._settings
        match error:
            case aiohttp.ClientConnectorDNSError():
                return PhotoStatus.DNS, f"{host}: the name cannot be resolved"
            case aiohttp.ClientConnectorError() if connecting.refused and not connecting.tried:
                where = host if host == connecting.refused else f"{host}: {connecting.refused}"
                text = f"{where} is neither public nor in ENRICH_ALLOWED_PRIVATE_HOSTS"
                return PhotoStatus.FORBIDDEN_ADDRESS, text
            case aiohttp.ClientConnectorError():
                return PhotoStatus.CONNECT, f"{host}: {_why_not_connected(error)}"
            case aiohttp.ConnectionTimeoutError():
                text = f"{host}: no connection within {settings.fetch_connect_timeout:g} s"
                return PhotoStatus.CONNECT, text
            case TimeoutError():
                return PhotoStatus.TIMEOUT, f"{host}: not done within {settings.fetch_timeout:g} s"
            case aiohttp.InvalidURL() | UnicodeError():
                return PhotoStatus.BAD_URL, f"{host}: not a host that can be asked"
            case aiohttp.ClientResponseError():
                return PhotoStatus.SERVER_ERROR, f"{host}: the answer is not proper HTTP"
            case _:
                return PhotoStatus.CONNECTION_LOST, f"{host}: the answer broke off, or its body is garbled"


def _why_not_connected(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientSSLError):
        # Its number is one of OpenSSL's, not of the system's errors.
        reasons = (getattr(error.os_error, name, None) for name in ("verify_message", "reason"))
        return f"no TLS connection ({next(filter(None, reasons), 'it failed')})"
    return f"no connection ({os.strerror(error.errno) if error.errno else 'it failed'})"


def _redirected(response: aiohttp.ClientResponse, trip: _Trip) -> Fetched | URL:
    host = response.url.host
    location = response.headers.get("Location")
    if location is None:
        text = f"{host}: HTTP {response.status} without a Location"
        return Fetched(PhotoStatus.SERVER_ERROR, error=text)
    if trip.redirects == 0:
        text = f"{host}: more redirects than ENRICH_FETCH_MAX_REDIRECTS"
        return Fetched(PhotoStatus.TOO_MANY_REDIRECTS, error=text)
    trip.redirects -= 1
    trip.redirected = True
    try:
        return photo_url(location, base=response.url)
    except BadUrlError as error:
        raise BadUrlError(f"{host}: redirected where no photo can be: {error}") from None


def _refusal(response: aiohttp.ClientResponse) -> Fetched | Paused:
    code = response.status
    refusal = Fetched(status_of(code), error=f"{response.url.host}: HTTP {code}")
    pause = None
    if code in (429, 503):
        pause = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    if code == 429 and pause is None:
        pause = _PAUSE_UNSAID
    return refusal if pause is None else Paused(pause, refusal)


def status_of(code: int) -> PhotoStatus:
    """What an HTTP status that brings no photo comes to."""
    return _REFUSALS.get(code, PhotoStatus.REFUSED if 400 <= code < 500 else PhotoStatus.SERVER_ERROR)


def _validators(response: aiohttp.ClientResponse, trip: _Trip, known: Validators) -> Validators:
    """The answer's validators, or the known ones where it has none that can be kept and sent back."""
    etag, last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    found = Validators(
        etag if etag and _sendable(etag) else known.etag,
        last_modified if last_modified and _sendable(last_modified) else known.last_modified,
    )
    return replace(found, last_modified=None) if trip.redirected else found


def _sendable(value: str) -> bool:
    return len(value) <= _LONGEST_HEADER and value.isascii() and value.isprintable()
