"""What passes between the stages: small frozen records, no behaviour beyond reading them.

Ids are the portal's listing ids as text. A *URL key* is the sha256 (hex) of the stripped URL, see
`enrich.source.urls`. Scores are logits per head, before temperature: a new one needs no new scoring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = Mapping[str, tuple[float, ...]]
"""Head name -> its logits."""


@dataclass(frozen=True, slots=True)
class Output:
    """What one member of a bundle makes of one photo."""

    scores: Scores
    features: NDArray[np.float32]
    """The backbone's pooled features [features], as the heads see them."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """A photo's features as they are kept; packed and unpacked by `enrich.model.features`.

    `data` holds little-endian float16, or int8 in units of `scale`.
    """

    kind: str
    scale: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """Kept features of some photos, all of one kind."""

    kind: str
    shas: Sequence[str]
    hashes: Sequence[int]
    scales: Sequence[float]
    data: bytes
    """One photo's after another's."""


class PhotoStatus(StrEnum):
    """How one photo ended. The value is what documents, state and `enrich show` call it."""

    OK = "ok"
    UNCHANGED = "unchanged"  # 304: the bytes we have are still the photo

    # Transient: tried again later.
    DNS = "dns"
    CONNECT = "connect"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    THROTTLED = "throttled"  # 429
    SERVER_ERROR = "server_error"  # 5xx
    NOT_FOUND = "not_found"  # 404: transient the first time, permanent when it lasts
    REFUSED = "refused"  # 401, 403 and other 4xx: as NOT_FOUND

    # Permanent: not asked for again until its version, or the listing, changes.
    GONE = "gone"  # 410
    BAD_URL = "bad_url"
    FORBIDDEN_ADDRESS = "forbidden_address"  # by the settings: looked at anew with its listing
    TOO_MANY_REDIRECTS = "too_many_redirects"
    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"

    @property
    def ok(self) -> bool:
        """The photo's bytes are known and usable."""
        return self in (PhotoStatus.OK, PhotoStatus.UNCHANGED)

    def transient(self, earlier_failures: int = 0) -> bool:
        """Whether to try again, given how many tries in a row failed before this one."""
        return earlier_failures == 0 if self in MAY_LAST else self in _TRANSIENT


MAY_LAST = frozenset({PhotoStatus.NOT_FOUND, PhotoStatus.REFUSED})
"""Failures that may pass the first time, and count as lasting when they come twice in a row."""
_TRANSIENT = frozenset(
    {
        PhotoStatus.DNS,
        PhotoStatus.CONNECT,
        PhotoStatus.TIMEOUT,
        PhotoStatus.CONNECTION_LOST,
        PhotoStatus.THROTTLED,
        PhotoStatus.SERVER_ERROR,
    }
)


@dataclass(frozen=True, slots=True)
class Validators:
    """HTTP validators of a photo's last good answer, sent back as If-None-Match / If-Modified-Since."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Photo:
    """One row of the portal's image table. `url` is requested; only `shown_url` is ever written down."""

    position: int
    url: str
    key: str
    shown_url: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A listing leased to this process. `requested` moves whenever something asks for the listing again."""

    id: str
    token: str
    requested: int
    revalidate: bool
    photo_fp_done: str | None = None
    """What its last completion was made from (`ListingPhotos.photo_fp`); None before the first."""


@dataclass(frozen=True, slots=True)
class ListingPhotos:
    """A claimed listing's photos as the source has them now, read in one statement with their fingerprint."""

    id: str
    photo_fp: str
    updated_at: datetime | None
    photos: tuple[Photo, ...]


@dataclass(frozen=True, slots=True)
class PhotoState:
    """What we know of a URL key from earlier: the row of table `photo`."""

    key: str
    status: PhotoStatus
    sha256: str | None
    version: str | None
    validators: Validators
    failures: int
    retry_due: bool
    """A failure whose next try is due (by the database's clock)."""
    error: str | None
    checked_at: datetime | None = None
    """When it was last asked for."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to one photo request. `body` is set exactly when `status` is OK."""

    status: PhotoStatus
    body: bytes | None = None
    sha256: str | None = None
    validators: Validators = field(default_factory=Validators)
    error: str | None = None
    """For people: what happened, without the URL's query."""
    bytes_read: int = 0


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels for the model: one uint8 array (height, width, 3) per distinct preprocessing of the bundle.

    `status` is OK and `pixels` complete, or a permanent failure and `pixels` empty. `dhash` is the 64-bit
    difference hash of the upright picture, as a signed integer, for near-duplicates.
    """

    status: PhotoStatus
    pixels: tuple[NDArray[np.uint8], ...] = ()
    dhash: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PhotoScore:
    """Scores of some bytes by all members of a bundle."""

    sha256: str
    dhash: int
    by_model: Mapping[str, Scores]
    """model_id -> scores of that member's heads."""
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    """feature_id -> features to be kept. Only where the photo was just scored; never read back from state."""
    on_record: bool = field(default=False, compare=False)
    """Read from state as it is: there is nothing to save."""


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """How one photo of one listing ended: what `aggregate` reads and `state` writes down."""

    photo: Photo
    status: PhotoStatus
    sha256: str | None = None
    score: PhotoScore | None = None
    """Set when `status.ok`; for a transient failure, the scores of earlier bytes, where there are some."""
    validators: Validators = field(default_factory=Validators)
    error: str | None = None
    requested: bool = False
    """It was to be asked for in this run: state's row of the URL key is to be updated."""
    left_alone: bool = False  # no request was made after all: its host was paused to the end
    failures: int = 0
    """Tries in a row that failed, this one included."""

    @property
    def transient(self) -> bool:
        return self.status.transient(self.failures - 1)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The photo that decided an attribute."""

    url: str
    position: int
    confidence: float


WhichPhoto = tuple[int | None, str | None]


def which_photo(told: Mapping[str, Any]) -> WhichPhoto:
    """Which of a listing's photos is meant: by position and URL, since photos may share a position.

    `told` is a photo or evidence as JSON; evidence that names no photo is about none.
    """
    return told.get("position"), told.get("url")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the model says of a listing, before overrides.

    `fields` holds what each head's kind says: `has_X` (True, False or None = unknown) and `X_confidence`
    (float, or None when no photo was seen), or `X_types` (sorted list); `counts` holds `X_counts`: photos per
    class, near-duplicates once.
    """

    fields: Mapping[str, Any]
    evidence: Mapping[str, Evidence]
    counts: Mapping[str, Mapping[str, int]]
    photo_count: int
    photos_seen: int
    photos_failed: int


@dataclass(frozen=True, slots=True)
class ListingResult:
    """One enriched listing, to be completed in state."""

    claim: Claim
    source: ListingPhotos
    results: tuple[PhotoResult, ...]
    attributes: Attributes
    bundle_id: str


class WriteStatus(StrEnum):
    """How one document write ended."""

    DONE = "done"
    AWAITING = "awaiting"  # merge mode: the portal has no such document yet
    REFUSED = "refused"  # the index rejected this document; others are unaffected
    OUTDATED = "outdated"  # the index holds a higher revision than ours
    RETRY = "retry"  # passing: 429, 503, lost connection


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """One document to put (`document` set) or take away (`document` None) at `revision`."""

    id: str
    revision: int
    document: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class WriteResult:
    id: str
    revision: int
    status: WriteStatus
    error: str | None = None
    index_revision: int | None = None  # with OUTDATED: the one that the index holds
    absent: bool = False  # with DONE: there was no document (or nothing of ours in it) to take away
