"""The `enrich` command. Every command reads its settings from the environment, see `enrich settings`."""

import logging
import sys
from zoneinfo import ZoneInfo

import typer

from enrich.errors import RemovalGuardError, SignalError, UsageError
from enrich.settings import load_settings
from jobs.cli import options as opt
from jobs.cli.guard import end, guarded, stopping
from jobs.cli.misspelt import misspelt
from jobs.cli.parse import person, read_assignment, read_ids, read_query
from jobs.views import print_json

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


def main() -> None:
    """The console script."""
    sys.exit(guarded(app))


@app.callback()
def _common(
    context: typer.Context,
    verbose: opt.Verbose = False,
    show_version: opt.Version = False,
) -> None:
    if context.invoked_subcommand not in ("check", "settings"):  # they show it among their results
        _warn_of_misspelt()


def _warn_of_misspelt() -> None:
    for warning in misspelt():
        log.warning(warning)


@app.command()
def demo(photos: opt.Photos = None, keep: opt.Keep = False, verbose: opt.Verbose = False) -> None:
    """Run the whole job on twelve homes that come along, with embedded servers.

    Needs no server, no account and no settings, and touches nothing of yours: DATABASE_URL and
    ELASTICSEARCH_URL are left alone.
    """
    from jobs.demo.run import run_demo

    with stopping() as stop:
        run_demo(photos, keep, stop)


@app.command()
def migrate(verbose: opt.Verbose = False) -> None:
    """Create the schema `enrichment`, or bring it up to date. Safe to repeat."""
    from jobs.migrate import migrate as start

    place, reached = start(load_settings())
    sys.stdout.write(f"the schema enrichment at {place} is at version {reached}\n")


@app.command()
def check(verbose: opt.Verbose = False) -> None:
    """Verify databases, tables, bundle, index and ten photos; write nothing. Exit code 2: not all is well."""
    from jobs.check import all_checks
    from jobs.views.check import show_checks

    raise typer.Exit(show_checks(all_checks(load_settings())))


@app.command()
def run(
    limit: opt.Limit = None,
    ids: opt.Ids = None,
    dry_run: opt.DryRun = False,
    revalidate: opt.Revalidate = False,
    allow_removals: opt.AllowRemovals = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """The nightly run: find what changed, enrich it, publish it.

    Exit code 0: done; 1: listings were quarantined or documents refused; 2: wrong usage or settings;
    3: stopped by the error budget, an outage or the removal guard; 75: another run is under way;
    130 or 143: stopped by SIGINT or SIGTERM.
    """
    from jobs.run.nightly import RunOptions
    from jobs.run.nightly import run as nightly
    from jobs.views.report import show_rehearsal

    options = RunOptions(ids=read_ids(ids), limit=limit, allow_removals=allow_removals, revalidate=revalidate)
    with stopping() as stop:
        if dry_run:
            from jobs.run.dry_run import rehearse

            rehearsed = rehearse(load_settings(), options, stop)
            show_rehearsal(rehearsed, as_json=as_json)
            if stop.is_set():
                raise SignalError("stopped by signal: this is not all there is to write", stop.exit_code)
            if rehearsed.discovery.refusal is not None:
                raise RemovalGuardError(rehearsed.discovery.refusal)
            return
        report = nightly(load_settings(), options, stop)
    end(report, as_json)


@app.command()
def backfill(
    ids: opt.Ids = None,
    since: opt.Since = None,
    stale_bundle: opt.StaleBundle = False,
    revalidate: opt.Revalidate = False,
    ray: opt.Ray = None,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Enrich existing listings again: all, or some. The nightly run goes first; started again, it goes on."""
    from jobs.run.backfill import BackfillOptions
    from jobs.run.backfill import backfill as start

    settings = load_settings()
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=ZoneInfo(settings.timezone))
    options = BackfillOptions(
        ids=read_ids(ids), since=since, stale_bundle=stale_bundle, revalidate=revalidate, ray=ray
    )
    with stopping() as stop:
        report = start(settings, options, stop)
    end(report, as_json)


@app.command()
def rescore(ids: opt.Ids = None, as_json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """Take listings made with another bundle to the current one, from kept features: no photo is fetched."""
    from jobs.run.rescore import rescore as start

    with stopping() as stop:
        report = start(load_settings(), read_ids(ids), stop)
    end(report, as_json)


@app.command()
def publish(as_json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """Send what is not published yet to the index; fetches and scores nothing."""
    from jobs.run.publish import publish as start

    with stopping() as stop:
        report = start(load_settings(), stop)
    end(report, as_json)


@app.command()
def search(
    has: opt.Has = None,
    room: opt.Room = None,
    types: opt.Types = None,
    where: opt.Where = None,
    limit: opt.Shown = 20,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
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
def status(as_json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """How things stand: listings done, waiting and in trouble, what is published, and the last runs."""
    from enrich.state.summary import summary as summarize
    from jobs.run.services import open_records
    from jobs.views.status import as_plain, show_status

    with open_records(load_settings()) as records:
        summary, runs = summarize(records.database), records.runs.runs(10)
        if as_json:
            print_json(as_plain(summary, runs, records.model))
        else:
            show_status(summary, runs, records.model, records.settings)


@app.command()
def show(id: opt.Id, as_json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """Why a listing has the values it has: every photo, what the model said of it, and what a person said."""
    from jobs.run.services import open_records
    from jobs.views.show import explain, show_listing

    with open_records(load_settings()) as records:
        explained = explain(records, records.source.spelled(id))
        if as_json:
            print_json(explained)
        else:
            show_listing(explained, records.bundle.heads)


@app.command()
def retry(ids: opt.Named = None, everything: opt.Everything = False, verbose: opt.Verbose = False) -> None:
    """Have the next run try listings again now, with photos that had failed for good."""
    from enrich.state.summary import details
    from jobs.run.services import open_records

    if bool(ids) == everything:
        raise UsageError("name the listings to try again, or say --all")
    with open_records(load_settings()) as records:
        named = records.spelled(ids or None)
        for id in named or []:
            details(records.database, id)  # an unknown id is an error, before anything is changed
        count = records.requests.retry(named)
    sys.stdout.write(f"{count} listings will be tried again by the next run\n")


@app.command()
def override(
    id: opt.Id,
    assignments: opt.Assignments = None,
    clear: opt.Clear = None,
    note: opt.Note = None,
    verbose: opt.Verbose = False,
) -> None:
    """Say yourself what a listing has. It outranks the model now and after every later run.

    The next publish takes it to the index.
    """
    from jobs.run.services import open_records

    if not assignments and not clear:
        raise UsageError("say what to override, such as has_balcony=false, or --clear has_balcony")
    with open_records(load_settings()) as records:
        id = records.source.spelled(id)
        given = [read_assignment(text, records.bundle.heads) for text in assignments or []]
        for field, value in given:
            records.overrides.set_override(id, field, value, note, person())
            sys.stdout.write(f"{id}: {field} is now yours to say\n")
        for field in clear or []:
            found = records.overrides.clear_override(id, field)
            sys.stdout.write(f"{id}: {field} {'is the model’s again' if found else 'had no override'}\n")
    sys.stdout.write("`enrich publish`, or the next run, takes it to the index\n")


@app.command()
def export_features(file: opt.Parquet, photos: opt.PerPhoto = False, verbose: opt.Verbose = False) -> None:
    """Write attributes, counts and photo features of all enriched listings to a Parquet file."""
    from jobs.export import export
    from jobs.run.services import open_records

    with open_records(load_settings()) as records:
        rows = export(records, file, photos)
    sys.stdout.write(f"{rows} {'photos' if photos else 'listings'} written to {file}\n")


@app.command()
def worker(verbose: opt.Verbose = False) -> None:
    """Stay, and run every time ENRICH_CRON says so. SIGTERM ends it after the batch in hand."""
    with stopping() as stop:
        from jobs.run.worker import work  # takes a second, in which a signal is heeded already

        work(load_settings(), stop)


@app.command()
def settings(as_json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """All settings: variable, value, default and meaning. Secrets are not shown."""
    from enrich.errors import BundleError
    from enrich.index.mapping import read_extras
    from enrich.model.bundle import load_bundle
    from enrich.model.open import choose
    from jobs.run.schedule import trigger
    from jobs.views.settings import rows, show_settings

    current = load_settings()
    trigger(current)
    if current.index_mapping or current.index_settings:
        read_extras(current, load_bundle(current.bundle).heads)
    if not as_json:
        try:
            scores_in = str(choose(load_bundle(current.bundle), current))
        except BundleError as error:
            scores_in = f"nothing: {error}"
        show_settings(current, scores_in, misspelt())
        return
    _warn_of_misspelt()
    print_json(rows(current))


if __name__ == "__main__":
    main()
