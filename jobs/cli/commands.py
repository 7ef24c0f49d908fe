"""The `enrich` command. Every command reads its settings from the environment, see `enrich settings`."""

import sys

from jobs.cli import enriching, looking, saying, serving  # noqa: F401 (their commands become known)
from jobs.cli.app import app
from jobs.cli.guard import forget_unwritten, guarded


def main() -> None:
    """The console script."""
    try:
        sys.exit(guarded(app))
    finally:
        forget_unwritten()


if __name__ == "__main__":
    main()
