"""From a template to an answer. Everything in a template is escaped, whoever wrote it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from enrich.index.query import MOST_VALUES
from enrich.looks import colours
from jobs.cli.parse import person
from jobs.run.services import Services
from jobs.views import cell, words
from jobs.web.asking import plain
from jobs.web.photos import SIZES

HERE = Path(__file__).parent
STATIC = HERE / "static"
COLOURS = "colours.css"  # beside the files there, and shared with what is no page of ours


def render(request: Request, template: str, status: int = 200, **given: Any) -> HTMLResponse:
    """The page of a template, which gets what is `given` and what every page has."""
    shared = {
        "nav": request.app.state.nav,
        "path": request.url.path,
        "visitor": request.state.visitor,
        "form_token": request.state.form_token,
        "has_login": request.app.state.access.has_login,
        "given_as_cookie": not request.headers.get("authorization"),
    }
    text = _environment().get_template(template).render({**shared, **given})
    return HTMLResponse(text, status)


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo that can be shown: its URL key, and the sha256 of its bytes where they were seen."""

    key: str
    sha256: str | None


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Opened = Annotated[Services, Depends(_services)]
"""A parameter of a page: what the job works with, open."""


def said_by(request: Request, services: Services) -> str | None:
    """Who says what is said here: as the reverse proxy names them, else as the commands would."""
    name: str | None = request.state.visitor.name
    return name or person(None, services.settings)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(static=static, most_values=MOST_VALUES)
    for filter in (listing_link, web_link, photo, cell, moment, plain, yes_or_no, words, answered):
        environment.filters[filter.__name__] = filter
    return environment


@cache
def static(name: str) -> str:
    """The address of a file of ours, another one when the file is another."""
    content = colours().encode() if name == COLOURS else (STATIC / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def listing_link(id: str) -> str:
    """The address of a listing's page. A browser takes `.` and `..` in a path for folders."""
    if id.strip(".") and id.isprintable():
        return f"/listing/{quote(id, safe='')}"
    return f"/listing/?id={quote(id, safe='')}"


def photo(picture: Picture, size: int = SIZES[0]) -> str:
    """The address of a photo, another one when its bytes are others."""
    version = f"&v={picture.sha256[:12]}" if picture.sha256 else ""
    return f"/photo/{picture.key}?size={size}{version}"


def yes_or_no(value: str, kind: str) -> str:
    """A value of a column, as people read it."""
    return {"true": "yes", "false": "no"}.get(value, value) if kind == "boolean" else value


def answered(text: str) -> str:
    """What a kind says in signs, for those who do not know them: `✓ 0.97` is yes, 0.97."""
    said = {"✓": "yes", "✗": "no", "?": "unknown"}
    sign, _, rest = text.partition(" ")
    return " ".join([said[sign], rest]).rstrip() if sign in said else "none" if text == "-" else words(text)


def web_link(url: str) -> str | None:
    """An address that may be followed; None where it is not one of the web, such as `javascript:`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def moment(value: datetime | None) -> str:
    """A time of the database, which is UTC."""
    return "" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"
