"""The search index behind one protocol: Elasticsearch in `own` and `merge` mode, and the embedded one."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from enrich.records import DocumentWrite, WriteResult, WriteStatus


@dataclass(frozen=True, slots=True)
class Query:
    """What a buyer filters by: every `has` head true, every room type present, every column equal, …"""

    has: tuple[str, ...] = ()
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Multiclass head name -> classes that must all be present, e.g. {"room": ("kitchen",)}."""
    where: Mapping[str, str] = field(default_factory=dict)
    limit: int = 20
    lacks: tuple[str, ...] = ()
    """Heads that must be false."""
    unknown: tuple[str, ...] = ()
    """Heads that must be neither true nor false."""
    between: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """A column's least and greatest number, None where there is no bound."""
    sort: str | None = None
    """The head whose confidence comes first; without it those of `has`."""
    offset: int = 0
    """Hits that are passed over."""


@dataclass(frozen=True, slots=True)
class Hits:
    total: int
    documents: tuple[Mapping[str, Any], ...]
    """Whole documents, most confident first (by the confidences of the heads asked for)."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """The body of the same search at Elasticsearch."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a copied column holds, as a filter: its values, or its least and greatest number."""

    kind: str
    """keyword, boolean or number."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Value ("true" and "false" where they are boolean) -> documents, most first, at most `MOST_VALUES`."""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Facets:
    """How many documents each filter would leave, with the query's other filters as they are."""

    answers: Mapping[str, Mapping[bool | None, int]]
    """Yes-or-no head -> answer (None: unknown) -> documents."""
    types: Mapping[str, Mapping[str, int]]
    """Head with classes -> class -> documents that have it and all that is asked, most first."""
    columns: Mapping[str, Column]
    """Copied column -> what it holds."""


class SearchIndex(Protocol):
    """What publishing and searching need of an index.

    Passing failures (no connection, 429, 503) of a whole call raise `IndexUnavailable`; the caller decides
    how long to wait. A failure of one document is a `WriteResult`. An index that vanishes while it is written
    to raises `IndexLost`.
    """

    def prepare(self) -> str:
        """Create or verify index, alias and mapping; return the identity (UUID) of the index written to.

        Raises:
            IndexSetupError: the index cannot be used as set up.
        """

    def identity(self) -> str | None:
        """What `prepare` would return, writing nothing; None where it would make an index.

        Raises:
            IndexSetupError: no one index is there to write to.
        """

    def check(self) -> list[str]:
        """Verify reachability, setup and privileges, writing nothing; return what was found, for people.

        Raises:
            IndexSetupError: the index cannot be used as set up.
        """

    def unmapped(self, columns: Set[str]) -> Set[str]:
        """Those of these copied columns for which it has no field: it refuses documents that have them."""

    def write(self, writes: Sequence[DocumentWrite]) -> list[WriteResult]:
        """Put and take away documents, each at its revision; one result per write, in order."""

    def lost(self) -> Iterator[Sequence[str]]:
        """Ids, in pages, of documents that should carry our fields and do not (merge mode; else none)."""

    def gone(self, uuids: Sequence[str]) -> list[str]:
        """Those of these earlier indices (UUIDs) of the same alias that are there no more."""

    def documents(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Those of these documents that are there now, by id: whole ones, or our fields of the portal's."""

    def ids(self) -> Iterator[Sequence[str]]:
        """Ids, in pages, of all documents that carry our fields."""

    def search(self, query: Query) -> Hits:
        """Answer a buyer's filter.

        Raises:
            UsageError: a name in the query is not a field of the index.
        """

    def facets(self, query: Query) -> Facets:
        """Count what each filter would leave. Raises as `search`."""

    def close(self) -> None:
        """Release connections."""


class Generations(Protocol):
    """The indices of one alias, for `enrich reindex`; failures of a whole call as with `SearchIndex`.

    The caller holds the lock `reindex`, and `publish` where an index takes another's place.
    """

    @property
    def building(self) -> SearchIndex:
        """The index in the making, beside the one that serves; `prepare` makes it."""

    def serving(self) -> tuple[str, str] | None:
        """Name and UUID of the index that serves; None where there is none yet."""

    def held(self, ids: Sequence[str]) -> list[str]:
        """Those of these documents that the index that serves has now."""

    def take_up(self) -> bool:
        """Whether one in the making was left behind that fits the settings; another one is dropped.

        Raises:
            IndexSetupError: what serves is not the job's, and is not to be replaced.
        """

    def drop(self) -> None:
        """Drop the one in the making, where there is one."""

    def count(self) -> int:
        """How many documents a search would find in the one in the making."""

    def swap(self) -> tuple[str, str]:
        """Have the one in the making serve, in one step; its name and UUID."""

    def rollback(self) -> tuple[str, str]:
        """Have the one that served before serve again, in one step; its name and UUID.

        Raises:
            UsageError: none is kept.
        """

    def kept(self, most: int) -> Mapping[str, str]:
        """The indices that served before, at most so many, newest first: name -> UUID."""

    def prune(self, kept: Mapping[str, str]) -> list[str]:
        """Remove all other earlier indices that the job made and that no alias leads to; their names."""

    def contradiction(self) -> str | None:
        """In what the index that serves contradicts the settings, for people; None where it does not."""

    def close(self) -> None:
        """Release connections."""


def ended(
    write: DocumentWrite,
    status: WriteStatus,
    error: str | None = None,
    index_revision: int | None = None,
    *,
    absent: bool = False,
) -> WriteResult:
    """How a write ended."""
    return WriteResult(write.id, write.revision, status, error, index_revision, absent)


class IndexUnavailable(Exception):
    """The index gave no usable answer: no connection, a timeout, 429 or 503."""


class IndexLost(Exception):
    """The index written to is no longer there as `prepare` left it: call `prepare` again."""
