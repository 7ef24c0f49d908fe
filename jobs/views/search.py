"""`enrich search`: the hits as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from enrich.index.protocol import Hits, Query
from enrich.model.head import Head
from jobs.views import answer, console, table


def show_hits(hits: Hits, query: Query, heads: Sequence[Head], columns: Sequence[str]) -> None:
    """Print the hits: attributes with confidences, copied columns, and the photos that decided."""
    out = console()
    if not hits.documents:
        out.print(f"No listings{_asked(query)}.")
        return
    ordered = sorted(heads, key=lambda head: not head.rules.is_yes_or_no)
    columns = list(dict.fromkeys([*columns, *query.where]))
    found = table("listing", *map(escape, columns), *(head.rules.title(head.name) for head in ordered))
    for document in hits.documents:
        found.add_row(
            escape(str(document["listing_id"])),
            *(_text(document.get(name)) for name in columns),
            *(answer(head.rules, head.name, document) for head in ordered),
        )
    out.print(found)
    told = query.has or [head.name for head in heads if head.rules.is_yes_or_no]
    for document in hits.documents:
        for line in _evidence(document, told):
            out.print(line, soft_wrap=True)  # URLs stay whole
    shown = "" if hits.total == len(hits.documents) else f", {len(hits.documents)} shown (--limit)"
    noun = "listing" if hits.total == 1 else "listings"
    out.print(f"{hits.total:,} {noun}{_asked(query)}{shown}.")


def _evidence(document: Mapping[str, Any], heads: Sequence[str]) -> list[str]:
    """A line for each head that a photo, or a person, decided."""
    id, lines = escape(str(document["listing_id"])), []
    for name in heads:
        found = (document.get("evidence") or {}).get(name)
        if not found:
            continue
        decided = "set by a person"
        if not found.get("override"):
            decided = f"photo {found['position']} {found['confidence']:.2f} {escape(found['url'])}"
        lines.append(f"  {id} {name}: {decided}")
    return lines


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):  # a point
        value = list(value.values())
    return escape(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _asked(query: Query) -> str:
    parts = [*query.has, *(kind for kinds in query.types.values() for kind in kinds)]
    parts += [f"{name}={value}" for name, value in query.where.items()]
    return escape(f" with {' and '.join(parts)}" if parts else "")
