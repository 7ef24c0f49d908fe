"""What Postgres's catalogue says about the portal's tables or views: names, columns, types, privileges."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from enrich.errors import SourceError
from enrich.settings import Settings, variable

ES_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("int2", "int4", "int8"), "long"),
    **dict.fromkeys(("numeric", "float4", "float8"), "double"),
    "bool": "boolean",
    **dict.fromkeys(("text", "varchar", "bpchar", "citext", "uuid", "enum"), "keyword"),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), "date"),
}
"""Postgres type -> Elasticsearch type of a copied column; arrays have their element's type."""

INTEGERS = frozenset({"int2", "int4", "int8"})
NUMBERS = INTEGERS | {"numeric", "float4", "float8"}
TEXTS = frozenset({"text", "varchar", "bpchar", "citext"})
TIMES = frozenset({"date", "timestamp", "timestamptz"})
_IDS = INTEGERS | TEXTS | {"uuid"}
_ALIKE = (INTEGERS, frozenset({"text", "varchar"}), frozenset({"uuid"}))

_TABLE = text(
    "SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS sql, current_user AS role,"
    " has_table_privilege(c.oid, 'SELECT') AS readable, c.relkind"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = coalesce(to_regclass(:exact), to_regclass(:folded))"
    " AND c.relkind IN ('r','p','v','m','f')"
)

# Domains are followed down to what they are made of, arrays to their element.
_COLUMNS = text(
    """
    WITH RECURSIVE based AS (
      SELECT a.attnum, a.atttypid AS type FROM pg_attribute a
      WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL
      SELECT b.attnum, t.typbasetype FROM based b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
    )
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS shown, e.oid IS NOT NULL AS is_array,
           CASE WHEN coalesce(e.typtype, t.typtype) = 'e' THEN 'enum' ELSE coalesce(e.typname, t.typname) END
             AS type,
           (SELECT format('%I.%I', n.nspname, k.collname) FROM pg_collation k
             JOIN pg_namespace n ON n.oid = k.collnamespace WHERE k.oid = a.attcollation) AS collation,
           has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS readable,
           EXISTS (SELECT FROM pg_index x WHERE x.indrelid = :oid AND x.indkey[0] = a.attnum) AS indexed
    FROM pg_attribute a
    JOIN based b ON b.attnum = a.attnum
    JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'
    LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
    WHERE a.attrelid = :oid
    ORDER BY a.attnum
    """
)


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    """The base type's internal name (int4, text, …), `enum` for any enum; an array's element's."""
    array: bool
    shown: str
    """The type as people write it."""
    collation: str | None
    """Its quoted name; None for types that have none."""
    readable: bool
    indexed: bool
    """An index starts with it."""

    @property
    def sql(self) -> str:
        """The quoted name."""
        return quoted(self.name)


@dataclass(frozen=True, slots=True)
class Copied:
    """A field of the documents: a column, or a point of two columns (latitude, longitude)."""

    name: str
    columns: tuple[Column, ...]

    @property
    def es_type(self) -> str:
        return ES_TYPES[self.columns[0].type] if len(self.columns) == 1 else "geo_point"


def quoted(name: str) -> str:
    """The quoted name, for `sqlalchemy.text`, which would take a colon for a parameter."""
    return '"' + name.replace('"', '""').replace(":", "\\:") + '"'


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view of the portal. `sql` is its quoted name, `setting` the variable that names it."""

    sql: str
    setting: str
    role: str
    view: bool
    columns: Mapping[str, Column]

    def column(self, name: str, *, of: frozenset[str] | None = None, what: str = "") -> Column:
        """A column that must be there, be readable and, with `of`, have one of these types (said as `what`).

        Raises:
            SourceError: it is not so.
        """
        column = self.columns.get(name)
        if column is None:
            raise SourceError(
                f"{self.sql} has no column {name} (it has: {', '.join(self.columns)}). Make a view with the "
                f"column names of docs/database.md, and set {self.setting} to it"
            )
        if not column.readable:
            raise SourceError(
                f"user {self.role} may not read {name} of {self.sql}: GRANT SELECT ON {self.sql} "
                f"TO {self.role} ({self.setting})"
            )
        if of is not None and (column.array or column.type not in of):
            raise SourceError(
                f"column {name} of {self.sql} is of type {column.shown}, {what} is needed: cast it in a view "
                f"and set {self.setting} to the view"
            )
        return column


@dataclass(frozen=True, slots=True)
class PortalTables:
    """The portal's tables, verified, and the listing columns that go into the documents."""

    listings: Table
    images: Table
    copied: tuple[Copied, ...]

    @property
    def joinable(self) -> bool:
        """Whether `listing_id` and `id` compare as they are, so that an index on `listing_id` can be used."""
        one, other = self.images.columns["listing_id"], self.listings.columns["id"]
        return any(one.type in kind and other.type in kind for kind in _ALIKE)

    def tells_active(self, before: int | None = None) -> bool:
        """Whether the listings have the column `active`.

        Raises:
            SourceError: run number `before` read it: nothing else tells which are inactive.
        """
        found = "active" in self.listings.columns
        if before is not None and not found:
            raise SourceError(
                f"{self.listings.sql} has no column active, which run {before} read: inactive listings would "
                "be enriched and found. Make a view that has it (`true AS active` where all its listings are "
                f"active), and set {self.listings.setting} to it"
            )
        return found


def read_portal(connection: Connection, settings: Settings, reserved: Collection[str]) -> PortalTables:
    """Look up and verify the portal's tables.

    Raises:
        SourceError: a table or column is missing, may not be read or is of a wrong type; a copied column
            cannot be copied, or has the name of one of our own fields (`reserved`).
    """
    listings = read_table(connection, settings.source_listings, variable("source_listings"))
    images = read_table(connection, settings.source_images, variable("source_images"))
    listings.column("id", of=_IDS, what="text, an integer or a uuid")
    listings.column("updated_at", of=TIMES, what="a timestamp")
    if "active" in listings.columns:
        listings.column("active", of=frozenset({"bool"}), what="a boolean")
    images.column("listing_id", of=_IDS, what="text, an integer or a uuid")
    images.column("position", of=INTEGERS, what="an integer")
    images.column("url", of=TEXTS, what="text")
    if "version" in images.columns:
        images.column("version")
    # In merge mode the documents are the portal's: nothing is copied into them.
    names = settings.index_columns if settings.index_mode == "own" else ()
    return PortalTables(listings, images, _copied(listings, dict.fromkeys(names), reserved))


def _copied(listings: Table, names: Collection[str], reserved: Collection[str]) -> tuple[Copied, ...]:
    setting = variable("index_columns")
    copied = []
    for asked in names:
        field, equals, axes = asked.partition("=")
        point = equals and asked not in listings.columns
        if point and axes.count("+") != 1:
            raise SourceError(f"{setting}: {asked} cannot be read: write a point as place=lat+lon")
        parts = [part.strip() for part in axes.split("+")] if point else [asked]
        for name in parts:
            if name not in listings.columns:
                raise SourceError(
                    f"{setting}: {listings.sql} has no column {name} "
                    f"(it has: {', '.join(listings.columns)}); correct the name or take it out"
                )
        columns = tuple(
            listings.column(name, of=NUMBERS, what="a number") if point else listings.column(name)
            for name in parts
        )
        copied.append(Copied(field.strip() if point else asked, columns))
    named: dict[str, str] = {}
    for asked, item in zip(names, copied, strict=True):
        if item.name in named:
            raise SourceError(
                f"{setting}: {named[item.name]} and {asked} are both of the name {item.name}, and a document "
                "has one field of a name: give the point another, or take one out"
            )
        named[item.name] = asked
        where = f"{setting}: column {item.name} of {listings.sql}"
        for column in item.columns:
            if column.type not in ES_TYPES:
                raise SourceError(
                    f"{where} is of type {column.shown}, which cannot be copied: cast it in a view"
                )
        if item.name in reserved or item.name.startswith("_") or "." in item.name:
            raise SourceError(f"{where} cannot be a field of the documents: rename it in a view")
    return tuple(copied)


def read_table(connection: Connection, name: str, setting: str) -> Table:
    """Look up a table or view, `name` or `schema.name`, as written or folded to lower case.

    Raises:
        SourceError: there is none, or it may not be read.
    """
    exact = ".".join(f'"{part}"' for part in name.split("."))
    try:
        found = connection.execute(_TABLE, {"exact": exact, "folded": name}).first()
    except ProgrammingError as error:
        reason = str(error.orig).splitlines()[0]
        raise SourceError(f"{setting}: {name} cannot be looked up: {reason}. GRANT USAGE on it") from None
    if found is None:
        database = connection.engine.url.database
        raise SourceError(
            f"{setting}: there is no table or view {name} in database {database}. Set {setting} to the "
            "portal's, as name or schema.name"
        )
    columns = [
        Column(row.name, row.type, row.is_array, row.shown, row.collation, row.readable, row.indexed)
        for row in connection.execute(_COLUMNS, {"oid": found.oid})
    ]
    return Table(
        found.sql,
        setting,
        found.role,
        found.relkind == "v",
        {column.name: column for column in columns},
    )
