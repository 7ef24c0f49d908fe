"""Tables that people wrote, as CSV."""

import csv
import io
from collections.abc import Sequence

from enrich.errors import UsageError


def read_table(text: str, where: str) -> tuple[Sequence[str], list[tuple[int, dict[str, str | None]]]]:
    """The columns of a table, and its rows, each with the number of its (last) line; `where` is for messages.

    Raises:
        UsageError: it is no table. A quotation mark that is not closed would take all lines behind it along.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        found = [(rows.line_num, row) for row in rows]
        return rows.fieldnames or (), found
    except csv.Error as error:
        raise UsageError(
            f"{where}, line {rows.line_num}: {error}; maybe of a quotation mark that is not closed"
        ) from None
