"""What a buyer's filter demands of the documents, whatever index answers it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from enrich.errors import UsageError
from enrich.index.document import properties
from enrich.index.protocol import Column, Facets, Query
from enrich.model.head import Head
from enrich.model.kind import Condition

MOST_HITS = 10_000  # Elasticsearch's own limit on one page, and on those before it
MOST_VALUES = 30
"""Values of one column that are counted."""
MOST_COLUMNS = 30
"""Columns whose values are counted."""
KINDS = {
    "keyword": "keyword",
    "boolean": "boolean",
    **dict.fromkeys(("long", "integer", "short", "byte", "double", "float", "half_float"), "number"),
}
"""Elasticsearch type -> kind of column, of those that are counted."""


def conditions(query: Query, heads: Sequence[Head], fields: Collection[str]) -> list[Condition]:
    """What a query demands of the heads' fields and of numbers; `fields` are those that `where` may name.

    Raises:
        UsageError: a name that nothing carries, or a value that no head answers; says which there are.
    """
    alone = {head.name: head for head in heads if head.rules.is_yes_or_no}
    valued = {head.name: head for head in heads if not head.rules.is_yes_or_no}
    said = (*query.has, *query.lacks, *query.unknown)
    asked: list[tuple[str, str, Collection[str]]] = [("attribute", name, alone) for name in said]
    asked += [("kind of type", name, valued) for name in query.types]
    asked += [("field", name, fields) for name in (*query.where, *query.between)]
    for what, name, known in asked:
        if name not in known:
            raise UsageError(f"no {what} {name!r}; there is: {', '.join(sorted(known)) or 'none'}")
    if query.limit < 0 or query.offset < 0 or query.limit + query.offset > MOST_HITS:
        raise UsageError(
            f"between 0 and {MOST_HITS} hits can be shown, not {query.limit} after {query.offset}"
            if query.offset
            else f"between 0 and {MOST_HITS} hits can be shown, not {query.limit}"
        )
    found = [alone[name].rules.condition(alone[name], None) for name in query.has]
    found += [Condition(alone[name].rules.answer_field(name), False) for name in query.lacks]
    found += [Condition(alone[name].rules.answer_field(name), None) for name in query.unknown]
    for name, values in query.types.items():
        found += [valued[name].rules.condition(valued[name], value) for value in values]
    for name, (least, most) in query.between.items():
        found += [Condition(name, least, at_least=True)] if least is not None else []
        found += [Condition(name, most, at_most=True)] if most is not None else []
    return found


def ranking(query: Query, heads: Sequence[Head]) -> list[str]:
    """The numbers by which the hits are sorted, in the order in which their heads were asked for.

    Raises:
        UsageError: the head to sort by is none, or ranks nothing.
    """
    rules = {head.name: head.rules for head in heads}
    ranked = {name: rank for name, kind in rules.items() if (rank := kind.ranked_by(name)) is not None}
    if query.sort is not None and query.sort not in ranked:
        raise UsageError(f"nothing is sorted by {query.sort!r}; there is: {', '.join(ranked) or 'none'}")
    names = (*(() if query.sort is None else (query.sort,)), *query.has, *query.types)
    return list(dict.fromkeys(ranked[name] for name in names if name in ranked))


def filters(
    query: Query, heads: Sequence[Head], fields: Mapping[str, str]
) -> list[tuple[str, dict[str, Any]]]:
    """Field -> Elasticsearch's filter on it, of all that a query demands; `fields` as for `search_body`."""
    found = [(one.field, _filter(one)) for one in conditions(query, heads, fields)]
    for name, value in query.where.items():
        if fields.get(name) == "text":
            found.append((name, {"match": {name: {"query": value, "operator": "and"}}}))
        else:
            found.append((name, {"term": {name: value}}))
    return found


def search_body(query: Query, heads: Sequence[Head], fields: Mapping[str, str]) -> dict[str, Any]:
    """Elasticsearch's request; `fields` are the index's searchable fields with their types.

    Raises:
        UsageError: as `conditions` and `ranking`.
    """
    sort: list[dict[str, Any]] = [
        {rank: {"order": "desc", "missing": "_last", "unmapped_type": "float"}}
        for rank in ranking(query, heads)
    ]
    if fields.get("listing_id", "keyword") in KINDS:  # a portal's own may be a text, which sorts nothing
        sort.append({"listing_id": {"order": "asc", "missing": "_last", "unmapped_type": "keyword"}})
    return {
        "query": {"bool": {"filter": [one for _, one in filters(query, heads, fields)]}},
        "sort": sort,
        "size": query.limit,
        **({"from": query.offset} if query.offset else {}),
        "track_total_hits": True,
    }


def counted(heads: Sequence[Head], fields: Mapping[str, str]) -> dict[str, str]:
    """Field -> what is counted of it: an `answer`, the `types` of a head, or a column's `KINDS`."""
    found = {}
    for head in heads:
        field = head.rules.answer_field(head.name)
        if head.rules.is_yes_or_no:
            found[field] = "answer"
        elif head.rules.fields(head.name).get(field) == "keyword":
            found[field] = "types"
    ours = properties(heads)
    columns = [name for name in fields if name.partition(".")[0] not in ours and fields[name] in KINDS]
    return found | {name: KINDS[fields[name]] for name in columns[:MOST_COLUMNS]}


def facets(
    heads: Sequence[Head],
    kinds: Mapping[str, str],
    counts: Iterable[tuple[str, str | None, int]],
    bounds: Mapping[str, tuple[float | None, float | None]],
) -> Facets:
    """Facets from what an index counted: (field, value, documents), "true" and "false" where boolean, and
    least and greatest numbers; `kinds` as `counted` told."""
    by_field: dict[str, dict[str | None, int]] = {field: {} for field in kinds}
    for field, value, documents in sorted(counts, key=lambda one: (-one[2], one[1] or "")):
        by_field[field][value] = documents
    said = {True: "true", False: "false", None: None}
    answers, types = {}, {}
    for head in heads:
        found = by_field.get(head.rules.answer_field(head.name), {})
        if head.rules.is_yes_or_no:
            answers[head.name] = {answer: found.get(word, 0) for answer, word in said.items()}
        elif head.rules.answer_field(head.name) in kinds:
            types[head.name] = {value: n for value, n in found.items() if value is not None}
    columns = {}
    for name, kind in kinds.items():
        if kind == "keyword" or kind == "boolean":
            values = [(value, n) for value, n in by_field[name].items() if value and value.strip()]
            columns[name] = Column(kind, dict(values[:MOST_VALUES]))
        elif kind == "number":
            columns[name] = Column(kind, {}, *bounds.get(name, (None, None)))
    return Facets(answers, types, columns)


def _filter(one: Condition) -> dict[str, Any]:
    if one.value is None:
        return {"bool": {"must_not": [{"exists": {"field": one.field}}]}}
    if one.at_least or one.at_most:
        return {"range": {one.field: {"gte" if one.at_least else "lte": one.value}}}
    return {"term": {one.field: one.value}}
