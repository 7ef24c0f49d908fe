"""Faults on purpose: bad input of every kind, and what came of it, counted for docs/reliability.md."""
