"""`enrich search`: the hits as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from enrich.index.protocol import Hits, Query
from enrich.model.bundle import Head
from jobs.views import console, mark


def show_hits(hits: Hits, query: Query, heads: Sequence[Head], columns: Sequence[str]) -> None:
    """Print the hits: attributes with confidences, copied columns, and the photos that decided."""
    out = console()
    if not hits.documents:
        out.print(f"No listings{_asked(query)}.")
        return
    binary = [head.name for head in heads if head.kind == "binary"]
    multiclass = [head.name for head in heads if head.kind == "multiclass"]
    columns = list(dict.fromkeys([*columns, *query.where]))
    table = Table(header_style="bold")
    for title in ("listing", *columns, *binary, *(f"{name} types" for name in multiclass)):
        table.add_column(title)
    for document in hits.documents:
        table.add_row(
            escape(str(document["listing_id"])),
            *(_text(document.get(name)) for name in columns),
            *(mark(document.get(f"has_{name}"), document.get(f"{name}_confidence")) for name in binary),
            *(_types(document, name) for name in multiclass),
        )
    out.print(table)
    for document in hits.documents:
        for line in _evidence(document, query.has or binary):
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


def _types(document: Mapping[str, Any], name: str) -> str:
    types = document.get(f"{name}_types")
    if types is None:
        return mark(None, None)
    counts = document.get(f"{name}_counts") or {}
    return ", ".join(f"{kind} ×{counts[kind]}" if counts.get(kind, 1) > 1 else kind for kind in types) or "-"


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
