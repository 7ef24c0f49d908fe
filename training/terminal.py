"""What the commands of training say to people."""

from rich.console import Console


def plain(*, stderr: bool = False, highlight: bool = True, soft_wrap: bool = True) -> Console:
    """A terminal for names of folders, tasks and classes, which stand as they are: what looks like markup or
    like the name of a picture is neither. `soft_wrap`: a long line stays one; not for tables and bars."""
    return Console(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap, markup=False, emoji=False)
