"""The views `listing_attributes` and `photo_attributes`: what the portal itself reads.

Their columns follow the bundle's heads, so they are not part of a numbered migration. They are only ever
replaced in place: dropping one would take along the portal's grants on it and views built on it. Columns of a
head that is no longer there stay, as NULL.
"""

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, text

from enrich.state.schema import SCHEMA

LISTINGS, PHOTOS = "listing_attributes", "photo_attributes"
Columns = Mapping[str, str]
"""What a view shows of the heads, in order, each with its Postgres type."""

DEFAULT_COLUMNS: Columns = {
    "has_balcony": "boolean",
    "balcony_confidence": "double precision",
    "has_fireplace": "boolean",
    "fireplace_confidence": "double precision",
    "room_types": "text[]",
}
DEFAULT_PHOTO_COLUMNS: Columns = {
    "room_type": "text",
    "room_probability": "double precision",
    "balcony_probability": "double precision",
    "fireplace_probability": "double precision",
}
NEAR_DUPLICATE_BITS = 4  # as listings' photos are counted

_FIXED = {
    "id": "l.id",
    "photo_count": "(l.attributes ->> 'photo_count')::integer",
    "bundle": "l.bundle_id",
    "revision": "l.revision",
    "enriched_at": "l.enriched_at",
}
_JSON_TYPES = {"boolean": "boolean", "text": "string"}  # of a Postgres type; the others are numbers

_PHOTO_FIXED = {
    "listing_id": "l.id",
    "position": "(p.value ->> 'position')::integer",
    "url": "p.value ->> 'url'",
    "near_duplicate_of": "near.position",
}

# Logits become probabilities as in `enrich.model`; exp() of Postgres fails where it under- or overflows.
_PHOTO_SOURCE = f"""
FROM {SCHEMA}.listing AS l
CROSS JOIN LATERAL jsonb_array_elements(l.photos) AS p
LEFT JOIN {SCHEMA}.bundle AS b ON b.id = l.bundle_id
LEFT JOIN LATERAL (
  SELECT jsonb_object_agg(head, jsonb_build_object('type', class, 'probability', chance)) AS said
  FROM {SCHEMA}.photo_score AS s
  CROSS JOIN LATERAL jsonb_each(s.scores) AS h(head, logits)
  CROSS JOIN LATERAL (
    SELECT array_agg(z) AS scaled, max(z) AS top, (array_agg(n ORDER BY z DESC, n))[1]::integer AS best
    FROM (
      SELECT n, e.logit::text::float8 / (b.heads -> head -> 'temperatures' ->> s.model_id)::float8 AS z
      FROM jsonb_array_elements(logits) WITH ORDINALITY AS e(logit, n)
    ) AS each
  ) AS o
  CROSS JOIN LATERAL (
    SELECT b.heads -> head -> 'classes' ->> (best - 1) AS class,
           CASE cardinality(scaled) WHEN 1 THEN 1 / (1 + exp(-least(greatest(top, -500), 500)))
             ELSE 1 / (SELECT sum(exp(greatest(z - top, -500))) FROM unnest(scaled) AS z) END AS chance
  ) AS a
  WHERE s.sha256 = p.value ->> 'sha256' AND l.model_ids ? s.model_id
    AND b.heads -> head -> 'temperatures' ? s.model_id
) AS heads ON true
LEFT JOIN LATERAL (
  SELECT (q.value ->> 'position')::integer AS position
  FROM jsonb_array_elements(l.photos) AS q
  JOIN {SCHEMA}.photo_score AS qs ON qs.sha256 = q.value ->> 'sha256'
  JOIN {SCHEMA}.photo_score AS ps ON ps.sha256 = p.value ->> 'sha256' AND ps.model_id = qs.model_id
  WHERE l.model_ids ? qs.model_id
    AND ((q.value ->> 'position')::integer, q.value ->> 'key')
      < ((p.value ->> 'position')::integer, p.value ->> 'key')
    AND length(replace((qs.dhash # ps.dhash)::bit(64)::text, '0', '')) <= {NEAR_DUPLICATE_BITS}
  ORDER BY 1, q.value ->> 'key' LIMIT 1
) AS near ON true
WHERE l.status <> 'gone'
"""  # noqa: S608 (our own constants)

_EXISTING = text("""
    SELECT a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :view AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
""")


def create_views(connection: Connection, columns: Columns, photo_columns: Columns) -> None:
    """Create the views, or add the columns of new heads to them. They show live listings.

    A column that is there already keeps its type.
    """
    _create(
        connection,
        LISTINGS,
        {"id": "text", **columns, **dict.fromkeys(_FIXED, "")},
        lambda name, kind: _FIXED.get(name) or _expression(name, kind),
        f"FROM {SCHEMA}.listing l\nWHERE l.status <> 'gone' AND jsonb_typeof(l.attributes) = 'object'",
    )
    _create(
        connection,
        PHOTOS,
        {**dict.fromkeys(_PHOTO_FIXED, ""), **photo_columns},
        lambda name, kind: _PHOTO_FIXED.get(name) or _photo_expression(name, kind),
        _PHOTO_SOURCE,
    )


def _create(
    connection: Connection, view: str, wanted: Columns, expression: Callable[[str, str], str], source: str
) -> None:
    found = connection.execute(_EXISTING, {"schema": SCHEMA, "view": view})
    existing = {row[0]: row[1] for row in found}
    new = {name: kind for name, kind in wanted.items() if name not in existing}
    shown = ",\n".join(f'  {expression(name, kind)} AS "{name}"' for name, kind in (existing | new).items())
    connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {SCHEMA}.{view} AS\nSELECT\n{shown}\n{source}")


def _photo_expression(column: str, kind: str) -> str:
    """`X_type` or `X_probability` of a head X."""
    head, _, what = column.rpartition("_")
    return f"(heads.said -> '{head}' ->> '{what}')::{kind}"


def _expression(column: str, kind: str) -> str:
    """The field as a value of a Postgres type; NULL where it is of another type."""
    field = f"l.attributes -> 'fields' -> '{column}'"
    if kind == "text[]":
        found = f"ARRAY(SELECT jsonb_array_elements_text({field}))"
        return f"CASE WHEN jsonb_typeof({field}) = 'array' THEN {found} END"
    json_type = _JSON_TYPES.get(kind, "number")
    return f"CASE WHEN jsonb_typeof({field}) = '{json_type}' THEN ({field} #>> '{{}}')::{kind} END"
