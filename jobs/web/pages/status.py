"""How things stand: the pipeline with live numbers, runs, failures, and what waits for a person."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from enrich.errors import EnrichError
from enrich.index.protocol import IndexUnavailable, Query
from enrich.state.runs import Run
from enrich.state.summary import Summary, quarantined, summary
from jobs.run.drift import read
from jobs.run.services import Services
from jobs.views import words
from jobs.views.status import backfill_line, duration, ended, took
from jobs.web.access import Editor
from jobs.web.drawing import bars, tall, wide
from jobs.web.pages.listing import known_listing
from jobs.web.rendering import Opened, render

router = APIRouter()
NAV = ("Status", "/status")

EVERY = 5  # seconds between looks of an open page
RUNS = 30
LISTED = 50  # listings in quarantine
_AT_MOST = 10  # of the time, one part in so many is spent on asking the database


@dataclass(frozen=True, slots=True)
class Found:
    """How things stood when they were asked for."""

    summary: Summary
    runs: Sequence[Run]
    """The last ones, newest first."""
    night: Run | None
    """The last run that was held against the nights before."""
    documents: int | None
    """What a search without filters finds; None where the index gives no answer."""


@dataclass(slots=True)
class Standing:
    """How things stood when last asked, shared by all who look: a large state takes seconds to be counted."""

    _lock: Lock = field(default_factory=Lock)
    _found: Found | None = None
    _until: float = 0.0

    def ask(self, services: Services) -> Found:
        with self._lock:
            start = time.monotonic()
            if self._found is None or start >= self._until:
                self._found = _find(services)
                spent = time.monotonic() - start
                self._until = start + max(EVERY / 2, _AT_MOST * spent)
            return self._found

    def forget(self) -> None:
        """Whoever changed something wants to see it."""
        with self._lock:
            self._found = None


@router.get("/status")
def show(request: Request, services: Opened, tried: int | None = None) -> Response:
    """`tried`: how many listings will be tried again, after somebody asked for it."""
    found = _standing(request).ask(services)
    state, runs, night, bundle = found.summary, found.runs, found.night, services.bundle
    last = next((run for run in runs if run.figures.get("photos")), None)
    stages = _stages(found, last)
    return render(
        request,
        "status.html",
        summary=state,
        wide=wide(stages),
        tall=tall(stages),
        last=last,
        bars=bars(runs),
        runs=runs[:10],
        ended=ended,
        duration=duration,
        took=took,
        failures=_failures(runs),
        drift=[] if night is None else list(read(night).values()),
        night=night,
        bundle=bundle,
        model=services.model,
        stale=state.stale(bundle.bundle_id),
        backfills=[(one, backfill_line(one)) for one in state.backfills],
        quarantined=quarantined(services.database, LISTED) if state.listings.get("quarantined") else [],
        settings=services.settings,
        every=EVERY,
        tried=tried,
    )


@router.post("/status/retry")
def retry(request: Request, services: Opened, editor: Editor, id: Annotated[str, Form()] = "") -> Response:
    """As `enrich retry ID`; without an id, as `enrich retry --all`."""
    count = services.requests.retry([known_listing(services, id)] if id else None)
    _standing(request).forget()
    return RedirectResponse(f"/status?tried={count}", 303)


def _standing(request: Request) -> Standing:
    found: Standing = request.app.state.standing
    return found


def _find(services: Services) -> Found:
    night = next(iter(services.runs.nights(1)), None)
    try:
        documents = services.index.search(Query(limit=0)).total
    except (IndexUnavailable, EnrichError):
        documents = None
    return Found(summary(services.database), services.runs.runs(RUNS), night, documents)


def _stages(found: Found, last: Run | None) -> dict[str, tuple[str, str]]:
    """Stage -> (number, what of); `last`: the run whose photos these are."""
    photos: Mapping[str, Any] = last.figures if last else {}
    discoveries = (run.figures["discovery"] for run in found.runs if run.figures.get("discovery"))
    seen: Mapping[str, int] = next(discoveries, {})
    listings, outbox = found.summary.listings, found.summary.outbox
    known = sum(count for status, count in listings.items() if status != "gone")
    return {
        "portal": (f"{known:,}", "listings"),
        "discover": (f"{seen.get('new', 0) + seen.get('changed', 0):,}", "new or changed"),
        "claim": (f"{listings.get('pending', 0):,}", "waiting"),
        "fetch": (f"{photos.get('fetched', 0):,}", "fetched"),
        "decode": (f"{photos.get('bytes', 0) / 1e6:,.1f}", "megabytes"),
        "score": (f"{photos.get('scored', 0):,}", "scored"),
        "aggregate": (f"{listings.get('leased', 0):,}", "in hand"),
        "save": (f"{listings.get('done', 0):,}", "done"),
        "publish": (f"{outbox.unpublished:,}", "to publish"),
        "index": ("–" if found.documents is None else f"{found.documents:,}", "documents"),
    }


def _failures(runs: Sequence[Run]) -> dict[str, list[tuple[str, int, int]]]:
    """Photo failures of these runs by kind and by host: (name, photos, percent of the most)."""
    kinds: Counter[str] = Counter()
    hosts: Counter[str] = Counter()
    for run in runs:
        kinds.update({words(kind): photos for kind, photos in run.figures.get("failures", {}).items()})
        for one in run.figures.get("failing_hosts", ()):
            hosts[f"{one['host']}: {words(one['kind'])}"] += one["photos"]
    return {"by kind": _shares(kinds), "by host": _shares(hosts)}


def _shares(counts: Counter[str]) -> list[tuple[str, int, int]]:
    most = max(counts.values(), default=1)
    return [(name, count, round(100 * count / most)) for name, count in counts.most_common(10)]
