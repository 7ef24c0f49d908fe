"""Documents read back: some by their ids, or the ids of all, in pages over a moment."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from enrich.errors import IndexSetupError
from enrich.index.elastic.server import Refused, Server, reason
from enrich.index.protocol import IndexUnavailable

PAGE = 1_000


def fetched(
    server: Server, index: str, ids: Sequence[str], fields: Sequence[str] | None = None
) -> dict[str, Mapping[str, Any]]:
    """Those of these documents that are there now, by id; with these fields (patterns), or whole."""
    if not ids:
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for document in server.mget(index, ids, fields):
        error = document.get("error")
        if error and error["type"] != "index_not_found_exception":
            raise IndexUnavailable(f"document {document['_id']} cannot be read: {reason(error)}")
        if document.get("found"):
            found[document["_id"]] = document.get("_source", {})
    return found


def held(server: Server, index: str, ids: Sequence[str]) -> list[str]:
    """Those of these documents that are there now, however many they are."""
    pages = (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))
    return [id for page in pages for id in fetched(server, index, page, ["listing_id"])]


def walk(server: Server, index: str, query: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """The ids of the documents that match now, in pages; none where there is no such index."""
    # Needs a privilege; else what was written in the last second is not seen.
    with suppress(Refused, IndexSetupError, IndexUnavailable):
        server.refresh(index)
    begun = False
    try:
        for page in server.pages(index, query, PAGE):
            begun = True
            yield page
    except Refused as error:
        if not error.absent:
            raise
        if begun:
            raise IndexUnavailable(f"index {index} was replaced meanwhile") from None


def gone(server: Server, pattern: str, uuids: Sequence[str]) -> list[str]:
    """Those of these indices (UUIDs) that are no more among those of a pattern."""
    there = {found.uuid for found in server.indices(pattern).values()}
    return [uuid for uuid in uuids if uuid not in there]
