"""A listing: its photos by room, why each answer is what it is, and what people say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from enrich.errors import UsageError
from enrich.model.head import Head
from enrich.model.kind import Overridable
from enrich.records import WhichPhoto, which_photo
from enrich.state.overrides import Override, Said
from enrich.state.summary import details
from jobs.cli.parse import read_assignment
from jobs.run.publish import publish_at_once
from jobs.run.services import Services
from jobs.views.show import explain, flat
from jobs.web.access import Editor
from jobs.web.pages.search import TITLES
from jobs.web.rendering import Opened, Picture, listing_link, render, said_by

router = APIRouter()
UNSEEN = "not seen"
LONGEST_NOTE = 2_000
MOST_KEPT = 1_000  # changes that can be undone by the button that follows them


@dataclass(frozen=True, slots=True)
class Bar:
    """What a photo says of a head, 0 to 100; `mark`: from where it is enough, None where that is not told."""

    head: str
    words: str
    chance: float
    mark: float | None
    enough: bool


@dataclass(frozen=True, slots=True)
class Shot:
    """A photo of a listing."""

    photo: Mapping[str, Any]
    picture: Picture
    bars: Sequence[Bar]
    decided: Sequence[str]
    """Heads whose answer it decided."""


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody just said of a listing, for the page that follows it, and for its *Undo*."""

    id: str
    field: str
    earlier: Override | None
    """What a person had said before; None where nobody had."""
    stands: Override | None
    """What stands since."""
    waits: str | None
    """Why buyers do not find it so yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A head's answer: published, by the model, and by a person."""

    name: str
    field: str
    published: str
    by_model: str
    why: str
    decided: Shot | None
    override: Mapping[str, Any] | None
    classes: Sequence[tuple[str, bool]] | None
    """Of a head with classes those that may be said, and whether they are published now; else None."""
    overridable: bool


@router.get("/listing/{id:path}")
def listing(request: Request, services: Opened, id: str, said: str = "") -> Response:
    id = known_listing(services, id or request.query_params.get("id", ""))
    change: Change | None = request.app.state.changes.get(said)
    told = explain(services, id)
    heads = services.bundle.at(told["arithmetic"]).heads
    shots = _shots(told, heads)
    columns = told["columns"]
    return render(
        request,
        "listing.html",
        listing=told,
        title=next((str(columns[name]) for name in TITLES if columns.get(name)), id),
        groups=_by_room(shots, heads),
        answers=[_answer(head, told, shots) for head in heads] if told["attributes"] else [],
        change=change if change and change.id == id else None,
        said=said,
    )


@router.post("/override")
async def override(
    request: Request,
    services: Opened,
    editor: Editor,
    id: Annotated[str, Form()],
    field: Annotated[str, Form()],
    note: Annotated[str, Form()] = "",
    clear: Annotated[bool, Form()] = False,
) -> Response:
    """Say what a listing has, as `enrich override` does, or let the model speak again (`clear`)."""
    form = await request.form()
    # Classes come as several values, and where none is checked as none.
    value = None if clear else ",".join(str(one) for one in form.getlist("value"))
    if len(note) > LONGEST_NOTE:
        raise HTTPException(400, f"The note is longer than {LONGEST_NOTE} signs.")
    if "\0" in field + note:  # which Postgres does not keep
        raise HTTPException(400, "Field and note cannot hold such a sign.")
    who = said_by(request, services)
    change = await run_in_threadpool(_say, services, id, field, value, note.strip() or None, who)
    return _told_of(request, change)


@router.post("/override/undo")
def undo(request: Request, services: Opened, editor: Editor, said: Annotated[str, Form()]) -> Response:
    """Put back what stood before a change, unless somebody has said something else since."""
    change: Change | None = request.app.state.changes.get(said)
    if change is None:
        raise HTTPException(404, "This change is too long ago to be undone here: say again what is right.")
    if not services.overrides.put_back(change.id, change.field, change.stands, change.earlier):
        raise HTTPException(409, f"Somebody has said something else of {change.field} since, which stands.")
    waits = publish_at_once(services, [change.id])
    return _told_of(request, replace(change, earlier=change.stands, stands=change.earlier, waits=waits))


def _say(
    services: Services, id: str, field: str, value: str | None, note: str | None, who: str | None
) -> Change:
    """Set or clear an override, and publish it."""
    id = known_listing(services, id)
    said = None
    if value is not None:
        field, meant = read_assignment(f"{field}={value}", services.bundle.heads)
        said = Said(id, field, meant, note, who)
    earlier, stands = services.overrides.change(id, field, said, who)
    return Change(id, field, earlier, stands, publish_at_once(services, [id]))


def _told_of(request: Request, change: Change) -> Response:
    """The listing's page, which says what was changed."""
    link = listing_link(change.id)
    said = _kept(request.app.state.changes, change)
    return RedirectResponse(f"{link}{'&' if '?' in link else '?'}said={said}", 303)


def _kept(changes: dict[str, Change], change: Change) -> str:
    """By what to ask for it. It is kept here, not in the address: a link from somebody writes nothing on the
    page, and nothing for *Undo* to say."""
    while len(changes) >= MOST_KEPT:
        changes.pop(next(iter(changes)), None)
    said = token_urlsafe(9)
    changes[said] = change
    return said


def known_listing(services: Services, id: str) -> str:
    """The listing's id as ours are written.

    Raises:
        HTTPException: there is no such listing.
    """
    try:
        if "\0" in id:  # which Postgres cannot even be asked for
            raise UsageError("no id holds such a sign")
        id = services.source.spelled(id)
        details(services.database, id)
    except UsageError as error:
        raise HTTPException(404, str(error)) from None
    return id


def _shots(told: Mapping[str, Any], heads: Sequence[Head]) -> list[Shot]:
    evidence = (told["attributes"] or {}).get("evidence", {})
    decided: dict[WhichPhoto, list[str]] = {}
    for name, found in evidence.items():
        if "position" in found:
            decided.setdefault(which_photo(found), []).append(name)
    return [
        Shot(
            photo,
            Picture(photo["key"], photo["sha256"]),
            [bar for head in heads for bar in _bars(head, photo["probabilities"].get(head.name))],
            decided.get(which_photo(photo), []),
        )
        for photo in told["photos"]
    ]


def _bars(head: Head, plain: Any) -> list[Bar]:
    """What a photo says of a head as a bar; of classes the likeliest."""
    if plain is None:
        return []
    _, enough = head.rules.photo_shown(head, plain)
    if isinstance(plain, Mapping):
        top = max(head.classes, key=lambda one: plain[one.name])
        mark = top.threshold if top.publish else None
        return [Bar(head.name, top.name, plain[top.name], mark, enough)]
    mark = head.true_threshold if head.rules.is_yes_or_no else None
    return [Bar(head.name, head.name, float(plain), mark, enough)]


def _by_room(shots: Sequence[Shot], heads: Sequence[Head]) -> dict[str, list[Shot]]:
    """Photos by the likeliest class of the first head with classes; what was not seen comes last."""
    rooms = next((head for head in heads if head.classes), None)
    groups: dict[str, list[Shot]] = {}
    for shot in shots:
        bar = next((one for one in shot.bars if rooms and one.head == rooms.name), None)
        name = UNSEEN if not shot.bars else bar.words if bar else "photos"
        groups.setdefault(name, []).append(shot)
    order = {one.name: not one.publish for one in (rooms.classes if rooms else ())}
    return dict(sorted(groups.items(), key=lambda one: (one[0] == UNSEEN, order.get(one[0], False), one[0])))


def _answer(head: Head, told: Mapping[str, Any], shots: Sequence[Shot]) -> Answer:
    kind, field = head.rules, head.rules.answer_field(head.name)
    published, model = (flat(told[name]) for name in ("attributes", "model_attributes"))
    types = published.get(field) or []
    classes = [(one.name, one.name in types) for one in head.classes if one.publish]
    return Answer(
        name=head.name,
        field=field,
        published=kind.shown(head.name, published),
        by_model=kind.shown(head.name, model),
        why=told["why"].get(head.name, "made with another bundle"),
        decided=next((shot for shot in shots if head.name in shot.decided), None),
        override=next((one for one in told["overrides"] if one["field"] == field), None),
        classes=None if kind.is_yes_or_no else classes,
        overridable=isinstance(kind, Overridable),
    )
