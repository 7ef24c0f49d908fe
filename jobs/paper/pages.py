"""Writes the pages. Everything in a template is escaped, whoever wrote it, and a page loads nothing."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from enrich.atomic import is_folder, new_file, writing
from enrich.errors import UsageError
from enrich.looks import style_sheet
from enrich.state.history import history
from jobs.paper.gather import Home, gather, runs_of
from jobs.paper.thumbnails import thumbnails
from jobs.run.services import Records
from jobs.views import cell, words
from jobs.views.show import author, explain
from jobs.views.status import duration, ended

COLUMNS = 4  # of a listing's copied columns, beside its id
WORDS = 80  # signs of a column's value


def write_report(records: Records, file: Path, number: int | None, days: int | None, photos: int) -> str:
    """Write the page of a run, of the last days, or of the last run; what it tells, in one line.

    Raises:
        UsageError: there is no such run, or the file cannot be written.
    """
    _writable(file)
    runs, period = runs_of(records, number, days)
    report = gather(records, runs, period)
    shown = [*report.homes, *report.doubtful]
    pictures = thumbnails(records, [(home.id, home.photo) for home in shown if home.photo], photos)
    if days is not None:
        title = f"The last {days} days" if days > 1 else "The last day"
    else:
        title = f"Run {runs[0].id}: {runs[0].kind}"
    _write(file, "report.html", title=title, days=days, report=report, pictures=pictures)
    return f"{len(report.homes)} of {report.homes_in_all} homes with new filters, {len(pictures)} photos"


def write_listing(records: Records, id: str, file: Path, photos: int) -> None:
    """Write the page of a listing.

    Raises:
        UsageError: no such listing, or the file cannot be written.
    """
    _writable(file)
    told = explain(records, id)
    pictures = thumbnails(records, [(id, photo) for photo in told["photos"]], photos)
    _write(
        file,
        "listing.html",
        title=id,
        told=told,
        heads=records.bundle.at(told["arithmetic"]).heads,
        pictures=pictures,
        changes=[asdict(one) for one in history(records.database, id)],
    )


def _writable(file: Path) -> None:
    with writing(f"--html {file}"):
        if is_folder(file) or not is_folder(file.absolute().parent):
            raise UsageError(f"--html {file}: give a file in a folder that is there")


def _write(file: Path, template: str, **given: Any) -> None:
    text = _environment().get_template(template).render(written=datetime.now(UTC), **given)
    with writing(f"--html {file}"), new_file(file) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jobs.paper"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(style=Markup(style_sheet()), ended=ended)  # ours, so not escaped
    environment.filters.update(
        duration=duration, moment=_moment, columns=_columns, said=_said, cell=cell, author=author
    )
    return environment


def _moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def _columns(home: Home) -> str:
    """The first few copied columns, on one line: texts, which speak for themselves, and the rest by name."""
    told = [(name, value) for name, value in home.columns.items() if value not in (None, "", [], {})]
    texts = [value for _, value in told if isinstance(value, str)]
    named = [f"{name} {cell(value)}" for name, value in told if not isinstance(value, str)]
    return " · ".join(text[:WORDS] for text in [*texts, *named][:COLUMNS])


def _said(value: Any) -> str:
    """An answer or a status as people read it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value)) or "none"
    return words(value) if isinstance(value, str) else cell(value) or "unknown"
