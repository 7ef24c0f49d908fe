"""The `enrich` command. Every command reads its settings from the environment, see `enrich settings`."""

import os
import sys
from io import TextIOWrapper

from jobs.cli import enriching, looking, saying, serving  # noqa: F401 (their commands become known)
from jobs.cli.app import app
from jobs.cli.guard import forget_unwritten, guarded


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever starts it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stdout, TextIOWrapper):  # in a locale without them, our signs would end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(guarded(app))
    finally:
        forget_unwritten()


if __name__ == "__main__":
    main()
