"""The enrichment library: one module per stage; see docs/architecture.md for the picture."""
