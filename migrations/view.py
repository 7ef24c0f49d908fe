"""The view `enrichment.listing_attributes`: what portals with an indexer of their own join.

Its columns follow the bundle's heads, so it is not part of a numbered migration. It is only ever replaced in
place: dropping it would take along the portal's grants on it and views built on it. Columns of a head that is
no longer there stay, as NULL.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from enrich.state.schema import SCHEMA

VIEW = "listing_attributes"
Heads = Iterable[tuple[str, str]]
"""(name, kind) of each head; kind is `binary` or `multiclass`."""

DEFAULT_HEADS: Heads = (("balcony", "binary"), ("fireplace", "binary"), ("room", "multiclass"))

_FIXED = {
    "id": "l.id",
    "photo_count": "(l.attributes ->> 'photo_count')::integer",
    "bundle": "l.bundle_id",
    "revision": "l.revision",
    "enriched_at": "l.enriched_at",
}


def create_view(connection: Connection, heads: Heads = DEFAULT_HEADS) -> None:
    """Create the view, or add the columns of new heads to it. It shows live listings that were enriched."""
    columns = list(_existing(connection))
    names = [name for head, kind in sorted(heads, key=lambda h: h[1]) for name in _names(head, kind)]
    for name in ["id", *names, *_FIXED]:
        if name not in columns:
            columns.append(name)
    shown = ",\n".join(f'  {_expression(name)} AS "{name}"' for name in columns)
    connection.exec_driver_sql(
        f"CREATE OR REPLACE VIEW {SCHEMA}.{VIEW} AS\nSELECT\n{shown}\n"
        f"FROM {SCHEMA}.listing l\nWHERE l.status <> 'gone' AND jsonb_typeof(l.attributes) = 'object'"
    )


def _existing(connection: Connection) -> Iterable[str]:
    query = text(
        "SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = :schema AND c.relname = :view AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum"
    )
    return connection.execute(query, {"schema": SCHEMA, "view": VIEW}).scalars()


def _names(head: str, kind: str) -> tuple[str, ...]:
    return (f"has_{head}", f"{head}_confidence") if kind == "binary" else (f"{head}_types",)


def _expression(column: str) -> str:
    """What a column shows, from its name alone, so that columns of earlier heads can be kept."""
    if column in _FIXED:
        return _FIXED[column]
    field = f"l.attributes -> 'fields' -> '{column}'"
    if column.startswith("has_"):
        return f"CASE WHEN jsonb_typeof({field}) = 'boolean' THEN ({field})::boolean END"
    if column.endswith("_confidence"):
        return f"CASE WHEN jsonb_typeof({field}) = 'number' THEN ({field})::double precision END"
    return (
        f"CASE WHEN jsonb_typeof({field}) = 'array' THEN ARRAY(SELECT jsonb_array_elements_text({field})) END"
    )
