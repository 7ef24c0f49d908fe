"""What the commands print on stdout: a table each for people, and plain JSON for programs."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]?[/]"}
"""How an attribute is shown: true, false, unknown."""
_WIDE = 200  # columns where nobody's terminal sets a limit


def console() -> Console:
    """A console on stdout; wide where it is no terminal, so that a file or pipe gets whole lines."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def mark(value: bool | None, confidence: float | None) -> str:
    """An attribute in a table's cell: its mark, and the confidence behind it."""
    return MARKS[value] if confidence is None else f"{MARKS[value]} {confidence:.2f}"


def listed(counts: Mapping[str, Any]) -> str:
    """`kitchen 2, bathroom 1`; a dash where there is nothing."""
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"
