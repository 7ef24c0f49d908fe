"""What a buyer's filter demands of the documents, whatever index answers it."""

from collections.abc import Collection, Sequence

from enrich.errors import UsageError
from enrich.index.protocol import Query
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
