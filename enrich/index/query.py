"""Which names a buyer's filter may use, whatever index answers it."""

from collections.abc import Sequence

from enrich.errors import UsageError
from enrich.index.document import HeadSpec
from enrich.index.protocol import Query

MOST_HITS = 10_000  # Elasticsearch's own limit on one page


def verify(query: Query, heads: Sequence[HeadSpec], fields: Sequence[str]) -> None:
    """Refuse names that nothing carries; `fields` are those that `where` may name.

    Raises:
        UsageError: says which names there are.
    """
    binary = [head.name for head in heads if head.kind == "binary"]
    classes = {
        head.name: [kind.name for kind in head.classes if kind.publish]
        for head in heads
        if head.kind == "multiclass"
    }
    asked: list[tuple[str, str, Sequence[str]]] = [("attribute", name, binary) for name in query.has]
    asked += [("kind of type", name, list(classes)) for name in query.types]
    asked += [
        (f"{name} type", kind, classes[name])
        for name, kinds in query.types.items()
        if classes.get(name)
        for kind in kinds
    ]
    asked += [("field", name, fields) for name in query.where]
    for what, name, known in asked:
        if name not in known:
            raise UsageError(f"no {what} {name!r}; there is: {', '.join(sorted(known)) or 'none'}")
    if not 0 <= query.limit <= MOST_HITS:
        raise UsageError(f"between 0 and {MOST_HITS} hits can be shown, not {query.limit}")
