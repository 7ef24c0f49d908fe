"""Mode `merge`: our fields inside the portal's documents, and nothing else of them touched.

A partial update takes no external version and cannot remove a field. So each write first reads the document's
`enrichment.revision` and position in the log, updates only if nobody wrote in between, and always names all
of our fields, null where unknown, and those left over from earlier writes too.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from enrich.errors import IndexSetupError
from enrich.index.document import encode, properties
from enrich.index.elastic.query import Filters, facets, search
from enrich.index.elastic.reading import fetched, walk
from enrich.index.elastic.server import Found, Refused, Server
from enrich.index.elastic.writing import bulk, compare, failure, takes_id
from enrich.index.protocol import Facets, Hits, Query, ended
from enrich.model.head import Head
from enrich.model.kind import KINDS
from enrich.records import DocumentWrite, WriteResult, WriteStatus

ROUNDS = 5  # times a document that somebody else writes to is read again
OURS = {"exists": {"field": "enrichment.revision"}}


def _of_any_kind(head: str) -> set[str]:
    """The fields that a head of this name may have, whatever its kind."""
    return {name for kind in KINDS.values() for name in (*kind.fields(head), *kind.kept(head))}


class MergeIndex:
    """The portal's index, by its name or an alias. A listing's document is the one with its id as `_id`."""

    def __init__(self, server: Server, index: str, heads: Sequence[Head]) -> None:
        self._server = server
        self._index = index
        self._heads = heads
        self._properties = properties(heads)
        ours = _of_any_kind("*")  # of earlier heads, too
        self._read = ["listing_id", *sorted(ours), "photo_count", "enrichment", "evidence"]
        self._by_alias = False
        self._writes_id = True

    def prepare(self) -> str:
        try:
            found = _find(self._server, self._index)
            if missing := self._missing(found):
                self._server.put_mapping(found.name, properties=missing)
        except Refused as error:
            raise IndexSetupError(f"index {self._index} cannot take our fields: {error.reason}") from None
        return found.uuid

    def identity(self) -> str:
        return _find(self._server, self._index).uuid

    def check(self) -> list[str]:
        found = _find(self._server, self._index)
        missing = self._missing(found)
        wanted = ["read", "write", "view_index_metadata", *(["manage"] if missing else [])]
        if lacking := self._server.lacking([self._index], wanted):
            raise IndexSetupError(
                f"the credentials lack {', '.join(lacking)}. See docs/index.md for what the portal grants"
            )
        count = self._server.count(found.name)
        lines = [f"{self._index} is the portal's index {found.name} with {count} documents"]
        if missing:
            lines.append(f"fields that will be added to its mapping: {', '.join(sorted(missing))}")
        return lines

    def _missing(self, found: Found) -> dict[str, Any]:
        """The fields that an index lacks, which is written to as it allows."""
        self._by_alias = found.name != self._index
        ours = dict(self._properties)
        # A portal's own listing_id of another type is left alone: the document's _id says the same.
        self._writes_id = found.fields.get("listing_id", {"type": "keyword"}).get("type") == "keyword"
        if not self._writes_id:
            del ours["listing_id"]
        missing, conflicts = compare(ours, found.fields, any_width=True)
        if conflicts:
            raise IndexSetupError(
                f"index {found.name}: {'; '.join(conflicts)}. Map the fields as docs/index.md says when the "
                "index is next built, or set ENRICH_INDEX_MODE=own"
            )
        return missing

    def unmapped(self, columns: Set[str]) -> Set[str]:
        return frozenset()

    def write(self, writes: Sequence[DocumentWrite]) -> list[WriteResult]:
        """See `SearchIndex`. The ids of `writes` are distinct."""
        results: dict[str, WriteResult] = {}
        for _ in range(ROUNDS):
            left = [write for write in writes if write.id not in results]
            if not left:
                break
            results.update((result.id, result) for result in self._round(left))
        return [
            results.get(write.id) or ended(write, WriteStatus.RETRY, "somebody else keeps writing to it")
            for write in writes
        ]

    def _round(self, writes: Sequence[DocumentWrite]) -> Iterator[WriteResult]:
        """Read and write once; no result for documents that somebody else wrote to in between."""
        yield from (_not_there(write) for write in writes if not takes_id(write.id))
        if not (writes := [write for write in writes if takes_id(write.id)]):
            return
        ids = [write.id for write in writes]
        docs = self._server.mget(self._index, ids, self._read)
        sent: list[DocumentWrite] = []
        operations: list[bytes] = []
        for write, found in zip(writes, docs, strict=True):
            if error := found.get("error"):
                status = 400 if error["type"] == "routing_missing_exception" else 503
                yield failure(write, status, error)
                continue
            if result := self._settled(write, found):
                yield result
                continue
            try:
                operations.append(self._operation(write, found))
                sent.append(write)
            except ValueError as error:
                yield ended(write, WriteStatus.REFUSED, str(error))
        items = bulk(self._server, operations, self._index, require_alias=self._by_alias)
        for write, item in zip(sent, items, strict=True):
            if item["status"] < 300:
                yield ended(write, WriteStatus.DONE)
            elif item["status"] != 409 and item["error"]["type"] != "document_missing_exception":
                yield failure(write, item["status"], item["error"])

    def _settled(self, write: DocumentWrite, found: Mapping[str, Any]) -> WriteResult | None:
        """The result of a write that needs no request, going by what the document holds now."""
        if not found["found"]:
            return _not_there(write)
        old = found.get("_source", {})
        enrichment = old.get("enrichment")
        revision = enrichment.get("revision") if isinstance(enrichment, dict) else None
        if isinstance(revision, int) and revision > write.revision:
            return ended(write, WriteStatus.OUTDATED, f"the document holds revision {revision}", revision)
        done = not self._ours(old) if write.document is None else revision == write.revision
        return ended(write, WriteStatus.DONE, absent=write.document is None) if done else None

    def _ours(self, old: Mapping[str, Any]) -> dict[str, Any]:
        """What a document says in our fields."""
        names = _own_fields(old, self._properties, self._heads)
        return {name: old[name] for name in names if old.get(name) is not None}

    def _operation(self, write: DocumentWrite, found: Mapping[str, Any]) -> bytes:
        old: Mapping[str, Any] = found.get("_source", {})
        nothing: dict[str, Any] = dict.fromkeys(_own_fields(old, self._properties, self._heads))
        ours = {**nothing, **(write.document or {})}
        if not self._writes_id or "listing_id" in old:
            ours.pop("listing_id", None)
        position = {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
        action = encode({"update": {"_id": write.id, **position}})
        doc = {name: covering(value, old.get(name)) for name, value in ours.items()}
        return action + b"\n" + encode({"doc": doc})

    def lost(self) -> Iterator[Sequence[str]]:
        """Ids of the portal's documents without our fields, as of now."""
        return walk(self._server, self._index, {"bool": {"must_not": OURS}})

    def gone(self, uuids: Sequence[str]) -> list[str]:
        return []

    def documents(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        found = fetched(self._server, self._index, ids, self._read)
        return {id: self._ours(old) for id, old in found.items()}

    def ids(self) -> Iterator[Sequence[str]]:
        return walk(self._server, self._index, OURS)

    def search(self, query: Query) -> Hits:
        return search(self._server, self._index, self._heads, query, _among(query))

    def facets(self, query: Query) -> Facets:
        return facets(self._server, self._index, self._heads, query, _among(query), known=[OURS])

    def close(self) -> None:
        self._server.close()


def _among(query: Query) -> Filters:
    """What is unknown of a document that was never enriched is no answer of ours."""
    return [OURS] if query.unknown else []


def _own_fields(old: Mapping[str, Any], ours: Mapping[str, Any], heads: Sequence[Head]) -> Iterator[str]:
    """Our fields, but the id, which stays; with those of heads that an earlier bundle had."""
    yield from (name for name in ours if name != "listing_id")
    current = {head.name for head in heads}
    evidence = old.get("evidence")
    for head in evidence if isinstance(evidence, dict) else ():
        if head not in current:
            yield from (name for name in _of_any_kind(head) if name in old)


def _not_there(write: DocumentWrite) -> WriteResult:
    """What comes of a write where the portal has no such document."""
    if write.document is None:
        return ended(write, WriteStatus.DONE, absent=True)
    return ended(write, WriteStatus.AWAITING)


def _find(server: Server, name: str) -> Found:
    """The one index of that name, or behind that alias."""
    found = server.one(name, "name one of them, or an alias of one, in ENRICH_INDEX")
    if found is None:
        raise IndexSetupError(
            f"there is no index or alias {name}: in mode merge the portal's own index is needed. "
            "Check ENRICH_INDEX, or set ENRICH_INDEX_MODE=own for an index of our own"
        )
    return found


def covering(new: Any, old: Any) -> Any:
    """`new` with null for what it would leave standing of `old`: a partial update merges objects."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return new
    left_over = {name: None for name in old if name not in new}
    return {**left_over, **{name: covering(value, old.get(name)) for name, value in new.items()}}
