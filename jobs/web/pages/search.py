"""What a buyer could filter by, with counts, and the listings that it finds."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from enrich.errors import UsageError
from enrich.index.protocol import Column, Facets, Query
from enrich.index.query import MOST_HITS
from enrich.model.head import Head
from enrich.records import which_photo
from enrich.state.summary import photos_of
from jobs.run.services import Services
from jobs.views import cell
from jobs.web.asking import ANSWERS, PER_PAGE, answers, page, read, written
from jobs.web.rendering import Opened, Picture, render

router = APIRouter()
NAV = ("Search", "/")
OFFERED_FOR = 60.0  # seconds that the columns worth a filter stay the same
TITLES = ("title", "headline", "name", "heading", "address")


@dataclass(frozen=True, slots=True)
class Card:
    """A listing among the hits."""

    id: str
    title: str
    facts: Mapping[str, str]
    answers: Sequence[tuple[str, str, str]]
    """(head, yes, no or unknown, confidence in percent or "")"""
    types: Sequence[str]
    picture: Picture | None
    told: str
    """What the picture is of."""


@router.get("/")
def search(request: Request, services: Opened) -> Response:
    query = read(request.query_params)
    hits, facets = services.index.search(query), services.index.facets(query)
    offered = _offered(request, services, query)
    heads = services.bundle.heads
    names = [head.name for head in heads if head.rules.is_yes_or_no]
    pages = min(-(-hits.total // PER_PAGE), MOST_HITS // PER_PAGE)
    now = page(query)
    response = render(
        request,
        "search.html",
        query=query,
        total=hits.total,
        cards=_cards(services, query, hits.documents),
        facets=facets,
        asked=answers(query, names),
        answer_of=ANSWERS,
        columns={name: (offered[name], one) for name, one in facets.columns.items() if name in offered},
        classes={head.name: _classes(head, facets, query) for head in heads if head.name in facets.types},
        sorts=[head.name for head in heads if head.rules.ranked_by(head.name)],
        hidden=_hidden(query, facets),
        page=now,
        pages=pages,
        first=_link(replace(query, offset=0)),
        before=_link(replace(query, offset=query.offset - PER_PAGE)) if now > 1 else None,
        after=_link(replace(query, offset=query.offset + PER_PAGE)) if now < pages else None,
        body=json.dumps(hits.body, indent=2, ensure_ascii=False),
        index=services.settings.index,
        as_json=f"/search.json{written(query)}",
        filtered=bool(written(replace(query, sort=None, offset=0))),
    )
    response.headers["HX-Push-Url"] = _link(query)
    return response


@router.get("/search.json")
def search_json(request: Request, services: Opened) -> Response:
    """The same search for programs, as `enrich search --json` has it."""
    hits = services.index.search(read(request.query_params))
    return JSONResponse({"total": hits.total, "hits": hits.documents})


def _link(query: Query) -> str:
    return f"/{written(query)}"


def _hidden(query: Query, facets: Facets) -> list[tuple[str, int, str]]:
    """(head, listings, link): what matches but for a head that says neither yes nor no of it."""
    found = []
    for head in (*query.has, *query.lacks):
        if count := facets.answers[head][None]:
            rest = replace(
                query,
                has=tuple(name for name in query.has if name != head),
                lacks=tuple(name for name in query.lacks if name != head),
                unknown=(*query.unknown, head),
                offset=0,
            )
            found.append((head, count, _link(rest)))
    return found


def _classes(head: Head, facets: Facets, query: Query) -> list[tuple[str, int, bool]]:
    """(class, listings, asked for): those that are found and may be asked for, and those asked for."""
    asked = query.types.get(head.name, ())
    found = {**dict.fromkeys(asked, 0), **facets.types[head.name]}
    return [(name, found[name], name in asked) for name in sorted(found) if _may_be_asked_for(head, name)]


def _may_be_asked_for(head: Head, value: str) -> bool:
    """Whether the head may answer so: documents may still hold what another bundle published."""
    try:
        head.rules.condition(head, value)
    except UsageError:
        return False
    return True


def _offered(request: Request, services: Services, query: Query) -> dict[str, Column]:
    """The columns that are worth a filter, and those asked for: what all listings together hold in them.

    A column with another value in every listing, such as a title, is none.
    """
    kept: tuple[float, Mapping[str, Column]] | None = getattr(request.app.state, "offered", None)
    if kept is None or time.monotonic() - kept[0] > OFFERED_FOR:
        kept = time.monotonic(), services.index.facets(Query()).columns
        request.app.state.offered = kept
    asked = {*query.where, *query.between}
    return {
        name: column
        for name, column in kept[1].items()
        if name in asked
        or max(column.counts.values(), default=0) > 1
        or (column.least is not None and column.least != column.most)
    }


def _cards(services: Services, query: Query, documents: Sequence[Mapping[str, Any]]) -> list[Card]:
    photos = photos_of(services.database, [str(one["listing_id"]) for one in documents])
    heads = services.bundle.heads
    columns = list(services.source.copied_columns())
    return [_card(one, heads, columns, photos.get(str(one["listing_id"]), ()), query) for one in documents]


def _card(
    document: Mapping[str, Any],
    heads: Sequence[Head],
    columns: Sequence[str],
    photos: Sequence[Mapping[str, Any]],
    query: Query,
) -> Card:
    id = str(document["listing_id"])
    title = next((name for name in TITLES if isinstance(document.get(name), str) and document[name]), None)
    alone = [head for head in heads if head.rules.is_yes_or_no]
    told = [(head.name, *_said(head, document)) for head in alone]
    valued = [head for head in heads if not head.rules.is_yes_or_no]
    first = [*query.has, *([query.sort] if query.sort else []), *(head.name for head in alone)]
    evidence = document.get("evidence") or {}
    shown = next((name for name in first if "position" in (evidence.get(name) or {})), None)
    decided = which_photo(evidence[shown] if shown is not None else {})
    picture, words = None, f"Photo of {id}"
    if photo := next((one for one in photos if which_photo(one) == decided), None):
        picture = Picture(photo["key"], photo["sha256"])
        words = f"Photo {photo['position']} of {id}, which shows: {shown}"
    elif seen := [photo for photo in photos if photo["sha256"]]:
        picture = Picture(seen[0]["key"], seen[0]["sha256"])
    facts = {name: cell(document.get(name)) for name in columns if name != title}
    return Card(
        id=id,
        title=str(document[title]) if title else id,
        facts={name: text for name, text in facts.items() if text},
        answers=told,
        types=[one for head in valued for one in _words(document.get(head.rules.answer_field(head.name)))],
        picture=picture,
        told=words,
    )


def _words(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _said(head: Head, document: Mapping[str, Any]) -> tuple[str, str]:
    answer = document.get(head.rules.answer_field(head.name))
    confidence = document.get(head.rules.ranked_by(head.name) or "")
    word = {True: "yes", False: "no", None: "unknown"}[answer]
    return word, "" if confidence is None else f"{confidence:.0%}"
