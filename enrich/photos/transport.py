"""Where photos come from: the protocol that every transport keeps."""

from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Protocol, Self

from enrich.records import Fetched, PhotoStatus, Validators


@dataclass(frozen=True, slots=True)
class Paused:
    """The photo's host wants to be left alone for `seconds` from now."""

    seconds: float
    refusal: Fetched | None = None
    """How the photo ends unless it is asked for again; None: it was not asked for at all."""
    elsewhere: bool = False
    """Whether it is another host, to which the photo's own has redirected: that one can be asked."""


class PhotoTransport(Protocol):
    """Fetches photos' bytes; an async context manager that serves a whole run.

    Whatever one photo does is a `PhotoStatus`, never an exception. A transport keeps to the caps of the
    settings: `ENRICH_FETCH_MAX_BYTES`, and `ENRICH_FETCH_TIMEOUT` for one photo from its request to its last
    byte. It reads only what the settings allow to be read. Error texts are for people and carry no secrets:
    no query of a URL, no credentials.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def fetch(self, url: str, validators: Validators | None = None) -> Fetched | Paused:
        """One photo's bytes; with validators, `UNCHANGED` where it is still the photo that they came with.

        `Paused` at once where the host asked to be left alone: the caller keeps no place for the photo
        meanwhile, waits, and asks again, or takes the refusal for the answer.
        """


def received(body: bytes | bytearray, stated: int, most: int, what: str, validators: Validators) -> Fetched:
    """What came of a photo that was read whole, or until it had more than `most` bytes.

    Args:
        body: what was read; nothing need be, where the size that is `stated` says enough.
        stated: bytes, by its source.
        what: how people are told of it.
    """
    if max(stated, len(body)) > most:
        text = f"{what} is larger than ENRICH_FETCH_MAX_BYTES ({most} bytes)"
        return Fetched(PhotoStatus.TOO_MANY_BYTES, error=text, bytes_read=len(body))
    if not body:
        return Fetched(PhotoStatus.EMPTY, error=f"{what} is empty")
    digest = sha256(body).hexdigest()
    return Fetched(PhotoStatus.OK, bytes(body), digest, validators, bytes_read=len(body))
