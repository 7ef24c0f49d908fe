"""Owners: workers, backfills, removals, publications and listings' photos, each in a table of its own."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = "enrichment"


def upgrade() -> None:
    _workers()
    _backfills()
    _removals()
    _listing_photos()
    _publications()


def downgrade() -> None:
    _publications_back()
    _drop_listing_photos()
    _drop_removals()
    _drop_backfills()
    _drop_workers()


def _id(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text(collation="C"), **options)


def _time(name: str, **options: Any) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def _now(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def _add_with_index(column: sa.Column[object], index: str) -> None:
    op.add_column("listing", column, schema=SCHEMA)
    op.create_index(
        index,
        "listing",
        [column.name],
        schema=SCHEMA,
        postgresql_where=sa.text(f"{column.name} IS NOT NULL"),
    )


def _drop_with_index(column: str, index: str) -> None:
    op.drop_index(index, "listing", schema=SCHEMA)
    op.drop_column("listing", column, schema=SCHEMA)


def _workers() -> None:
    op.create_table(
        "worker",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("doing", sa.Text, nullable=False),
        _now("started"),
        _now("seen"),
        _time("expires", nullable=False),
        schema=SCHEMA,
    )
    _add_with_index(sa.Column("lease_worker", sa.Uuid), "listing_leased")
    # A lease under way holds as long as it would have: the worker that it stands for is the claim.
    op.execute(f"""
        INSERT INTO {SCHEMA}.worker (id, host, pid, doing, expires)
        SELECT lease_token, 'unknown', 0, 'run', max(lease_expires) FROM {SCHEMA}.listing
        WHERE lease_token IS NOT NULL GROUP BY lease_token
    """)  # noqa: S608 (our own constants)
    op.execute(f"UPDATE {SCHEMA}.listing SET lease_worker = lease_token WHERE lease_token IS NOT NULL")  # noqa: S608
    op.drop_column("listing", "lease_expires", schema=SCHEMA)


def _drop_workers() -> None:
    op.add_column("listing", _time("lease_expires"), schema=SCHEMA)
    op.execute(f"""
        UPDATE {SCHEMA}.listing SET lease_expires = coalesce(
            (SELECT expires FROM {SCHEMA}.worker WHERE worker.id = lease_worker), now())
        WHERE lease_token IS NOT NULL
    """)  # noqa: S608 (our own constants)
    _drop_with_index("lease_worker", "listing_leased")
    op.drop_table("worker", schema=SCHEMA)


def _backfills() -> None:
    op.create_table(
        "backfill",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("ids", sa.ARRAY(sa.Text)),
        _time("since"),
        sa.Column("stale_bundle", sa.Text),
        sa.Column("revalidate", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("cursor", sa.Text(collation="C"), nullable=False, server_default=""),
        sa.Column("marked", sa.BigInteger, nullable=False, server_default="0"),
        _now("created_at"),
        _time("marked_at"),
        _time("done_at"),
        schema=SCHEMA,
    )
    _add_with_index(sa.Column("backfill", sa.BigInteger), "listing_backfill")


def _drop_backfills() -> None:
    _drop_with_index("backfill", "listing_backfill")
    op.drop_table("backfill", schema=SCHEMA)


def _removals() -> None:
    op.create_table(
        "removal",
        sa.Column("run_id", sa.BigInteger, primary_key=True),
        _id("listing_id", primary_key=True),
        sa.Column("emptied", sa.Boolean, nullable=False),
        schema=SCHEMA,
    )
    op.drop_column("listing", "missing_run", schema=SCHEMA)


def _drop_removals() -> None:
    op.add_column("listing", sa.Column("missing_run", sa.BigInteger), schema=SCHEMA)
    op.drop_table("removal", schema=SCHEMA)


def _listing_photos() -> None:
    op.create_table(
        "listing_photo",
        sa.Column("key", sa.String(64), primary_key=True),
        _id("listing_id", primary_key=True),
        schema=SCHEMA,
    )
    op.create_index("listing_photo_listing", "listing_photo", ["listing_id"], schema=SCHEMA)
    op.execute(f"""
        INSERT INTO {SCHEMA}.listing_photo (key, listing_id)
        SELECT DISTINCT photo ->> 'key', id FROM {SCHEMA}.listing, jsonb_array_elements(photos) AS photo
    """)  # noqa: S608 (our own constants)
    op.drop_index("listing_photos", "listing", schema=SCHEMA)


def _drop_listing_photos() -> None:
    op.create_index(
        "listing_photos",
        "listing",
        ["photos"],
        schema=SCHEMA,
        postgresql_using="gin",
        postgresql_ops={"photos": "jsonb_path_ops"},
    )
    op.drop_table("listing_photo", schema=SCHEMA)


def _publications() -> None:
    """The outbox moves out of `listing`, and the index last published to becomes the first target."""
    op.execute(
        f"ALTER TABLE {SCHEMA}.target DROP COLUMN one, ADD COLUMN id bigserial PRIMARY KEY,"
        " ADD COLUMN serving boolean NOT NULL DEFAULT true"
    )
    op.create_index("target_identity", "target", ["name", "mode", "uuid"], unique=True, schema=SCHEMA)
    op.create_table(
        "publication",
        sa.Column(
            "target",
            sa.BigInteger,
            sa.ForeignKey(f"{SCHEMA}.target.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        _id("listing_id", primary_key=True),
        sa.Column("revision", sa.BigInteger),
        sa.Column("status", sa.String(12), nullable=False, server_default="waiting"),
        sa.Column("error", sa.Text),
        _time("not_before"),
        schema=SCHEMA,
    )
    op.create_index(
        "publication_waiting",
        "publication",
        ["target", "listing_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("status <> 'done'"),
    )
    op.execute(f"""
        INSERT INTO {SCHEMA}.publication (target, listing_id, revision, status, error)
        SELECT t.id, l.id, l.published_revision,
               CASE WHEN l.published_revision = l.revision THEN 'done'
                    WHEN l.publish_status IN ('awaiting', 'refused') THEN l.publish_status
                    ELSE 'waiting' END,
               CASE WHEN l.published_revision IS DISTINCT FROM l.revision THEN l.publish_error END
        FROM {SCHEMA}.listing AS l, {SCHEMA}.target AS t
        WHERE l.revision IS NOT NULL
    """)  # noqa: S608 (our own constants)
    op.drop_index("listing_unpublished", "listing", schema=SCHEMA)
    for column in _OUTBOX:
        op.drop_column("listing", column, schema=SCHEMA)


_OUTBOX: dict[str, Any] = {
    "published_revision": sa.BigInteger,
    "publish_status": sa.String(12),
    "publish_error": sa.Text,
}


def _publications_back() -> None:
    for column, kind in _OUTBOX.items():
        op.add_column("listing", sa.Column(column, kind), schema=SCHEMA)
    op.execute(f"""
        UPDATE {SCHEMA}.listing AS l
        SET published_revision = p.revision, publish_status = nullif(p.status, 'waiting'),
            publish_error = p.error
        FROM {SCHEMA}.publication AS p JOIN {SCHEMA}.target AS t ON t.id = p.target AND t.serving
        WHERE p.listing_id = l.id
    """)  # noqa: S608 (our own constants)
    op.create_index(
        "listing_unpublished",
        "listing",
        ["id"],
        schema=SCHEMA,
        postgresql_where=sa.text("revision IS NOT NULL AND published_revision IS DISTINCT FROM revision"),
    )
    op.drop_table("publication", schema=SCHEMA)
    op.execute(f"DELETE FROM {SCHEMA}.target WHERE NOT serving")  # noqa: S608 (our own constants)
    op.drop_index("target_identity", "target", schema=SCHEMA)
    op.execute(
        f"ALTER TABLE {SCHEMA}.target DROP COLUMN id, DROP COLUMN serving,"
        " ADD COLUMN one boolean NOT NULL DEFAULT true PRIMARY KEY"
    )
