"""Pages in Markdown: from templates, and their tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, figures: bool = False) -> str:
    """A Markdown table; all columns but the first are set to the right where they are `figures`."""
    rule = ["---"] + ["---:" if figures else "---"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in [header, rule, *rows])


def cell(value: object) -> str:
    """What stands in a table, without a pipe or line break that would end its cell."""
    return " ".join(str(value).replace("|", "\\|").splitlines())


def number(value: float | None) -> str:
    """Three digits, a dash where there is nothing to say."""
    return "–" if value is None else f"{value:.3f}"


def page(template: Path, **given: Any) -> str:
    """The text of a Jinja template of Markdown, with what is `given`, and `number` and `cell` as filters.
    Raises jinja2.UndefinedError: the template asks for something that is not there."""
    environment = Environment(  # Markdown: nothing to escape
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "cell": cell}
    return environment.get_template(template.name).render(given)
