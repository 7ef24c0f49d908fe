"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, figures: bool = False) -> str:
    """A Markdown table; all columns but the first are set to the right where they are `figures`."""
    rule = ["---"] + ["---:" if figures else "---"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [header, rule, *rows])
