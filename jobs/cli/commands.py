"""The `enrich` command. Every command reads its settings from the environment, see `enrich settings`."""

import getpass
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from enrich.errors import RemovalGuardError, UsageError
from enrich.settings import Settings, load_settings
from jobs.cli.guard import be_verbose, guarded, stopping
from jobs.cli.parse import read_assignment, read_ids, read_query
from jobs.views import print_json

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Reads the photos of property listings and makes what they show searchable: balcony, fireplace, "
    "room types. Start with [bold]enrich demo[/].",
    epilog="Settings come from the environment or a file .env; [bold]enrich settings[/] lists them.",
)

Verbose = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        callback=be_verbose,
        help="Log in detail, and show tracebacks of unexpected errors.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Ids = Annotated[
    Path | None,
    typer.Option(
        "--ids",
        metavar="FILE",
        allow_dash=True,
        help="Only these listings: a file, one id a line; - is stdin.",
    ),
]
Revalidate = Annotated[
    bool, typer.Option("--revalidate", help="Ask the photo hosts whether photos changed behind their URLs.")
]


def main() -> None:
    """The console script."""
    sys.exit(guarded(app))


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"enrich {version('listing-enrichment')}\n")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Verbose = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    photos: Annotated[
        Path | None,
        typer.Option(
            "--photos", metavar="DIR", help="Your own pictures instead: a folder with a folder per listing."
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the demo's database behind, to look around in.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run the whole job on twelve homes that come along, with embedded servers.

    Needs no server, no account and no settings, and touches nothing of yours: DATABASE_URL and
    ELASTICSEARCH_URL are left alone.
    """
    from jobs.demo.run import run_demo

    with stopping() as stop:
        run_demo(photos, keep, stop)


@app.command()
def migrate(verbose: Verbose = False) -> None:
    """Create the schema `enrichment`, or bring it up to date. Safe to repeat."""
    from jobs.migrate import migrate as start

    reached = start(load_settings())
    sys.stdout.write(f"the schema enrichment is at version {reached}\n")


@app.command()
def check(verbose: Verbose = False) -> None:
    """Verify databases, tables, bundle, index and ten photos; write nothing. Exit code 2: not all is well."""
    from jobs.check import all_checks
    from jobs.views.check import show_checks

    raise typer.Exit(show_checks(all_checks(load_settings())))


@app.command()
def run(
    limit: Annotated[int | None, typer.Option(min=1, help="Enrich at most so many listings.")] = None,
    ids: Ids = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print counts and so many documents (default: 20); write nothing."),
    ] = False,
    revalidate: Revalidate = False,
    allow_removals: Annotated[
        bool, typer.Option("--allow-removals", help="Remove documents beyond ENRICH_MAX_REMOVED, this once.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """The nightly run: find what changed, enrich it, publish it.

    Exit code 0: done; 1: listings were quarantined or documents refused; 2: wrong usage or settings;
    3: stopped by the error budget, an outage or the removal guard; 75: another run is under way.
    """
    from jobs.run.nightly import RunOptions
    from jobs.run.nightly import run as nightly
    from jobs.views.report import show_rehearsal, show_report

    options = RunOptions(ids=read_ids(ids), limit=limit, allow_removals=allow_removals, revalidate=revalidate)
    with stopping() as stop:
        if dry_run:
            from jobs.run.dry_run import rehearse

            rehearsed = rehearse(load_settings(), options, stop)
            show_rehearsal(rehearsed, as_json=as_json)
            if rehearsed.discovery.refusal is not None:
                raise RemovalGuardError(rehearsed.discovery.refusal)
            return
        report = nightly(load_settings(), options, stop)
    show_report(report, as_json=as_json)
    raise typer.Exit(report.exit_code)


@app.command()
def backfill(
    ids: Ids = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="Only listings whose updated_at is at or after this time (in ENRICH_TIMEZONE)."),
    ] = None,
    stale_bundle: Annotated[
        bool, typer.Option("--stale-bundle", help="Only listings made with another bundle than the current.")
    ] = False,
    revalidate: Revalidate = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Enrich existing listings again: all, or some. The nightly run goes first; started again, it goes on."""
    from jobs.run.backfill import BackfillOptions
    from jobs.run.backfill import backfill as start
    from jobs.views.report import show_report

    settings = load_settings()
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=ZoneInfo(settings.timezone))
    options = BackfillOptions(
        ids=read_ids(ids), since=since, stale_bundle=stale_bundle, revalidate=revalidate
    )
    with stopping() as stop:
        report = start(settings, options, stop)
    show_report(report, as_json=as_json)
    raise typer.Exit(report.exit_code)


@app.command()
def publish(as_json: Json = False, verbose: Verbose = False) -> None:
    """Send what is not published yet to the index; fetches and scores nothing."""
    from jobs.run.publish import publish as start
    from jobs.views.report import show_report

    with stopping() as stop:
        report = start(load_settings(), stop)
    show_report(report, as_json=as_json)
    raise typer.Exit(report.exit_code)


@app.command()
def search(
    has: Annotated[
        list[str] | None, typer.Option("--has", metavar="X", help="Listings that have X; may be repeated.")
    ] = None,
    room: Annotated[
        list[str] | None,
        typer.Option("--room", metavar="TYPE", help="Listings that show such a room; may be repeated."),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="HEAD=CLASS", help="The same for any head with classes: room=kitchen."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="A copied column equals a value."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Listings shown at most.")] = 20,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Ask the index as a buyer would: enrich search --has balcony --room kitchen --where city=Solna"""
    from jobs.run.services import open_services
    from jobs.views.search import show_hits

    settings = load_settings()
    query = read_query(has or [], room or [], types or [], where or [], limit)
    with open_services(settings) as services:
        hits = services.index.search(query)
        if as_json:
            print_json({"total": hits.total, "hits": hits.documents})
        else:
            show_hits(hits, query, services.bundle.heads, list(services.source.copied_columns()))


@app.command()
def status(as_json: Json = False, verbose: Verbose = False) -> None:
    """How things stand: listings done, waiting and in trouble, what is published, and the last runs."""
    from enrich.state.summary import summary as summarize
    from jobs.run.services import open_services
    from jobs.views.status import as_plain, show_status

    with open_services(load_settings()) as services:
        summary, runs = summarize(services.database), services.runs.runs(10)
        if as_json:
            print_json(as_plain(summary, runs, services.bundle))
        else:
            show_status(summary, runs, services.bundle, services.settings)


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The listing's id.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Why a listing has the values it has: every photo, what the model said of it, and what a person said."""
    from jobs.run.services import open_services
    from jobs.views.show import explain, show_listing

    with open_services(load_settings()) as services:
        explained = explain(services, id)
        if as_json:
            print_json(explained)
        else:
            show_listing(explained, services.bundle.heads)


@app.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Listings to try again.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that are quarantined or wait to be tried again.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Have the next run try listings again now, with photos that had failed for good."""
    from enrich.state.summary import details
    from jobs.run.services import open_services

    if bool(ids) == everything:
        raise UsageError("name the listings to try again, or say --all")
    with open_services(load_settings()) as services:
        for id in ids or []:
            details(services.database, id)  # an unknown id is an error, before anything is changed
        count = services.requests.retry(ids or None)
    sys.stdout.write(f"{count} listings will be tried again by the next run\n")


@app.command()
def override(
    id: Annotated[str, typer.Argument(metavar="ID", help="The listing's id.")],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD=VALUE]...",
            help="has_balcony=true, =false or =unknown; room_types=kitchen,bathroom",
        ),
    ] = None,
    clear: Annotated[
        list[str] | None,
        typer.Option("--clear", metavar="FIELD", help="Let the model speak again; may be repeated."),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, for whoever looks at it later.")] = None,
    verbose: Verbose = False,
) -> None:
    """Say yourself what a listing has. It outranks the model now and after every later run.

    The next publish takes it to the index.
    """
    from jobs.run.services import open_services

    if not assignments and not clear:
        raise UsageError("say what to override, such as has_balcony=false, or --clear has_balcony")
    with open_services(load_settings()) as services:
        given = [read_assignment(text, services.bundle.heads) for text in assignments or []]
        for field, value in given:
            services.overrides.set_override(id, field, value, note, _person())
            sys.stdout.write(f"{id}: {field} is now yours to say\n")
        for field in clear or []:
            found = services.overrides.clear_override(id, field)
            sys.stdout.write(f"{id}: {field} {'is the model’s again' if found else 'had no override'}\n")
    sys.stdout.write("`enrich publish`, or the next run, takes it to the index\n")


def _person() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        return None


@app.command()
def worker(verbose: Verbose = False) -> None:
    """Stay, and run every time ENRICH_CRON says so. SIGTERM ends it after the batch in hand."""
    from jobs.run.worker import work

    with stopping() as stop:
        work(load_settings(), stop)


@app.command()
def settings(as_json: Json = False, verbose: Verbose = False) -> None:
    """All settings: variable, value, default and meaning. Secrets are not shown."""
    from enrich.index.mapping import read_extras
    from enrich.model.bundle import load_bundle
    from jobs.views.settings import rows, show_settings

    current: Settings = load_settings()
    if current.index_mapping or current.index_settings:
        read_extras(current, load_bundle(current.bundle).heads)
    if as_json:
        print_json(rows(current))
    else:
        show_settings(current)


if __name__ == "__main__":
    main()
