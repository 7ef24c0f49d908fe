"""Mode `own`: an index of our own behind an alias, written with external versions.

The version of a document is its revision in state, so an older write never replaces a newer one, whatever
the order in which they arrive, and a write repeated after a lost answer changes nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any

from enrich.errors import IndexSetupError
from enrich.index.document import encode, mapping
from enrich.index.elastic.query import facets, search
from enrich.index.elastic.reading import fetched, gone, walk
from enrich.index.elastic.server import Found, Refused, Server
from enrich.index.elastic.writing import LONGEST_ID, bulk, compare, failure, made_otherwise, takes_id
from enrich.index.mapping import NOTHING, OWN_SETTINGS, Extras, flat
from enrich.index.protocol import Facets, Hits, IndexLost, IndexUnavailable, Query, ended
from enrich.model.head import Head
from enrich.records import DocumentWrite, WriteResult, WriteStatus

MADE_BY = "listing-enrichment"  # in the mapping's _meta: tells our indices from the portal's
# Settings that an open index keeps as it was made with them (seen on 9.2).
_FIXED = (
    "analysis.",
    "codec",
    "load_fixed_bitset_filters_eagerly",
    "mapping.coerce",
    "mapping.ignore_malformed",
    "mapping.source.",
    "mode",
    "number_of_shards",
    "queries.cache.enabled",
    "routing_partition_size",
    "shard.check_on_startup",
    "similarity.",
    "soft_deletes.enabled",
    "sort.",
    "store.",
)
_UNTOLD = ("number_of_routing_shards",)
_REBUILD = (
    "`enrich reindex` builds another one from state, without fetching or scoring, while this one goes on "
    "serving; or choose another ENRICH_INDEX"
)
_TOMBSTONE = re.compile(r"current version \[(\d+)\]")


class OwnIndex:
    """The alias `alias` and the one index `<alias>-<UTC time>` behind it. See `SearchIndex`."""

    def __init__(
        self,
        server: Server,
        alias: str,
        heads: Sequence[Head],
        copied: Mapping[str, str],
        extras: Extras = NOTHING,
    ) -> None:
        self._server, self._alias = server, alias
        self._heads, self._extras = heads, extras
        self._mapping = mapping(heads, copied)
        self._mapping["properties"].update(extras.properties)
        self._settings = {**extras.settings, **OWN_SETTINGS}
        self._stem = alias  # of the names of indices
        self._meta = {"made_by": MADE_BY}

    def prepare(self) -> str:
        try:
            found = self.found() or self._create()
            missing = self._missing(found)
            if missing or found.mapping.get("dynamic") != "strict":
                marked = {**found.meta, "made_by": MADE_BY}
                self._server.put_mapping(found.name, dynamic="strict", _meta=marked, properties=missing)
            if others := _others(self._settings, found):
                self._server.put_settings(found.name, others)
        except Refused as error:
            raise IndexSetupError(
                f"index {self._alias} cannot be set up: {error.reason}. Correct ENRICH_INDEX_MAPPING or "
                f"ENRICH_INDEX_SETTINGS if they say so. {_REBUILD}"
            ) from None
        return found.uuid

    def identity(self) -> str | None:
        found = self.found()
        return found.uuid if found else None

    def check(self) -> list[str]:
        found = self.found()
        if lacking := self._server.lacking([self._alias, f"{self._alias}-*"], ["read", "write", "manage"]):
            raise IndexSetupError(
                f"the credentials lack {', '.join(lacking)}: grant read, write and manage on "
                f"{self._alias} and {self._alias}-*"
            )
        if found is None:
            return [f"alias {self._alias} is not there yet and will be created"]
        count = self._server.count(found.name)
        lines = [f"alias {self._alias} is index {found.name} with {count} documents"]
        if missing := self._missing(found):
            lines.append(f"fields that will be added or changed: {', '.join(sorted(missing))}")
        return lines

    def found(self) -> Found | None:
        """The index behind the alias; None where there is no such alias."""
        found = self._server.one(self._alias, "have it lead to one, or choose another ENRICH_INDEX")
        if found and found.name == self._alias:
            raise IndexSetupError(
                f"{self._alias} is an index, but ENRICH_INDEX names an alias in mode own: choose another "
                f"ENRICH_INDEX, or remove that index if nobody needs it"
            )
        return found

    def _standing(self) -> Found:
        """The index behind the alias, which is there."""
        found = self.found()
        if found is None:
            raise IndexLost(f"alias {self._alias} is gone")
        return found

    def _create(self) -> Found:
        """Create index and alias in one step. Of two processes, one wins: an alias has one write index."""
        name = f"{self._stem}-{datetime.now(UTC):%Y%m%d%H%M%S%f}"
        try:
            self._server.create(
                name,
                aliases={self._alias: {"is_write_index": True}},
                mappings={**self._mapping, "_meta": self._meta},
                settings=self._settings,
            )
        except (Refused, IndexUnavailable):  # the latter: OpenSearch answers 500 to the one that loses
            if self.found() is None:
                raise
        return self._standing()

    def _missing(self, found: Found) -> dict[str, Any]:
        """The fields that an index lacks; refuses one that is not ours, or contradicts us."""
        refuse_others(self._alias, found)
        missing, conflicts = compare(self._mapping["properties"], found.fields, any_width=False)
        conflicts += made_otherwise(self._mapping["properties"], found.fields)
        conflicts += _fixed_otherwise(self._settings, found)
        if conflicts:
            raise IndexSetupError(f"index {found.name}: {'; '.join(conflicts)}. {_REBUILD}")
        # What else a field of the buyer's says, such as a sub-field, is Elasticsearch's to accept.
        extra = self._extras.properties
        return missing | {name: spec for name, spec in extra.items() if found.fields.get(name, spec) != spec}

    def unmapped(self, columns: Set[str]) -> Set[str]:
        unknown = frozenset(columns - self._mapping["properties"].keys())
        found = self.found() if unknown else None  # which may have fields by other settings
        return unknown.difference(found.fields) if found else unknown

    def write(self, writes: Sequence[DocumentWrite]) -> list[WriteResult]:
        """See `SearchIndex`. The ids of `writes` are distinct."""
        concrete = self._standing().name if any(write.document is None for write in writes) else ""
        results: dict[str, WriteResult] = {}
        sent: list[DocumentWrite] = []
        operations: list[bytes] = []
        for write in writes:
            try:
                operations.append(_operation(write, concrete))
                sent.append(write)
            except ValueError as error:
                results[write.id] = _unsent(write, str(error))
        items = bulk(self._server, operations, self._alias, require_alias=True)
        conflicts: list[tuple[DocumentWrite, str]] = []
        for write, item in zip(sent, items, strict=True):
            status = item["status"]
            if status < 300 or (status == 404 and write.document is None and "error" not in item):
                results[write.id] = ended(write, WriteStatus.DONE, absent=status == 404)
            elif status == 409:
                conflicts.append((write, item["error"]["reason"]))
            else:
                results[write.id] = failure(write, status, item["error"])
        if conflicts:
            settled = _settle(self._server, self._alias, conflicts)
            results.update((result.id, result) for result in settled)
        return [results[write.id] for write in writes]

    def lost(self) -> Iterator[Sequence[str]]:
        return iter(())

    def gone(self, uuids: Sequence[str]) -> list[str]:
        return gone(self._server, f"{self._alias}-*", uuids)

    def documents(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        return fetched(self._server, self._alias, ids)

    def ids(self) -> Iterator[Sequence[str]]:
        return walk(self._server, self._alias, {"match_all": {}})

    def search(self, query: Query) -> Hits:
        return search(self._server, self._alias, self._heads, query)

    def facets(self, query: Query) -> Facets:
        return facets(self._server, self._alias, self._heads, query)

    def close(self) -> None:
        self._server.close()


def _others(settings: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """The settings that the index has otherwise, but for those that no index tells of itself."""
    have = flat(found.settings)
    return {
        name: value for name, value in settings.items() if name not in _UNTOLD and have.get(name) != value
    }


def _fixed_otherwise(settings: Mapping[str, Any], found: Found) -> list[str]:
    """Settings that the index has otherwise, and keeps (one line each)."""
    fixed = (name for name in _others(settings, found) if name.startswith(_FIXED))
    return [f"it was made with another setting {name}" for name in fixed]


def refuse_others(alias: str, found: Found) -> None:
    """Refuse an index that is not ours, unless it has no fields yet."""
    if found.fields and found.meta.get("made_by") != MADE_BY:
        raise IndexSetupError(
            f"index {found.name} behind alias {alias} was not made by this job, which would replace its "
            "documents: set ENRICH_INDEX_MODE=merge to add fields to them, or choose another ENRICH_INDEX"
        )


def _settle(
    server: Server, alias: str, conflicts: Sequence[tuple[DocumentWrite, str]]
) -> Iterator[WriteResult]:
    """Tell a write that is there already from one that the index is ahead of, by the reasons it gave."""
    there = server.mget(alias, [write.id for write, _ in conflicts], source=False)
    for (write, reason), found in zip(conflicts, there, strict=True):
        if error := found.get("error"):
            yield failure(write, 500, error)
            continue
        deleted = not found["found"]
        tombstone = _TOMBSTONE.search(reason)  # a delete's version is told nowhere else
        version = found.get("_version") or (int(tombstone[1]) if tombstone else None)
        if version == write.revision and deleted == (write.document is None):
            yield ended(write, WriteStatus.DONE)
        elif version is not None and version < write.revision:
            yield ended(write, WriteStatus.RETRY, "changed while it was written")
        else:
            yield ended(write, WriteStatus.OUTDATED, reason, version)


def _unsent(write: DocumentWrite, why: str) -> WriteResult:
    """What comes of a write that no index takes: such a document was never there to be deleted."""
    if write.document is None:
        return ended(write, WriteStatus.DONE, absent=True)
    return ended(write, WriteStatus.REFUSED, why)


def _operation(write: DocumentWrite, concrete: str) -> bytes:
    """A write as a bulk has it; deletes go to the `concrete` index.

    A delete with an external version to an alias that is gone would create an index of the alias's name,
    `require_alias` or not (seen on 8.19 and 9.2), and that would block the alias for good.
    """
    if not takes_id(write.id):
        raise ValueError(f"the id is empty, or longer than the {LONGEST_ID} bytes that Elasticsearch takes")
    meta: dict[str, Any] = {"_id": write.id, "version": write.revision, "version_type": "external"}
    if write.document is None:
        return encode({"delete": {"_index": concrete, **meta}})
    return encode({"index": meta}) + b"\n" + encode(write.document)
