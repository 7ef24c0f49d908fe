"""Our tables, all in the Postgres schema `enrichment` (SQLAlchemy Core). Migrations create them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from enrich.state.said import SCHEMA as SCHEMA
from enrich.state.said import Id, Time
from enrich.state.said import metadata as metadata

SCHEMA_VERSION = "0005"
"""The migration that these tables belong to."""
VERSION_TABLE = "alembic_version"
NIGHTLY, BACKFILL = 0, 10  # priorities

listing = Table(
    "listing",
    metadata,
    Column("id", Id, primary_key=True),
    # What the source has (written by discover) and what the last completion was made from.
    Column("photo_fp", Text, nullable=False),
    Column("photo_fp_done", Text),
    Column("doc_fp", Text, nullable=False),
    Column("updated_at", Time),
    Column("updated_at_done", Time),
    Column("columns", JSONB, nullable=False, server_default=text("'{}'")),
    # Work. `requested` moves whenever something asks for the listing again; a completion of an older claim
    # leaves it pending.
    Column("status", String(12), nullable=False, server_default="pending"),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("requested", BigInteger, nullable=False, server_default="1"),
    Column("revalidate", Boolean, nullable=False, server_default=text("false")),
    Column("revalidated_at", Time),
    Column("pending_since", Time),
    Column("lease_worker", Uuid),
    Column("lease_token", Uuid),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("transient_rounds", Integer, nullable=False, server_default="0"),
    Column("not_before", Time),
    Column("error", Text),
    Column("backfill", BigInteger),
    # What the model found, and what is published of it (override over model).
    Column("photos", JSONB, nullable=False, server_default=text("'[]'")),
    Column("model_attributes", JSONB),
    Column("attributes", JSONB),
    Column("bundle_id", Text),
    Column("model_ids", JSONB),
    Column("enriched_at", Time),
    # The version of its document; whatever moves it calls `outbox.enqueue` in the same transaction.
    Column("revision", BigInteger),
    Index(
        "listing_claimable",
        "priority",
        "id",
        postgresql_where=text("status IN ('pending', 'retry', 'leased')"),
    ),
    Index("listing_leased", "lease_worker", postgresql_where=text("lease_worker IS NOT NULL")),
    Index("listing_backfill", "backfill", postgresql_where=text("backfill IS NOT NULL")),
)
"""`status`: pending, leased, done, retry, quarantined, gone. `priority`: lower goes first (nightly before
backfill).

`photos`: [{"position", "key", "url" (stripped), "version", "sha256", "status", "error"}], one per image row.
`model_attributes`: `records.Attributes` as JSON; `attributes`: the same with overrides applied.
"""

photo = Table(
    "photo",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("status", String(24), nullable=False),
    Column("sha256", String(64)),
    Column("version", Text),
    Column("etag", Text),
    Column("last_modified", Text),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("next_try", Time),
    Column("error", Text),
    Column("checked_at", Time, nullable=False, server_default=text("now()")),
)

photo_score = Table(
    "photo_score",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("model_id", String(64), primary_key=True),
    Column("dhash", BigInteger, nullable=False),
    Column("scores", JSONB, nullable=False),
)

photo_embedding = Table(
    "photo_embedding",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("feature_id", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("scale", Float, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
)
"""Features of photos, saved in the transaction that saves their scores: `records.Embedding`."""

bundle = Table(
    "bundle",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("heads", JSONB, nullable=False),
    Column("first_used", Time, nullable=False, server_default=text("now()")),
)
"""Every bundle that a run has used. `heads`: head -> {"classes": its classes in the order of the logits, null
for a single logit; "temperatures": model_id -> temperature}."""

backfill = Table(
    "backfill",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    # What was asked; NULL: not restricted by it.
    Column("ids", ARRAY(Text)),
    Column("since", Time),
    Column("stale_bundle", Text),
    Column("revalidate", Boolean, nullable=False, server_default=text("false")),
    # How far marking got: ids up to `cursor` are marked, and all of them once `marked_at` is set.
    Column("cursor", Id, nullable=False, server_default=""),
    Column("marked", BigInteger, nullable=False, server_default="0"),
    Column("created_at", Time, nullable=False, server_default=text("now()")),
    Column("marked_at", Time),
    Column("done_at", Time),
    # Where people set a bound on the filters that may change: the changes so far, and why it was held.
    Column("max_flips", Text),
    Column("flips", JSONB, nullable=False, server_default=text("'{}'")),
    Column("held", Text),
)
"""Listings marked for it have its id in `listing.backfill`; it is done when none of them waits any more, or
when it was held. `flips`: `flips.Counts`."""

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("doing", Text, nullable=False),
    Column("started", Time, nullable=False, server_default=text("now()")),
    Column("seen", Time, nullable=False, server_default=text("now()")),
    Column("expires", Time, nullable=False),
)
"""A process that enriches. Its leases hold while `expires` lies ahead, and are free for others after it."""

listing_photo = Table(
    "listing_photo",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("listing_id", Id, primary_key=True),
    Index("listing_photo_listing", "listing_id"),
)
"""Which listings hold a photo, by its URL key: those of `listing.photos`, as of the last completion."""

removal = Table(
    "removal",
    metadata,
    Column("run_id", BigInteger, primary_key=True),
    Column("listing_id", Id, primary_key=True),
    Column("emptied", Boolean, nullable=False),
)
"""What a run found missing in the source, staged until all is known and the removal guard lets it pass.

`emptied`: the listing is still there, but lost all its photos.
"""

run = Table(
    "run",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("kind", String(12), nullable=False),
    Column("host", Text),
    Column("started_at", Time, nullable=False, server_default=text("now()")),
    Column("finished_at", Time),
    Column("exit_code", Integer),
    Column("error", Text),
    Column("bundle_id", Text),
    Column("figures", JSONB, nullable=False, server_default=text("'{}'")),
)

lock = Table(
    "lock",
    metadata,
    Column("name", String(24), primary_key=True),
    Column("holder", Text),
    Column("token", Uuid),
    Column("expires", Time),
)

target = Table(
    "target",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("mode", String(8), nullable=False),
    Column("uuid", Text, nullable=False),
    Column("serving", Boolean, nullable=False, server_default=text("true")),
    Index("target_identity", "name", "mode", "uuid", unique=True),
)
"""The indices published to. Another name, mode or UUID is another target, to which nothing is published yet.

`serving`: buyers search it; one does. Others are filled beside it, to take its place later, or did so before
and are kept.
"""

publication = Table(
    "publication",
    metadata,
    Column("target", BigInteger, ForeignKey("target.id", ondelete="CASCADE"), primary_key=True),
    Column("listing_id", Id, primary_key=True),
    Column("revision", BigInteger),
    Column("status", String(12), nullable=False, server_default="waiting"),
    Column("error", Text),
    Column("not_before", Time),
    Index("publication_waiting", "target", "listing_id", postgresql_where=text("status <> 'done'")),
)
"""The outbox: what each target holds of a listing, and what it is to get.

`revision`: the last one that the target took (a removal, too), NULL where it never took one. `status`:
waiting (to be sent), done, awaiting (the portal's document), refused. `not_before`: `infinity` where this run
tried in vain, until the next run asks again.
"""

document = Table(
    "document",
    metadata,
    Column("index", Text, primary_key=True),
    Column("id", Id, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("document", JSONB),
)
"""The embedded index. A removed document stays as a tombstone (document NULL) that keeps its revision."""

REVISION_NOW = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
NEXT_REVISION = f"greatest(coalesce(listing.revision, 0) + 1, {REVISION_NOW})"
"""Never goes backwards, not even when a listing comes back or the state is restored from a backup."""

DIFFERS_ANEW = text("""
    UPDATE listing SET doc_fp = 'not all of it is in the index' FROM (
        SELECT id FROM listing WHERE id = ANY(:ids) AND columns ?| CAST(:without AS text[])
        ORDER BY id FOR NO KEY UPDATE
    ) AS chosen WHERE listing.id = chosen.id
""")
"""Has the next discovery find that the copied columns of these listings differ, if they still have these."""

WAITS = """listing.status IN ('pending', 'retry', 'leased')
      AND (listing.status <> 'retry' OR listing.not_before <= now())"""
"""The next run enriches the listing, whatever the source says: it can be claimed, or a worker has it."""

SERVED = "publication AS p JOIN target AS t ON t.id = p.target AND t.serving"
"""What the index that buyers search holds of listings, and is to get."""


def number(field: str) -> str:
    """SQL: what the model says of a listing in a field that holds a number. `enrich migrate` makes an index
    of it for each head of the bundle that has one.

    `field` is one of a head's, whose name the bundle has checked.
    """
    return f"(CAST(model_attributes -> 'fields' ->> '{field}' AS double precision))"
