"""What the commands print on stdout: a table each for people, and plain JSON for programs."""

import codecs
import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from enrich.model.kind import SIGNS, Kind
from jobs.cli.terminal import readable

_COLOURS: dict[bool | None, str] = {True: "green", False: "red", None: "dim"}
MARKS = {answer: f"[{_COLOURS[answer]}]{sign}[/]" for answer, sign in SIGNS.items()}
"""How an answer is shown: yes, no, unknown."""
_WIDE = 200  # columns where nobody's terminal sets a limit


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(readable(text), **options)


def console() -> Console:
    """A console on stdout; wide where it is no terminal, so that a file or pipe gets whole lines."""
    return _Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE)


def table(*columns: str | Column, title: str | None = None) -> Table:
    """A table for people, without rows."""
    return Table(*columns, title=title, title_justify="left", header_style="bold")


def whole(*headers: str) -> list[Column]:
    """Columns of which all is shown, on several lines where the terminal is narrow."""
    return [Column(header, overflow="fold") for header in headers]


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json_text(value, indent=2) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON for stdout: in ASCII where that is not UTF-8, as Python writes out what it lacks as no JSON."""
    encoding = codecs.lookup(sys.stdout.encoding or "utf-8").name
    return readable(json.dumps(value, indent=indent, ensure_ascii=encoding != "utf-8", default=str))


def answer(kind: Kind, name: str, document: Mapping[str, Any]) -> str:
    """What a document says of the head `name` in a table's cell, its sign in colour."""
    text = escape(kind.shown(name, document))
    found = next((said for said, sign in SIGNS.items() if text.startswith(sign)), ...)
    return text if found is ... else MARKS[found] + text[1:]


def words(name: str) -> str:
    """A class, a head or a kind of failure, as people write it: `living_room` is a living room."""
    return name.replace("_", " ")


def cell(value: Any) -> str:
    """The value of a column as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):  # a point
        value = list(value.values())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)


def listed(counts: Mapping[str, Any]) -> str:
    """`kitchen 2, bathroom 1`; a dash where there is nothing."""
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"
