"""The view `enrichment.listing_attributes`: what portals with an indexer of their own join.

Its columns follow the bundle's heads, so it is not part of a numbered migration. It is only ever replaced in
place: dropping it would take along the portal's grants on it and views built on it. Columns of a head that is
no longer there stay, as NULL.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from enrich.state.schema import SCHEMA

VIEW = "listing_attributes"
Columns = Mapping[str, str]
"""Fields of listings' attributes that the view shows, in order, each with its Postgres type."""

DEFAULT_COLUMNS: Columns = {
    "has_balcony": "boolean",
    "balcony_confidence": "double precision",
    "has_fireplace": "boolean",
    "fireplace_confidence": "double precision",
    "room_types": "text[]",
}

_FIXED = {
    "id": "l.id",
    "photo_count": "(l.attributes ->> 'photo_count')::integer",
    "bundle": "l.bundle_id",
    "revision": "l.revision",
    "enriched_at": "l.enriched_at",
}
_JSON_TYPES = {"boolean": "boolean", "text": "string"}  # of a Postgres type; the others are numbers

_EXISTING = text("""
    SELECT a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :view AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
""")


def create_view(connection: Connection, columns: Columns = DEFAULT_COLUMNS) -> None:
    """Create the view, or add the columns of new heads to it. It shows live listings that were enriched.

    A column that is there already keeps its type.
    """
    found = connection.execute(_EXISTING, {"schema": SCHEMA, "view": VIEW})
    existing = {row[0]: row[1] for row in found}
    wanted = {"id": "text", **columns, **dict.fromkeys(_FIXED, "")}
    shown = ",\n".join(
        f'  {_FIXED.get(name) or _expression(name, kind)} AS "{name}"'
        for name, kind in (existing | {name: wanted[name] for name in wanted if name not in existing}).items()
    )
    connection.exec_driver_sql(
        f"CREATE OR REPLACE VIEW {SCHEMA}.{VIEW} AS\nSELECT\n{shown}\n"
        f"FROM {SCHEMA}.listing l\nWHERE l.status <> 'gone' AND jsonb_typeof(l.attributes) = 'object'"
    )


def _expression(column: str, kind: str) -> str:
    """The field as a value of a Postgres type; NULL where it is of another type."""
    field = f"l.attributes -> 'fields' -> '{column}'"
    if kind == "text[]":
        found = f"ARRAY(SELECT jsonb_array_elements_text({field}))"
        return f"CASE WHEN jsonb_typeof({field}) = 'array' THEN {found} END"
    json_type = _JSON_TYPES.get(kind, "number")
    return f"CASE WHEN jsonb_typeof({field}) = '{json_type}' THEN ({field} #>> '{{}}')::{kind} END"
