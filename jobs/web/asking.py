"""A search as it stands in the address of the page, both ways."""

import math
import re
from collections.abc import Sequence
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from enrich.errors import UsageError
from enrich.index.protocol import Query

PER_PAGE = 24
HAS, TYPE, WHERE, FROM, TO = "has.", "type.", "where.", "from.", "to."
_DECIMAL_COMMA = re.compile(r"[^.,]+,\d{1,2}")
"""Three digits behind a comma may as well be thousands."""
ANSWERS = {"yes": True, "no": False, "unknown": None}


def read(params: QueryParams) -> Query:
    """The search of an address; whether its names exist is the index's to say.

    `has.X` is yes, no or unknown, `type.X` a class and may be repeated, `where.C` a value with its blanks,
    `from.C` and `to.C` are numbers, `sort` is a head and `page` a number from 1. What is blank asks for
    nothing, nor does `any`, unless it is a column's value.

    Raises:
        UsageError: a value that cannot be read.
    """
    said: dict[str, list[str]] = {answer: [] for answer in ANSWERS}
    types: dict[str, list[str]] = {}
    where: dict[str, str] = {}
    between: dict[str, tuple[float | None, float | None]] = {}
    for name, value in params.multi_items():
        if not name.startswith(WHERE):
            value = "" if value.strip() == "any" else value.strip()
        if not value.strip():
            continue
        if "\0" in value:  # which Postgres cannot even be asked for
            raise UsageError(f"{name}: no value holds such a sign")
        if name.startswith(HAS):
            if value not in said:
                raise UsageError(f"{name}={value}: write {', '.join(ANSWERS)} or any")
            said[value].append(name.removeprefix(HAS))
        elif name.startswith(TYPE):
            types.setdefault(name.removeprefix(TYPE), []).append(value)
        elif name.startswith(WHERE):
            if where.setdefault(name.removeprefix(WHERE), value) != value:
                raise UsageError(f"{name} is given twice: one value of a column can be asked for")
        elif name.startswith((FROM, TO)):
            column = name.partition(".")[2]
            least, most = between.get(column, (None, None))
            number = _number(name, value)
            between[column] = (number, most) if name.startswith(FROM) else (least, number)
    yes, no, unknown = (tuple(dict.fromkeys(said[answer])) for answer in ANSWERS)
    return Query(
        has=yes,
        lacks=no,
        unknown=unknown,
        types={head: tuple(dict.fromkeys(classes)) for head, classes in types.items()},
        where=where,
        between=between,
        sort=params.get("sort") or None,
        limit=PER_PAGE,
        offset=(_page(params.get("page", "1")) - 1) * PER_PAGE,
    )


def written(query: Query) -> str:
    """The part of an address that `read` reads, the same for the same search; "" where nothing is asked."""
    pairs: list[tuple[str, str]] = []
    for answer, heads in zip(ANSWERS, (query.has, query.lacks, query.unknown), strict=True):
        pairs += [(f"{HAS}{head}", answer) for head in heads]
    pairs += [(f"{TYPE}{head}", one) for head, classes in query.types.items() for one in classes]
    pairs += [(f"{WHERE}{column}", value) for column, value in query.where.items()]
    for column, (least, most) in query.between.items():
        pairs += [
            (f"{which}{column}", plain(bound))
            for which, bound in ((FROM, least), (TO, most))
            if bound is not None
        ]
    pairs += [("sort", query.sort)] if query.sort else []
    pairs += [("page", str(page(query)))] if page(query) > 1 else []
    return f"?{urlencode(pairs)}" if pairs else ""


def page(query: Query) -> int:
    """Which page of the hits it asks for, from 1."""
    return query.offset // PER_PAGE + 1


def answers(query: Query, heads: Sequence[str]) -> dict[str, str]:
    """Head -> yes, no, unknown or any, as asked."""
    asked = zip(ANSWERS, (query.has, query.lacks, query.unknown), strict=True)
    said = {head: answer for answer, named in asked for head in named}
    return {head: said.get(head, "any") for head in heads}


def plain(number: float | None) -> str:
    """A number as people write it, without an exponent or needless digits."""
    if number is None:
        return ""
    return str(int(number)) if number == int(number) else str(number)


def _number(name: str, text: str) -> float:
    plainly = text.replace(" ", "").replace("_", "")
    if _DECIMAL_COMMA.fullmatch(plainly):
        plainly = plainly.replace(",", ".")
    try:
        number = float(plainly)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name}={text}: a number is needed")
    return int(number) if number == int(number) else number


def _page(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 6 and int(text) > 0):
        raise UsageError(f"page={text[:20]}: a number from 1 is needed")
    return int(text)
