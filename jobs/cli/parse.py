"""Reads what people write on the command line."""

import errno
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enrich.atomic import reading
from enrich.errors import UsageError
from enrich.index.protocol import Query
from enrich.model.head import Head
from enrich.model.kind import Overridable
from enrich.settings import Settings
from enrich.state.overrides import Said
from jobs.tables import read_table, refuse_nul


def person(given: str | None, settings: Settings) -> str | None:
    """Who says something: as `given`, or as ENRICH_PERSON or the system has it."""
    if given or settings.person:
        return given or settings.person
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        return None


def read_ids(path: Path | None) -> tuple[str, ...] | None:
    """The ids in a file (- is stdin), one a line, each once.

    Raises:
        UsageError: the file cannot be read, holds no id, or NUL characters.
    """
    if path is None:
        return None
    with reading(f"--ids {path}:"):
        content = _stdin() if str(path) == "-" else path.read_bytes()
        text = content.decode("utf-8-sig")
    refuse_nul(text, f"--ids {path}")
    ids = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not ids:
        raise UsageError(f"--ids {path}: holds no id; write one a line")
    return ids


def _stdin() -> bytes:
    """All of stdin, whatever encoding the surroundings would read it in."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "stdin is closed")
    return sys.stdin.buffer.read()


def read_query(
    has: Sequence[str], rooms: Sequence[str], types: Sequence[str], where: Sequence[str], limit: int
) -> Query:
    """The options of `enrich search` as a query; whether the names exist is the index's to say.

    Raises:
        UsageError: an option that is not NAME=VALUE, or a column with two values.
    """
    wanted: dict[str, list[str]] = {"room": list(rooms)} if rooms else {}
    for option in types:
        name, kind = _split("--type", option, "room=kitchen")
        wanted.setdefault(name, []).append(kind)
    columns: dict[str, str] = {}
    for option in where:
        name, value = _split("--where", option, "city=Solna")
        if columns.setdefault(name, value) != value:
            raise UsageError(f"--where {name} is given twice: one value of a column can be asked for")
    return Query(tuple(has), {name: tuple(kinds) for name, kinds in wanted.items()}, columns, limit)


def read_said(path: Path, heads: Sequence[Head], by: str | None) -> list[Said]:
    """The overrides in a CSV file with the columns listing_id, field and value, and maybe note and by.

    Raises:
        UsageError: the file cannot be read, lacks a column, or a line is no override.
    """
    with reading(f"--import {path}:"):
        text = path.read_text(encoding="utf-8-sig")
    columns, rows = read_table(text, f"--import {path}")
    if missing := {"listing_id", "field", "value"} - set(columns):
        raise UsageError(f"--import {path}: lacks the column {', '.join(sorted(missing))}")
    said = []
    for number, row in rows:
        try:
            field, value = read_assignment(f"{row['field']}={row['value'] or ''}", heads)
        except UsageError as error:
            raise UsageError(f"--import {path}, line {number}: {error}") from None
        note, who = row.get("note") or None, row.get("by") or by
        said.append(Said((row["listing_id"] or "").strip(), field, value, note, who))
    return said


def read_assignment(text: str, heads: Sequence[Head]) -> tuple[str, Any]:
    """`has_balcony=true` -> ("has_balcony", True); `room_types=kitchen,bathroom` -> ("room_types", (…)).

    Raises:
        UsageError: not a field of the bundle's heads, or not a value for it.
    """
    field, value = _split("override", text, "has_balcony=false")
    fields = {h.rules.answer_field(h.name): (h.rules, h) for h in heads if isinstance(h.rules, Overridable)}
    if field not in fields:
        raise UsageError(f"{field!r} cannot be overridden: name one of {', '.join(fields)}")
    kind, head = fields[field]
    return field, kind.read_override(head, value)


def _split(option: str, text: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{option} {text}: write it as {example}")
    return name.strip(), value.strip()
