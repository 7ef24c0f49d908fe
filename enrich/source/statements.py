"""The statements that read the portal's tables, with holes for what depends on how the tables are."""

from collections.abc import Mapping, Sequence

from enrich.source.catalogue import Column, Copied, PortalTables, quoted
from enrich.source.urls import strip_sql

# The listings are chosen first, so that the planner sees how few they are and can take their images from an
# index. Timestamps that Python cannot hold count as none. Of rows with one id that which changed last counts.
_CHOSEN = """
WITH page AS MATERIALIZED (
  SELECT DISTINCT ON (id) l.id AS native, l.id::text COLLATE "C" AS id,
         CASE WHEN l.updated_at BETWEEN '0001-01-02' AND '9999-12-30' THEN l.updated_at::timestamptz END
           AS updated_at {copied}
  FROM {listings} l
  WHERE {active} AND {which}
  ORDER BY id, updated_at DESC NULLS LAST
)"""

IDS = """
SELECT l.id::text COLLATE "C" AS id FROM {listings} l
WHERE {active} AND l.id::text <> '' AND (CAST(:after AS text) IS NULL OR l.id::text COLLATE "C" > :after)
ORDER BY id LIMIT :limit"""

# `OFFSET 0` has each URL stripped once, not once more for the order; the order of listings is kept, so that
# only the images of one listing at a time are sorted. Postgres leaves out `photos` where nobody selects it.
_ALBUM = """, album AS (
  SELECT i.id, bool_and(i.version IS NOT NULL) AS versioned, bool_or(i.shown <> '') AS pictured,
         encode(sha256(convert_to(string_agg(
           concat(i.position, E'\\x1f', i.shown, E'\\x1f', i.version), E'\\x1e'
           ORDER BY i.position, i.shown, i.version
         ), 'UTF8')), 'hex') AS photo_fp,
         json_agg(json_build_array(i.position, i.url, i.version) ORDER BY i.position, i.shown, i.version)
           AS photos
  FROM (
    SELECT p.id, i.position, i.url::text AS url, coalesce({shown}, '') COLLATE "C" AS shown,
           {version} COLLATE "C" AS version
    FROM page p JOIN {images} i ON {listing_id} = {join_to}
    ORDER BY p.id OFFSET 0
  ) i
  GROUP BY i.id
)"""

FINGERPRINTS = (
    _CHOSEN
    + _ALBUM
    + """
SELECT p.id, p.updated_at, coalesce(a.photo_fp, '') AS photo_fp, {doc_fp} AS doc_fp,
       coalesce(a.versioned, true) AS versioned, coalesce(a.pictured, false) AS pictured
FROM page p LEFT JOIN album a ON a.id = p.id {document}
ORDER BY p.id"""
)

PHOTOS = (
    _CHOSEN
    + _ALBUM
    + """
SELECT p.id, p.updated_at, coalesce(a.photo_fp, ''), coalesce(a.photos, '[]')
FROM page p LEFT JOIN album a ON a.id = p.id"""
)

DOCUMENTS = (
    _CHOSEN
    + """
SELECT p.id, {doc_fp}, to_jsonb(_c)::text FROM page p {document}"""
)

JOINED = """
WITH page AS (SELECT l.id AS native, l.id::text COLLATE "C" AS id FROM {listings} l)
SELECT EXISTS (SELECT FROM {images}),
       EXISTS (SELECT FROM page p JOIN {images} i ON {listing_id} = {join_to})"""

DOUBTFUL = """
SELECT l.id::text, count(*) FROM {listings} l WHERE {active}
GROUP BY l.id HAVING l.id IS NULL OR l.id::text = '' OR count(*) > 1 LIMIT 1"""

# Has every value computed that discovery computes: of a view, one row's may be an error.
VALUES = "SELECT count(l.updated_at) {counted} FROM {listings} l WHERE {active}"


def parts(tables: PortalTables, ignore: Sequence[str]) -> dict[str, str]:
    """What fills the holes, but for `which`. `ignore`: parameters that are left out of photos' URLs."""
    columns = dict.fromkeys(column.sql for field in tables.copied for column in field.columns)
    copied = {column: f"c{n}" for n, column in enumerate(columns)}
    named = ", ".join(f"{_value(field, copied)} AS {quoted(field.name)}" for field in tables.copied)
    kinds = {tables.listings.columns["id"].type, tables.images.columns["listing_id"].type}
    # Such ids are equal in any letters.
    folded = kinds == {"citext"} or ("uuid" in kinds and not tables.joinable)
    as_text = 'lower({}::text COLLATE pg_catalog."default") COLLATE "C"' if folded else '{}::text COLLATE "C"'
    collation = tables.images.columns["listing_id"].collation
    collate = f"COLLATE {collation}" if collation else ""
    return {
        "listings": tables.listings.sql,
        "images": tables.images.sql,
        "active": "l.active IS NOT FALSE" if tables.tells_active() else "true",
        "copied": "".join(f", l.{column} AS {alias}" for column, alias in copied.items()),
        "counted": "".join(f", count(l.{column})" for column in copied),
        # No field's name begins so: one called `c` would be taken for the row.
        "document": f"CROSS JOIN LATERAL (SELECT {named}) _c",
        "doc_fp": "encode(sha256(convert_to(to_jsonb(_c)::text, 'UTF8')), 'hex')" if copied else "''",
        "listing_id": "i.listing_id" if tables.joinable else as_text.format("i.listing_id"),
        "join_to": f"p.native {collate}" if tables.joinable else as_text.format("p.id"),
        "shown": strip_sql("i.url", ignore),
        "version": "i.version::text" if "version" in tables.images.columns else "NULL::text",
    }


def _value(field: Copied, aliases: Mapping[str, str]) -> str:
    """A field's value in SQL; a point is an object, so that the fingerprint follows both of its columns."""
    columns = [f"p.{aliases[column.sql]}{_unpadded(column)}" for column in field.columns]
    return (
        columns[0] if len(columns) == 1 else f"jsonb_build_object('lat', {columns[0]}, 'lon', {columns[1]})"
    )


def _unpadded(column: Column) -> str:
    """A cast of `char(n)`, which JSON would have with the blanks that fill it up; nobody filters by these."""
    return "" if column.type != "bpchar" else "::text[]" if column.array else "::text"
