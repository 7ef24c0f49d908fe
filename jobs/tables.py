"""Tables that people wrote, as CSV."""

import csv
import io
from collections.abc import Sequence

from enrich.errors import UsageError


def refuse_nul(text: str, where: str) -> None:
    """Refuse a text with characters that Postgres cannot even be asked for.

    Raises:
        UsageError: it holds such a one; `where` is for the message.
    """
    if "\0" in text:
        raise UsageError(f"{where}: holds NUL characters, as a file in UTF-16 does; save it as UTF-8")


def read_table(text: str, where: str) -> tuple[Sequence[str], list[tuple[int, dict[str, str | None]]]]:
    """The columns of a table, and its rows, each with the number of its (last) line; `where` is for messages.

    Raises:
        UsageError: it is no table, or holds NUL characters. A quotation mark that is not closed would take
            all lines behind it along.
    """
    refuse_nul(text, where)
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        found = [(rows.line_num, row) for row in rows]
        return rows.fieldnames or (), found
    except csv.Error as error:
        raise UsageError(
            f"{where}, line {rows.line_num}: {error}; maybe of a quotation mark that is not closed"
        ) from None
