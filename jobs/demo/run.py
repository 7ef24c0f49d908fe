"""`enrich demo`: the whole job on homes that come along, with embedded servers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from enrich.errors import SignalError
from enrich.index.protocol import Query
from enrich.index.query import MOST_HITS
from enrich.model.head import Head
from enrich.settings import Settings, load_settings
from jobs.cli.logs import OURS
from jobs.demo.homes import COLUMNS, Home, from_folder, shipped
from jobs.demo.portal import fill, portal
from jobs.demo.server import PhotoHost, serving
from jobs.migrate import migrate
from jobs.run.nightly import RunOptions, run
from jobs.run.record import RunReport
from jobs.run.rescore import rescore
from jobs.run.services import Services, open_services
from jobs.run.stop import Stop
from jobs.views import console
from jobs.views.demo import show_homes, show_lower, show_more, show_next_steps, show_start
from jobs.views.report import report_lines
from jobs.views.search import show_hits

_BY_DEFAULT = (
    "embedded", "database_url", "source_database_url", "index_backend", "elasticsearch_url",
    "elasticsearch_api_key", "elasticsearch_username", "elasticsearch_password", "elasticsearch_ca",
    "source_listings", "source_images", "index", "index_mode", "index_mapping", "index_settings", "on_finish",
    "web_token", "web_edit_token", "web_trusted_header",
)  # fmt: skip
_OWN: dict[str, Any] = {
    **{name: Settings.model_fields[name].default for name in _BY_DEFAULT},
    "allowed_private_hosts": ("127.0.0.1",),
}
"""What the demo sets whatever the environment says; the rest, such as the bundle, is the user's."""


def run_demo(
    photos: Path | None, keep: bool, stop: Stop, meanwhile: Callable[[Settings], None] | None = None
) -> None:
    """Seed a database, serve the pictures, run the job twice and show what came of it, on stdout; then what
    the bundle's lowest precision would find, which is taken back.

    With `meanwhile`, such as a page that shows it, that follows the first run in the second one's place.

    Raises:
        EnrichError: with the exit code of the command.
    """
    homes = from_folder(photos) if photos else shipped()
    settings = load_settings(**_OWN)
    told = tuple(name for name in COLUMNS if any(name in home.columns for home in homes))
    settings = settings.model_copy(update={"home": settings.home / "demo", "index_columns": told})
    for name in OURS:
        if logging.getLogger(name).level == logging.INFO:  # not asked for with -v
            logging.getLogger(name).setLevel(logging.WARNING)
    files = {f"/{home.id}/{photo.file.name}": photo.file for home in homes for photo in home.photos}
    with portal(settings.home, keep) as url, serving(files) as host:
        fill(url, homes, {file: host.url + quote(path) for path, file in files.items()})
        settings = settings.model_copy(update={"embedded": True, "database_url": SecretStr(url)})
        show_start(homes, settings, host.url)
        migrate(settings)
        _run(settings, host, stop)
        if meanwhile is not None and not stop.is_set():
            meanwhile(settings)
            return
        if not stop.is_set():
            _look(settings, homes)
            console().print("\n[bold]The same run again[/], with nothing changed:\n")
            _run(settings, host, stop)
            _ask_for_less(settings, homes, host, stop)
    if stop.is_set():
        raise SignalError("stopped by signal: the same command starts the demo anew", stop.exit_code)
    show_next_steps(settings, homes[0].id if keep else None)


def _run(settings: Settings, host: PhotoHost, stop: Stop) -> None:
    _told(lambda: run(settings, RunOptions(), stop), host)


def _ask_for_less(settings: Settings, homes: Sequence[Home], host: PhotoHost, stop: Stop) -> None:
    """What a lower precision finds more, where the bundle has one; the documents are as before afterwards."""
    if settings.precision_target is not None or stop.is_set():
        return
    with open_services(settings) as services:
        heads, before = services.bundle.heads, _documents(services)
        target = _lowest_precision([head for one in services.bundle.in_all_arithmetics for head in one.heads])
    if target is None:
        return
    lower = settings.model_copy(update={"precision_target": float(target)})
    show_lower(target)
    _told(lambda: rescore(lower, None, stop), host)
    with open_services(lower) as services:
        show_more(homes, before, _documents(services), heads)
    rescore(settings, None, stop)


def _lowest_precision(heads: Sequence[Head]) -> str | None:
    """The lowest precision of homes that all heads have thresholds for; None where that is their own."""
    asked = [head for head in heads if head.rules.is_yes_or_no]
    common = set.intersection(*(set(head.true_at) for head in asked)) if asked else set()
    lowest = min(common, key=float, default=None)
    lower = lowest is not None and all(float(lowest) < (head.precision_target or 0) for head in asked)
    return lowest if lower else None


def _told(work: Callable[[], RunReport], host: PhotoHost) -> None:
    """Do it, and print its report and what it asked of the photo host."""
    before = host.requests
    report = work()
    for line in [*report_lines(report), f"requests   {host.requests - before:,} at the photo host"]:
        console().print(f"  {line}")


def _look(settings: Settings, homes: Sequence[Home]) -> None:
    """The homes beside what their pictures show, and the filters that a buyer would use."""
    with open_services(settings) as services:
        heads = services.bundle.heads
        show_homes(homes, _documents(services), heads, settings.min_photos_false)
        for query in _queries(heads):
            options = [f"--has {name}" for name in query.has]
            options += [f"--{head} {kind}" for head, kinds in query.types.items() for kind in kinds]
            console().print(f"\n[bold]enrich search {' '.join(options)}[/]\n")
            show_hits(services.index.search(query), query, heads, list(services.source.copied_columns()))


def _documents(services: Services) -> dict[str, Mapping[str, Any]]:
    """All documents of the index, by listing."""
    found = services.index.search(Query(limit=MOST_HITS)).documents
    return {str(document["listing_id"]): document for document in found}


def _queries(heads: Sequence[Head]) -> list[Query]:
    """A search for each yes-or-no head; for fireplaces, the starter bundle's, with a kitchen."""
    rooms = any(head.name == "room" and "kitchen" in {k.name for k in head.classes} for head in heads)
    queries = []
    for head in heads:
        if head.rules.is_yes_or_no:
            with_kitchen = head.name == "fireplace" and rooms
            queries.append(Query((head.name,), {"room": ("kitchen",)} if with_kitchen else {}))
    return queries
