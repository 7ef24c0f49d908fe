"""The `enrich` command as such: what all commands share."""

import logging

import typer

from jobs.cli import options as opt
from jobs.cli.misspelt import misspelt

log = logging.getLogger(__name__)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Reads the photos of property listings and makes what they show searchable: balcony, fireplace, "
    "room types. Start with [bold]enrich demo[/].",
    epilog="Settings come from the environment or a file .env; [bold]enrich settings[/] lists them.",
)


@app.callback()
def _common(
    context: typer.Context,
    verbose: opt.Verbose = False,
    show_version: opt.Version = False,
) -> None:
    if context.invoked_subcommand not in ("check", "settings"):  # they show it among their results
        warn_of_misspelt()


def warn_of_misspelt() -> None:
    """Name settings that are not there."""
    for warning in misspelt():
        log.warning(warning)
