"""`enrich override --list`."""

from collections.abc import Iterator

from rich.markup import escape

from enrich.state.overrides import Override, Overrides
from jobs.views import console, print_json, table, whole
from jobs.views.show import told

PAGE = 1_000


def show_overrides(overrides: Overrides, as_json: bool) -> None:
    """All overrides by listing: field, value, who said so and when, and the note."""
    rows = _all(overrides)
    if as_json:
        print_json(
            [
                {"listing_id": id, "field": o.field, "value": o.value, "note": o.note, "by": o.by, "at": o.at}
                for id, o in rows
            ]
        )
        return
    shown = table(*whole("listing", "field", "value", "by", "at", "note"))
    for id, o in rows:
        cells = (id, o.field, told(o.value), o.by or "", f"{o.at:%Y-%m-%d %H:%M}", o.note or "")
        shown.add_row(*map(escape, cells))
    console().print(shown if shown.row_count else "No overrides.")


def _all(overrides: Overrides) -> Iterator[tuple[str, Override]]:
    after = ""
    while page := overrides.listed(after, PAGE):
        for id, said in page.items():
            yield from ((id, one) for one in said)
            after = id
