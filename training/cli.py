"""The `enrich-train` command: compare architectures, make and evaluate model bundles."""

import sqlite3
import sys
from io import TextIOWrapper

import typer

from enrich.atomic import FULL, no_room
from enrich.errors import EnrichError, UsageError

try:
    from training.compare.command import compare_command
    from training.compare.export import export_command
    from training.data.prepare import prepare_command
    from training.evaluate.command import evaluate_command
    from training.fit.command import fit_command
    from training.report.command import report_command
except ModuleNotFoundError as missing:
    if (missing.name or "").startswith(("enrich", "training")):
        raise
    install = "pip install 'listing-enrichment[training]'"
    sys.stderr.write(f"enrich-train: training needs {missing.name}, which is not installed: {install}\n")
    sys.exit(2)

app = typer.Typer(
    name="enrich-train",
    help="Compare architectures, make and evaluate model bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("prepare")(prepare_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("fit")(fit_command)
app.command("evaluate")(evaluate_command)
app.command("export")(export_command)


def main() -> None:
    """Run the command; a mistake, a full disk or a file that the system refuses ends in one line, with its
    exit code."""
    if isinstance(sys.stdout, TextIOWrapper):  # in a locale without them, our signs would end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    ended: EnrichError
    try:
        app()
        return
    except EnrichError as error:
        ended = error
    except OSError as error:
        file, why = error.filename, error.strerror
        if error.errno in FULL:
            ended = no_room("the disk is full", file)
        elif file is not None:
            ended = UsageError(f"{file} cannot be used: {why}; see that it is there, and that you may use it")
        else:
            raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        ended = no_room("the disk is full", None)
    print(f"enrich-train: {ended}", file=sys.stderr)  # noqa: T201
    sys.exit(ended.exit_code)
