"""The review queue: one listing after the other, a photo large, a question, and three answers."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, BackgroundTasks, Form, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse

from enrich.records import which_photo
from enrich.state.answers import Answers
from enrich.state.review import Asked, Question, questions, queue
from enrich.state.summary import details
from jobs.run.publish import BUSY, publish_at_once
from jobs.run.services import Services
from jobs.views.show import explain
from jobs.web.access import Editor
from jobs.web.pages.listing import known_listing
from jobs.web.rendering import Opened, Picture, render, said_by

router = APIRouter()
NAV = ("Review", "/review")

SITTING = 100  # listings that a person looks at in one go
MOST_HELD_UP = 1_000  # answers; those before them wait in the outbox
LATEST = 1e12  # seconds since 1970 that Postgres still has a time for
_ANSWERS = {"yes": True, "no": False, "unsure": None}


@dataclass(frozen=True, slots=True)
class _Sitting:
    """What a person is at: which head's questions (empty: all), and since when."""

    head: str
    since: float

    def address(self, **more: str) -> str:
        kept = {"head": self.head, "since": f"{self.since:.6f}", **more}
        return "/review?" + urlencode({name: value for name, value in kept.items() if value})


class Publishing:
    """Takes answers to the index while people go on answering: one publish at a time, of all until then.

    What another process's publish holds up goes with the next answer; what else does not get through waits
    in the outbox for the next run's.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._ids: deque[str] = deque(maxlen=MOST_HELD_UP)

    def publish(self, services: Services, id: str) -> None:
        self._ids.append(id)
        # Whoever publishes takes along what comes meanwhile: threads that wait for it would be too many.
        while self._ids and self._lock.acquire(blocking=False):
            try:
                ids = sorted({self._ids.popleft() for _ in range(len(self._ids))})
                if publish_at_once(services, ids) == BUSY:
                    self._ids.extend(ids)
                    return
            finally:
                self._lock.release()


@router.get("/review")
def show(
    request: Request,
    services: Opened,
    head: str = "",
    since: Annotated[float, Query(ge=0, le=LATEST)] = 0.0,
    id: str = "",
    field: str = "",
) -> Response:
    """The next listing of the queue; or, after an undo, the one that `id` and `field` name."""
    asked, all_questions = _asked(services, head), questions(services.bundle.heads)
    answers = _answers(request, services, asked)
    if not since:
        since = answers.begin()
    sitting = _Sitting(head, since)
    done = answers.done(since)
    person = said_by(request, services) or ""
    most = max(SITTING - done, 0)
    bundle_id = services.bundle.bundle_id
    found = queue(services.database, bundle_id, person, asked, most, done) if most else []
    if (again := _named(asked, known_listing(services, id) if id else "", field)) is not None:
        found = [again, *(one for one in found if (one.id, one.question) != (again.id, again.question))]
    found = found[: max(most, 1)]
    shown = found[0] if found else None
    given: dict[str, Any] = {
        "sitting": sitting,
        "heads": [question.head for question in all_questions],
        "done": done,
        "left": len(found),
        "asked": shown,
        "photos": [],
        "ahead": None,
    }
    if shown is not None:
        explained = explain(services, shown.id)
        given["photos"] = _photos(explained, shown.question)
        given["why"] = explained["why"].get(shown.question.head)
        given["columns"] = explained["columns"]
        given["overrides"] = [one for one in explained["overrides"] if one["field"] == shown.question.field]
        given["answers"] = answers.answers(shown.id, shown.question.field)
    if len(found) > 1:
        following = _photos(explain(services, found[1].id), found[1].question)
        given["ahead"] = following[0]["picture"] if following else None
    return render(request, "review.html", **given)


@router.post("/review")
def answer(
    request: Request,
    services: Opened,
    editor: Editor,
    after: BackgroundTasks,
    answer: Annotated[str, Form()],
    id: Annotated[str, Form()],
    field: Annotated[str, Form()],
    photo: Annotated[str, Form()] = "",
    head: Annotated[str, Form()] = "",
    since: Annotated[float, Form(ge=0, le=LATEST)] = 0.0,
) -> Response:
    """Take an answer down, and go on to the next; `photo`: the sha256 of the one that a yes is said of."""
    asked = _asked(services, head)
    answer, _, named = answer.partition(":")  # as each photo has a button where no script runs
    if answer not in _ANSWERS or field not in {question.field for question in asked}:
        raise HTTPException(400, "The form does not say what it should.")
    value = _ANSWERS[answer]
    id = known_listing(services, id)
    known = {shown["sha256"] for shown in details(services.database, id).listing["photos"]}
    sha256 = shown if value and (shown := named or photo) in known else None
    _answers(request, services, asked).answer(id, field, value, sha256)
    if value is not None:
        after.add_task(_publishing(request).publish, services, id)
    return RedirectResponse(_Sitting(head, since).address(), 303)


@router.post("/review/undo")
def undo(
    request: Request,
    services: Opened,
    editor: Editor,
    after: BackgroundTasks,
    head: Annotated[str, Form()] = "",
    since: Annotated[float, Form(ge=0, le=LATEST)] = 0.0,
) -> Response:
    """Take the last answer back, and show its listing again."""
    undone = _answers(request, services, _asked(services, head)).undo(since)
    if undone is not None:
        after.add_task(_publishing(request).publish, services, undone[0])
    again = {} if undone is None else {"id": undone[0], "field": undone[1]}
    return RedirectResponse(_Sitting(head, since).address(**again), 303)


def _publishing(request: Request) -> Publishing:
    found: Publishing = request.app.state.publishing
    return found


def _asked(services: Services, head: str) -> list[Question]:
    """The questions of one head; of all of them, where none is named."""
    found = questions(services.bundle.heads)
    if not head:
        return found
    if named := [question for question in found if question.head == head]:
        return named
    raise HTTPException(404, f"The bundle asks nothing of the name {head!r} that yes or no answers.")


def _answers(request: Request, services: Services, asked: Sequence[Question]) -> Answers:
    return Answers(
        services.database, said_by(request, services) or "", [question.field for question in asked]
    )


def _named(asked: Sequence[Question], id: str, field: str) -> Asked | None:
    question = next((one for one in asked if one.field == field), None)
    return Asked(id, question, "again", None, None, None, None, None) if id and question else None


def _photos(explained: Mapping[str, Any], question: Question) -> list[Mapping[str, Any]]:
    """The photos that can be looked at: the one that the model goes by first, then by what they show."""
    evidence = ((explained["model_attributes"] or {}).get("evidence") or {}).get(question.head) or {}

    def order(photo: Mapping[str, Any]) -> tuple[bool, float, int]:
        decided = which_photo(photo) == which_photo(evidence)
        return not decided, -photo["probabilities"].get(question.head, 0.0), photo["position"]

    seen = [
        {**photo, "picture": Picture(photo["key"], photo["sha256"])}
        for photo in explained["photos"]
        if photo["sha256"]
    ]
    return sorted(seen, key=order)
