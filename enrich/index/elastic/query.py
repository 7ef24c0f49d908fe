"""A buyer's filter as an Elasticsearch query."""

from collections.abc import Mapping, Sequence
from typing import Any

from enrich.errors import IndexSetupError, UsageError
from enrich.index.elastic.server import Refused, Server
from enrich.index.protocol import Hits, Query
from enrich.index.query import conditions, ranking
from enrich.model.head import Head
from enrich.model.kind import Condition


def search(server: Server, index: str, heads: Sequence[Head], query: Query) -> Hits:
    """Run a filter against an index.

    Raises:
        UsageError: a name is not a field of the index, or a value is not of the field's type.
        IndexSetupError: there is no index yet.
    """
    try:
        mappings = server.mappings(index)
        fields: dict[str, str] = {}
        for found in mappings.values():
            fields.update(_searchable(found["mappings"].get("properties", {})))
        asked = conditions(query, heads, list(fields))
        answer = server.search(index, **_request(query, asked, ranking(query, heads), fields))
    except Refused as error:
        if error.status == 404:
            raise IndexSetupError(f"there is no index {index} yet: `enrich run` makes it") from None
        if error.status == 400:
            raise UsageError(f"the index cannot answer this: {error.reason}") from None
        raise
    hits = answer["hits"]
    documents = tuple({"listing_id": hit["_id"], **hit["_source"]} for hit in hits["hits"])
    return Hits(total=hits["total"]["value"], documents=documents)


def _request(
    query: Query, asked: Sequence[Condition], ranks: Sequence[str], fields: Mapping[str, str]
) -> dict[str, Any]:
    """The search request; `fields` are the index's searchable fields with their types."""
    filters: list[dict[str, Any]] = [
        {"range": {one.field: {"gte": one.value}}} if one.at_least else {"term": {one.field: one.value}}
        for one in asked
    ]
    for name, value in query.where.items():
        if fields.get(name) == "text":
            filters.append({"match": {name: {"query": value, "operator": "and"}}})
        else:
            filters.append({"term": {name: value}})
    sort: list[dict[str, Any]] = [
        {rank: {"order": "desc", "missing": "_last", "unmapped_type": "float"}} for rank in ranks
    ]
    sort.append({"listing_id": {"order": "asc", "missing": "_last", "unmapped_type": "keyword"}})
    return {
        "query": {"bool": {"filter": filters}},
        "sort": sort,
        "size": query.limit,
        "track_total_hits": True,
    }


def _searchable(properties: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """The fields that a term can be looked for in, with their types, objects written with dots."""
    fields: dict[str, str] = {}
    for name, spec in properties.items():
        if "properties" in spec:
            fields.update(_searchable(spec["properties"], f"{path}{name}."))
        elif spec.get("type", "object") != "object" and spec.get("index", True):
            fields[f"{path}{name}"] = spec["type"]
    return fields
