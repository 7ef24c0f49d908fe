"""Commands that look at what is there."""

import sys

import typer

from enrich.errors import UsageError
from enrich.settings import load_settings
from jobs.cli import options as opt
from jobs.cli.app import app, warn_of_misspelt
from jobs.cli.misspelt import misspelt
from jobs.cli.parse import read_query
from jobs.views import print_json


@app.command()
def check(verbose: opt.Verbose = False) -> None:
    """Verify databases, tables, bundle, index and ten photos; write nothing. Exit code 2: not all is well."""
    from jobs.check import all_checks
    from jobs.views.check import show_checks

    raise typer.Exit(show_checks(all_checks(load_settings())))


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
        night = next(iter(records.runs.nights(1)), None)
        if as_json:
            print_json(as_plain(summary, runs, night, records.model))
        else:
            show_status(summary, runs, night, records.model, records.settings)


@app.command()
def report(
    file: opt.Html,
    number: opt.Numbered = None,
    days: opt.LastDays = None,
    photos: opt.Pictures = 60,
    verbose: opt.Verbose = False,
) -> None:
    """What a run did, as one HTML file: figures, charts, homes with new filters, doubtful ones, failures.

    The file holds its pictures and loads nothing, so it can be sent by mail.
    """
    from jobs.paper.pages import write_report
    from jobs.run.services import open_records

    if number is not None and days is not None:
        raise UsageError("say either --run N or --days N")
    with open_records(load_settings()) as records:
        told = write_report(records, file, number, days, photos)
    sys.stdout.write(f"{file} is written: {told}\n")


@app.command()
def show(
    id: opt.Id,
    as_json: opt.Json = False,
    html: opt.AlsoHtml = None,
    photos: opt.Pictures = 60,
    verbose: opt.Verbose = False,
) -> None:
    """Why a listing has the values it has: every photo, what the model said of it, and what a person said."""
    from jobs.run.services import open_records
    from jobs.views.show import explain, show_listing

    if html is not None and as_json:
        raise UsageError("say either --json or --html FILE")
    with open_records(load_settings()) as records:
        id = records.source.spelled(id)
        if html is not None:
            from jobs.paper.pages import write_listing

            write_listing(records, id, html, photos)
            sys.stdout.write(f"{html} is written\n")
            return
        explained = explain(records, id)
        if as_json:
            print_json(explained)
        else:
            show_listing(explained, records.bundle.at(explained["arithmetic"]).heads)


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
def export_features(file: opt.Parquet, photos: opt.PerPhoto = False, verbose: opt.Verbose = False) -> None:
    """Write attributes, counts and photo features of all enriched listings to a Parquet file."""
    from jobs.export import export
    from jobs.run.services import open_records

    with open_records(load_settings()) as records:
        rows = export(records, file, photos)
    sys.stdout.write(f"{rows} {'photos' if photos else 'listings'} written to {file}\n")


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
    warn_of_misspelt()
    print_json(rows(current))
