"""What pages and pictures look like: their colours, and the style sheet of pages that stand in one file."""

import re
from functools import cache
from importlib.resources import files


@cache
def colours() -> str:
    """A style sheet that names colours, for light and dark."""
    return (files("enrich") / "colours.css").read_text(encoding="utf-8")


def style_sheet() -> str:
    """The style sheet with its colours, to stand inside a page."""
    return colours() + (files("enrich") / "looks.css").read_text(encoding="utf-8")


@cache
def colour(name: str) -> str:
    """The colour of this name on white, such as `#0b6e6e` for `accent`.

    Raises:
        KeyError: there is none.
    """
    light = colours().partition("}")[0]
    named: dict[str, str] = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", light))
    return named[name]
