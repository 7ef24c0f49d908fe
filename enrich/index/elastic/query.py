"""A buyer's filter as an Elasticsearch query."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from elasticsearch import ApiError, Elasticsearch

from enrich.errors import IndexSetupError, UsageError
from enrich.index.elastic.client import answers, reason_of
from enrich.index.protocol import Hits, Query
from enrich.model.head import Head
from enrich.model.kind import Condition

MOST_HITS = 10_000  # Elasticsearch's own limit on one page


def conditions(query: Query, heads: Sequence[Head], fields: Sequence[str]) -> list[Condition]:
    """What a query demands of the heads' fields; `fields` are those that `where` may name.

    Raises:
        UsageError: a name that nothing carries, or a value that no head answers; says which there are.
    """
    alone = {head.name: head for head in heads if head.rules.is_yes_or_no}
    valued = {head.name: head for head in heads if not head.rules.is_yes_or_no}
    asked: list[tuple[str, str, Collection[str]]] = [("attribute", name, alone) for name in query.has]
    asked += [("kind of type", name, valued) for name in query.types]
    asked += [("field", name, fields) for name in query.where]
    for what, name, known in asked:
        if name not in known:
            raise UsageError(f"no {what} {name!r}; there is: {', '.join(sorted(known)) or 'none'}")
    if not 0 <= query.limit <= MOST_HITS:
        raise UsageError(f"between 0 and {MOST_HITS} hits can be shown, not {query.limit}")
    found = [alone[name].rules.condition(alone[name], None) for name in query.has]
    for name, values in query.types.items():
        found += [valued[name].rules.condition(valued[name], value) for value in values]
    return found


def ranking(query: Query, heads: Sequence[Head]) -> list[str]:
    """The numbers by which the hits are sorted, in the order in which their heads were asked for."""
    rules = {head.name: head.rules for head in heads}
    ranks = [rules[name].ranked_by(name) for name in (*query.has, *query.types)]
    return [rank for rank in ranks if rank is not None]


def search(client: Elasticsearch, index: str, heads: Sequence[Head], query: Query) -> Hits:
    """Run a filter against an index.

    Raises:
        UsageError: a name is not a field of the index, or a value is not of the field's type.
        IndexSetupError: there is no index yet.
    """
    try:
        with answers(client):
            mappings = client.indices.get_mapping(index=index).body
            fields: dict[str, str] = {}
            for found in mappings.values():
                fields.update(_searchable(found["mappings"].get("properties", {})))
            asked = conditions(query, heads, list(fields))
            answer = client.search(index=index, **_request(query, asked, ranking(query, heads), fields))
    except ApiError as error:
        if error.status_code == 404:
            raise IndexSetupError(f"there is no index {index} yet: `enrich run` makes it") from None
        if error.status_code == 400:
            raise UsageError(f"the index cannot answer this: {reason_of(error)}") from None
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
