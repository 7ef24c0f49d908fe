"""What pages and pictures look like: one style sheet, and its colours for what is no page."""

import re
from functools import cache
from importlib.resources import files


@cache
def style_sheet() -> str:
    """The style sheet, to stand inside a page."""
    return (files("enrich") / "looks.css").read_text(encoding="utf-8")


@cache
def colour(name: str) -> str:
    """The colour of this name on white, such as `#0b6e6e` for `accent`.

    Raises:
        KeyError: there is none.
    """
    light = style_sheet().partition("}")[0]
    named: dict[str, str] = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", light))
    return named[name]
