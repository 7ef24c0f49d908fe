"""What people say of photos, what the view `photo_attributes` needs, bounds on what a backfill changes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

SCHEMA = "enrichment"


def upgrade() -> None:
    op.create_table(
        "bundle",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("heads", JSONB, nullable=False),
        sa.Column("first_used", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        schema=SCHEMA,
    )
    op.create_table(
        "label",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("head", sa.Text, primary_key=True),
        sa.Column("value", JSONB, nullable=False),
        sa.Column("created_by", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        schema=SCHEMA,
    )
    op.add_column("backfill", sa.Column("max_flips", sa.Text), schema=SCHEMA)
    op.add_column(
        "backfill",
        sa.Column("flips", JSONB, nullable=False, server_default=sa.text("'{}'")),
        schema=SCHEMA,
    )
    op.add_column("backfill", sa.Column("held", sa.Text), schema=SCHEMA)


def downgrade() -> None:
    for column in ("held", "flips", "max_flips"):
        op.drop_column("backfill", column, schema=SCHEMA)
    op.execute(f"DROP VIEW IF EXISTS {SCHEMA}.photo_attributes")
    op.drop_table("label", schema=SCHEMA)
    op.drop_table("bundle", schema=SCHEMA)
