"""Our tables of what people said, and what came of it; the others are in `schema`, which stands on this."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "enrichment"
"""Transactions of `state.database` look names up here first, so that statements say `listing` alone."""

metadata = MetaData(schema=SCHEMA)

Id = Text(collation="C")  # keyset pages compare ids byte by byte, here and in the source
Time = DateTime(timezone=True)

label = Table(
    "label",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("head", Text, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("created_by", Text),
    Column("created_at", Time, nullable=False, server_default=text("now()")),
)
"""What people said of photos, to learn from: true or false, or a class. No document depends on it."""

override = Table(
    "override",
    metadata,
    Column("listing_id", Id, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("note", Text),
    Column("created_by", Text),
    Column("created_at", Time, nullable=False, server_default=text("now()")),
    Index("override_said", "field", "created_at", "listing_id"),
)
"""`field`: has_X or X_types; `value`: true, false, null (a person says: unknown) or a list of classes."""

review = Table(
    "review",
    metadata,
    Column("listing_id", Id, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("person", Text, primary_key=True),
    Column("answer", Boolean),
    Column("sha256", String(64)),
    Column("before", JSONB, nullable=False),
    Column("at", Time, nullable=False, server_default=text("clock_timestamp()")),
    Index("review_person", "person", "at"),
)
"""What a person answered in the review queue; `answer` NULL: unsure. `person` is empty where nobody knows.

`sha256`: the photo that shows it. `before`: {"override", "label"} that stood there, for undoing.
"""

history = Table(
    "history",
    metadata,
    Column("listing_id", Id, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("at", Time, nullable=False, server_default=text("now()")),
    Column("field", Text, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB, nullable=False),
    Column("confidence", Float),
    Column("bundle_id", Text),
    Column("bundle_before", Text),
    Column("cause", String(8), nullable=False),
    Column("person", Text),
    Index("history_flip", "bundle_id", "field", "id", postgresql_where=text("bundle_before <> bundle_id")),
)
"""Published answers that changed. `before`, `after`: as in a document, JSON null being unknown; `before` NULL
with the first answer. `cause`: model, person (an override) or cleared (an override was taken back).
"""
