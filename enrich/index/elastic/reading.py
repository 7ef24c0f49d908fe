"""Documents read back: some by their ids, or the ids of all, in keyset pages over a point in time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from elasticsearch import ApiError, Elasticsearch

from enrich.index.elastic.client import absent, answers, reason
from enrich.index.protocol import IndexUnavailable

PAGE = 1_000
KEEP_ALIVE = "5m"


def fetched(
    client: Elasticsearch, index: str, ids: Sequence[str], fields: Sequence[str] | None = None
) -> dict[str, Mapping[str, Any]]:
    """Those of these documents that are there now, by id; with these fields (patterns), or whole."""
    if not ids:
        return {}
    with answers(client):
        answer = client.mget(index=index, ids=list(ids), source_includes=fields)
    found: dict[str, Mapping[str, Any]] = {}
    for document in answer["docs"]:
        error = document.get("error")
        if error and error["type"] != "index_not_found_exception":
            raise IndexUnavailable(f"document {document['_id']} cannot be read: {reason(error)}")
        if document.get("found"):
            found[document["_id"]] = document.get("_source", {})
    return found


def walk(client: Elasticsearch, index: str, query: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """The ids of the documents that match now, in pages; none where there is no such index."""
    with answers(client):
        with suppress(ApiError):  # needs a privilege; else what was written in the last second is not seen
            client.indices.refresh(index=index)
        try:
            id = client.open_point_in_time(index=index, keep_alive=KEEP_ALIVE)["id"]
        except ApiError as error:
            if absent(error):
                return
            raise
        pit = {"id": id, "keep_alive": KEEP_ALIVE}
        try:
            yield from _pages(client, pit, query)
        except ApiError as error:
            if error.status_code == 404:
                raise IndexUnavailable(f"index {index} was replaced meanwhile") from None
            raise
        finally:
            with suppress(Exception):
                client.close_point_in_time(id=pit["id"])


def _pages(client: Elasticsearch, pit: dict[str, Any], query: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    after: list[Any] | None = None
    while True:
        answer = client.search(
            pit=pit,
            query=query,
            sort=["_shard_doc"],
            size=PAGE,
            source=False,
            track_total_hits=False,
            search_after=after,
        )
        pit["id"] = answer["pit_id"]
        hits = answer["hits"]["hits"]
        if not hits:
            return
        yield [hit["_id"] for hit in hits]
        after = hits[-1]["sort"]
