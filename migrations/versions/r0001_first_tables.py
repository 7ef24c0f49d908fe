"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

SCHEMA = "enrichment"


def upgrade() -> None:
    _listing()
    _photos()
    _people_and_runs()
    _index()


def downgrade() -> None:
    op.execute(f"DROP VIEW IF EXISTS {SCHEMA}.listing_attributes")
    for table in ("document", "target", "lock", "run", "override", "photo_score", "photo", "listing"):
        op.drop_table(table, schema=SCHEMA)


def _id(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(collation="C"), primary_key=True)


def _time(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True))


def _now(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _listing() -> None:
    op.create_table(
        "listing",
        _id("id"),
        sa.Column("photo_fp", sa.Text, nullable=False),
        sa.Column("photo_fp_done", sa.Text),
        sa.Column("doc_fp", sa.Text, nullable=False),
        _time("updated_at"),
        _time("updated_at_done"),
        sa.Column("columns", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("status", sa.String(12), nullable=False, server_default="pending"),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("requested", sa.BigInteger, nullable=False, server_default="1"),
        sa.Column("revalidate", sa.Boolean, nullable=False, server_default=sa.text("false")),
        _time("revalidated_at"),
        _time("pending_since"),
        sa.Column("lease_token", sa.Uuid),
        _time("lease_expires"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("transient_rounds", sa.Integer, nullable=False, server_default="0"),
        _time("not_before"),
        sa.Column("error", sa.Text),
        sa.Column("missing_run", sa.BigInteger),
        sa.Column("photos", JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("model_attributes", JSONB),
        sa.Column("attributes", JSONB),
        sa.Column("bundle_id", sa.Text),
        sa.Column("model_ids", JSONB),
        _time("enriched_at"),
        sa.Column("revision", sa.BigInteger),
        sa.Column("published_revision", sa.BigInteger),
        sa.Column("publish_status", sa.String(12)),
        sa.Column("publish_error", sa.Text),
        schema=SCHEMA,
    )
    op.create_index(
        "listing_claimable",
        "listing",
        ["priority", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("status IN ('pending', 'retry', 'leased')"),
    )
    op.create_index(
        "listing_unpublished",
        "listing",
        ["id"],
        schema=SCHEMA,
        postgresql_where=sa.text("revision IS NOT NULL AND published_revision IS DISTINCT FROM revision"),
    )
    op.create_index(
        "listing_photos",
        "listing",
        ["photos"],
        schema=SCHEMA,
        postgresql_using="gin",
        postgresql_ops={"photos": "jsonb_path_ops"},
    )


def _photos() -> None:
    op.create_table(
        "photo",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("version", sa.Text),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        _time("next_try"),
        sa.Column("error", sa.Text),
        _now("checked_at"),
        schema=SCHEMA,
    )
    op.create_table(
        "photo_score",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("model_id", sa.String(64), primary_key=True),
        sa.Column("dhash", sa.BigInteger, nullable=False),
        sa.Column("scores", JSONB, nullable=False),
        schema=SCHEMA,
    )


def _people_and_runs() -> None:
    op.create_table(
        "override",
        _id("listing_id"),
        sa.Column("field", sa.Text, primary_key=True),
        sa.Column("value", JSONB, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("created_by", sa.Text),
        _now("created_at"),
        schema=SCHEMA,
    )
    op.create_table(
        "run",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("host", sa.Text),
        _now("started_at"),
        _time("finished_at"),
        sa.Column("exit_code", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("bundle_id", sa.Text),
        sa.Column("figures", JSONB, nullable=False, server_default=sa.text("'{}'")),
        schema=SCHEMA,
    )
    op.create_table(
        "lock",
        sa.Column("name", sa.String(24), primary_key=True),
        sa.Column("holder", sa.Text),
        sa.Column("token", sa.Uuid),
        _time("expires"),
        schema=SCHEMA,
    )


def _index() -> None:
    op.create_table(
        "target",
        sa.Column("one", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("uuid", sa.Text, nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "document",
        sa.Column("index", sa.Text, primary_key=True),
        _id("id"),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("document", JSONB),
        schema=SCHEMA,
    )
