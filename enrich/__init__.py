"""The enrichment library: a folder per part of the picture in docs/architecture.md."""
