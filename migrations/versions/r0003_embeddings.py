"""Embeddings: the features of scored photos, so that other heads need no photo."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = "enrichment"


def upgrade() -> None:
    op.create_table(
        "photo_embedding",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("feature_id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("scale", sa.Float, nullable=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("photo_embedding", schema=SCHEMA)
