"""What the commands of training say to people."""

import shlex
from collections.abc import Iterable, Mapping
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def plain(*, stderr: bool = False, highlight: bool = True, soft_wrap: bool = True) -> Console:
    """A terminal for names of folders, tasks and classes, which stand as they are: what looks like markup or
    like the name of a picture is neither. `soft_wrap`: a long line stays one; not for tables and bars."""
    return Console(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap, markup=False, emoji=False)


def with_bar(items: Iterable[Item], what: str, total: int) -> Iterable[Item]:
    """The items, with a progress bar on a terminal's stderr."""
    console = Console(stderr=True)  # on what is no terminal, a progress bar leaves empty lines
    return track(items, what, total, console=console, transient=True, disable=not console.is_interactive)


def typed(command: str, options: Mapping[str, object]) -> str:
    """A command of `enrich-train` as people type it, with the options that hold something."""
    words = ["enrich-train", command]
    for name, value in options.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one not in (None, ""):
                words += [f"--{name.replace('_', '-')}", shlex.quote(str(one))]
    return " ".join(words)
