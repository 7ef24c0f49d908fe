"""From a template to an answer. Everything in a template is escaped, whoever wrote it."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.run.services import Services

HERE = Path(__file__).parent
STATIC = HERE / "static"


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


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Opened = Annotated[Services, Depends(_services)]
"""A parameter of a page: what the job works with, open."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static
    environment.filters.update(in_path=in_path, web_link=web_link, cell=cell, moment=moment)
    return environment


@cache
def static(name: str) -> str:
    """The address of a file of ours, another one when the file is another."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def in_path(text: str) -> str:
    """An id as the last part of an address, slashes and all."""
    return quote(text, safe="")


def web_link(url: str) -> str | None:
    """An address that may be followed; None where it is not one of the web, such as `javascript:`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def cell(value: Any) -> str:
    """The value of a column as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):  # a point
        value = list(value.values())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)


def moment(value: datetime | None) -> str:
    """A time of the database, which is UTC."""
    return "" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"
