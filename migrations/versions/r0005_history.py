"""The history of published answers, and what people answered in the review queue."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

SCHEMA = "enrichment"
Id, Time = sa.Text(collation="C"), sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "review",
        sa.Column("listing_id", Id, primary_key=True),
        sa.Column("field", sa.Text, primary_key=True),
        sa.Column("person", sa.Text, primary_key=True),
        sa.Column("answer", sa.Boolean),
        sa.Column("sha256", sa.String(64)),
        sa.Column("before", JSONB, nullable=False),
        sa.Column("at", Time, nullable=False, server_default=sa.text("clock_timestamp()")),
        schema=SCHEMA,
    )
    op.create_index("review_person", "review", ["person", "at"], schema=SCHEMA)
    op.create_table(
        "history",
        sa.Column("listing_id", Id, primary_key=True),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("at", Time, nullable=False, server_default=sa.text("now()")),
        sa.Column("field", sa.Text, nullable=False),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("bundle_id", sa.Text),
        sa.Column("bundle_before", sa.Text),
        sa.Column("cause", sa.String(8), nullable=False),
        sa.Column("person", sa.Text),
        schema=SCHEMA,
    )
    op.create_index(
        "history_flip",
        "history",
        ["bundle_id", "field", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("bundle_before <> bundle_id"),
    )
    op.create_index("override_said", "override", ["field", "created_at", "listing_id"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_index("override_said", "override", schema=SCHEMA)
    op.drop_table("history", schema=SCHEMA)
    op.drop_table("review", schema=SCHEMA)
