"""The `enrich` command."""
