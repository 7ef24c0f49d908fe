"""Commands that take listings further."""

import sys
from zoneinfo import ZoneInfo

from enrich.errors import RemovalGuardError, SignalError, UsageError
from enrich.settings import load_settings
from jobs.cli import options as opt
from jobs.cli.app import app
from jobs.cli.guard import end, showing, stopping
from jobs.cli.parse import read_ids


@app.command()
def demo(
    photos: opt.Photos = None,
    keep: opt.Keep = False,
    serve: opt.Serve = False,
    port: opt.Port = 8080,
    verbose: opt.Verbose = False,
) -> None:
    """Run the whole job on twelve homes that come along, with embedded servers.

    Needs no server, no account and no settings, and touches nothing of yours: DATABASE_URL and
    ELASTICSEARCH_URL are left alone.
    """
    from jobs.demo.run import run_demo

    with stopping() as stop:
        if serve:
            from jobs.web.serving import LOOPBACK, require
            from jobs.web.serving import serve as show

            require()
            run_demo(photos, keep, stop, lambda settings: show(settings, LOOPBACK, port, stop))
        else:
            run_demo(photos, keep, stop)


@app.command()
def migrate(verbose: opt.Verbose = False) -> None:
    """Create the schema `enrichment`, or bring it up to date. Safe to repeat."""
    from jobs.migrate import migrate as start

    place, reached = start(load_settings())
    sys.stdout.write(f"the schema enrichment at {place} is at version {reached}\n")


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

    Exit code 0: done; 1: listings were quarantined, documents refused, or the figures drifted; 2: wrong usage
    or settings; 3: stopped by the error budget, an outage or the removal guard; 75: another run is under way;
    130 or 143: stopped by SIGINT or SIGTERM.
    """
    from jobs.metrics.watching import watched
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
        settings = load_settings()
        with showing(as_json), watched(settings) as watch:
            report = nightly(settings, options, stop, watch)
    end(report, as_json)


@app.command()
def backfill(
    ids: opt.Ids = None,
    since: opt.Since = None,
    stale_bundle: opt.StaleBundle = False,
    revalidate: opt.Revalidate = False,
    ray: opt.Ray = None,
    max_flips: opt.MaxFlips = None,
    dry_run: opt.BundleDryRun = False,
    sample: opt.Sample = None,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Enrich existing listings again: all, or some. The nightly run goes first; started again, it goes on."""
    from jobs.metrics.watching import watched
    from jobs.run.backfill import BackfillOptions
    from jobs.run.backfill import backfill as start
    from jobs.run.foretell import SAMPLE, foretell
    from jobs.views.foretold import show_foretold

    if sample is not None and not dry_run:
        raise UsageError("--sample says how many listings --dry-run goes through: say --dry-run, too")
    if since is not None and not 1 < since.year < 9999:  # in another time zone Python may not have its year
        raise UsageError(
            f"--since {since.date()}: name a time of the years 2 to 9998; without --since it is all listings"
        )
    settings = load_settings()
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=ZoneInfo(settings.timezone))
    options = BackfillOptions(
        ids=read_ids(ids),
        since=since,
        stale_bundle=stale_bundle,
        revalidate=revalidate,
        ray=ray,
        max_flips=max_flips,
    )
    with stopping() as stop, showing(as_json), watched(settings) as watch:
        if dry_run:
            show_foretold(foretell(settings, options, sample or SAMPLE, stop), as_json=as_json)
            if stop.is_set():
                raise SignalError("stopped by signal: this is not the whole sample", stop.exit_code)
            return
        report = start(settings, options, stop, watch)
    end(report, as_json)


@app.command()
def rescore(ids: opt.Ids = None, as_json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """Take listings made with another bundle to the current one, from kept features: no photo is fetched."""
    from jobs.run.rescore import rescore as start

    with stopping() as stop:
        report = start(load_settings(), read_ids(ids), stop)
    end(report, as_json)


@app.command()
def prune(
    yes: opt.Yes = False, days: opt.Days = 90, as_json: opt.Json = False, verbose: opt.Verbose = False
) -> None:
    """Delete what nothing uses any more: gone listings, photos, scores, features, runs. Dry without --yes."""
    from jobs.prune import prune as go_through
    from jobs.run.services import open_records
    from jobs.views.prune import show_pruned

    with stopping() as stop:
        with open_records(load_settings(), stop=stop) as records:
            show_pruned(go_through(records, days, yes, stop.is_set), yes, as_json)
        if stop.is_set():
            raise SignalError("stopped by signal: the same command goes on", stop.exit_code)


@app.command()
def publish(as_json: opt.Json = False, verbose: opt.Verbose = False) -> None:
    """Send what is not published yet to the index; fetches and scores nothing."""
    from jobs.run.publish import publish as start

    with stopping() as stop:
        report = start(load_settings(), stop)
    end(report, as_json)


@app.command()
def reconcile(
    fix: opt.Fix = False,
    allow_removals: opt.AllowRemovals = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Compare the portal, our state and the index: which documents are missing, stale, orphaned or altered.

    Exit code 0: all is well, or was mended; 1: documents differ, or the index refused some.
    """
    from jobs.run.reconcile import reconcile as start

    with stopping() as stop, showing(as_json):
        report = start(load_settings(), fix, allow_removals, stop)
    end(report, as_json)


@app.command()
def reindex(
    keep: opt.KeepOld = 1,
    rollback: opt.Rollback = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Build a new index from state and swap it in behind the alias, with no moment without results.

    Fetches and scores nothing. Killed or stopped, the old index serves on; started again, it goes on.
    """
    from jobs.run import reindex as job

    with stopping() as stop:
        settings = load_settings()
        report = job.rollback(settings, stop) if rollback else job.reindex(settings, keep, stop)
    end(report, as_json)


@app.command()
def worker(verbose: opt.Verbose = False) -> None:
    """Stay, and run every time ENRICH_CRON says so. SIGTERM ends it after the batch in hand."""
    with stopping() as stop:
        from jobs.metrics.watching import watched
        from jobs.run.worker import work  # takes a second, in which a signal is heeded already

        settings = load_settings()
        with watched(settings) as watch:
            work(settings, stop, watch)
