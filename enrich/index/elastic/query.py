"""A buyer's filter at Elasticsearch: what it finds, and how much each other filter would leave of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from enrich.errors import IndexSetupError, UsageError
from enrich.index.elastic.server import Refused, Server
from enrich.index.protocol import Facets, Hits, Query
from enrich.index.query import MOST_VALUES, counted, filters, search_body
from enrich.index.query import facets as as_facets
from enrich.model.head import Head

Filters = Sequence[Mapping[str, Any]]
MOST_CLASSES = 1_000  # of a head: all that it has
ON_A_SHARD = 1_000  # values that each shard tells; with fewer, those of all shards add up to too little


def search(server: Server, index: str, heads: Sequence[Head], query: Query, among: Filters = ()) -> Hits:
    """Run a filter against an index, or against those of its documents that pass `among`.

    Raises:
        UsageError: a name is not a field of the index, or a value is not of the field's type.
        IndexSetupError: there is no index yet.
    """
    with _asking(index):
        body = search_body(query, heads, _types(_with_sub_fields(_fields(server, index))))
        body["query"]["bool"]["filter"] += among
        hits = server.search(index, **body)["hits"]
    # A portal may have a listing_id of its own in its documents.
    documents = tuple({**hit["_source"], "listing_id": hit["_id"]} for hit in hits["hits"])
    return Hits(total=hits["total"]["value"], documents=documents, body=body)


def facets(
    server: Server, index: str, heads: Sequence[Head], query: Query, among: Filters = (), known: Filters = ()
) -> Facets:
    """Count what each filter would leave; everything as for `search`. Unknown is an answer only of documents
    that pass `known`."""
    with _asking(index):
        fields = _fields(server, index)
        countable = {name: spec for name, spec in fields.items() if spec.get("doc_values", True)}
        kinds = counted(heads, _types(countable))
        asked = filters(query, heads, _types(_with_sub_fields(fields)))
        aggregations = {  # numbered, since their names may not have all that a field's may
            str(number): {
                "filter": {
                    "bool": {"filter": [one for name, one in asked if name != field or kind == "types"]}
                },
                "aggs": _counting(field, kind, known),
            }
            for number, (field, kind) in enumerate(kinds.items())
        }
        answer = server.search(index, size=0, query={"bool": {"filter": list(among)}}, aggs=aggregations)
    found = {field: answer["aggregations"][str(number)] for number, field in enumerate(kinds)}
    counts = [
        (field, str(bucket.get("key_as_string", bucket["key"])), bucket["doc_count"])
        for field in found
        for bucket in found[field].get("values", {"buckets": ()})["buckets"]
    ]
    unknown = [(f, None, found[f]["unknown"]["doc_count"]) for f in found if "unknown" in found[f]]
    bounds = {
        field: (one["least"]["value"], one["most"]["value"]) for field, one in found.items() if "most" in one
    }
    return as_facets(heads, kinds, [*counts, *unknown], bounds)


def _counting(field: str, kind: str, known: Filters) -> dict[str, Any]:
    if kind == "number":
        return {"least": {"min": {"field": field}}, "most": {"max": {"field": field}}}
    size = MOST_CLASSES if kind == "types" else MOST_VALUES
    values = {"values": {"terms": {"field": field, "size": size, "shard_size": ON_A_SHARD}}}
    if kind != "answer":
        return values
    unknown = {"bool": {"filter": list(known), "must_not": [{"exists": {"field": field}}]}}
    return {**values, "unknown": {"filter": unknown}}


@contextmanager
def _asking(index: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        if error.status == 404:
            raise IndexSetupError(f"there is no index {index} yet: `enrich run` makes it") from None
        if error.status == 400:
            raise UsageError(f"the index cannot answer this: {error.reason}") from None
        raise


def _fields(server: Server, index: str) -> dict[str, Mapping[str, Any]]:
    fields: dict[str, Mapping[str, Any]] = {}
    for found in server.mappings(index).values():
        fields.update(_searchable(found["mappings"].get("properties", {})))
    return fields


def _with_sub_fields(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Fields with the other ways in which they are indexed, such as `title.raw`, which are not counted."""
    sub = {f"{name}.{way}": of for name, spec in fields.items() for way, of in spec.get("fields", {}).items()}
    return {**fields, **sub}


def _types(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: spec["type"] for name, spec in fields.items()}


def _searchable(properties: Mapping[str, Any], path: str = "") -> dict[str, Mapping[str, Any]]:
    """The fields that a term can be looked for in, with their mappings, objects written with dots."""
    fields: dict[str, Mapping[str, Any]] = {}
    for name, spec in properties.items():
        if _apart(spec):
            continue
        if "properties" in spec:
            fields.update(_searchable(spec["properties"], f"{path}{name}."))
        elif spec.get("type", "object") != "object" and spec.get("index", True):
            fields[f"{path}{name}"] = spec
    return fields


def _apart(spec: Mapping[str, Any]) -> bool:
    """Whether these objects are found by a query of their own kind alone, as `nested` ones are."""
    within = spec.get("include_in_parent") or spec.get("include_in_root")
    return spec.get("type") == "nested" and not within
