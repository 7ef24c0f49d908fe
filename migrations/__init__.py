"""Alembic migrations of the schema enrichment."""
