"""The driver and its actors, on a Ray that is nowhere: whoever is called has answered already."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import make_url

from enrich.errors import OutageError
from enrich.model.open import open_engine
from enrich.pipeline.outcome import Known
from enrich.records import Photo, PhotoStatus
from enrich.settings import load_settings
from jobs.run.ahead import ScoredAhead
from jobs.run.cluster import crew, drive
from jobs.run.cluster.connect import LOCAL
from jobs.run.cluster.hosts import Ask, Page
from jobs.run.cluster.stages import Asked, Scored
from jobs.run.services import Services
from jobs.run.stop import Stop


class Answer:
    """A reference to what a call came to."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass
class Call:
    """A method of an actor."""

    work: Callable[..., Any]

    def options(self, **_: Any) -> "Call":
        return self

    def remote(self, *given: Any) -> Any:
        return self.work(*given)


class Ray:
    """One node with an actor of each kind; `up` tells whether these have started."""

    exceptions = SimpleNamespace(RayError=RuntimeError, RayTaskError=ZeroDivisionError)

    def __init__(self, up: bool = True) -> None:
        self.up = up
        self.scored: list[int] = []
        """Photos of each call to the scorer."""

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": "0" * 56, "Resources": {"CPU": 1.0}}]

    def put(self, given: Any) -> Any:
        return given

    def remote(self, _: type) -> Call:
        return Call(lambda: self)

    def wait(self, refs: Sequence[Answer], **_: Any) -> tuple[Sequence[Answer], Sequence[Answer]]:
        return (refs, []) if self.up else ([], refs)

    def get(self, ref: Answer) -> Any:
        return ref.value

    # The actors

    @property
    def ready(self) -> Call:
        return Call(lambda *_: Answer(None))

    @property
    def stop(self) -> Call:
        return Call(lambda: None)

    @property
    def fetch(self) -> Call:
        return Call(lambda asks: (Answer(Asked({}, frozenset(), 0, 0.0)), asks))

    @property
    def score(self) -> Call:
        return Call(self._score)

    def _score(self, asks: Sequence[Ask], *fetched: Sequence[Ask]) -> Answer:
        assert asks == [each for batch in fetched for each in batch]
        self.scored.append(len(asks))
        return Answer(Scored([(PhotoStatus.OK, False)] * len(asks), len(asks), len(asks)))


def test_actors_may_take_their_time_to_start_however_short_an_outage_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(crew, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ray = Ray(up=False)
    actors = crew.muster(ray, load_settings(outage_seconds=0), b"", open_engine)
    actors._complete_at = now[0]
    now[0] += 60
    actors.wait(0)
    now[0] += 61
    with pytest.raises(OutageError, match="no fetcher was up for 120 s"):
        actors.wait(0)


@pytest.mark.parametrize(("batch_size", "at_once"), [(8, 64), (256, 256)])
def test_a_scorer_gets_whole_batches(monkeypatch: pytest.MonkeyPatch, batch_size: int, at_once: int) -> None:
    """The engine's passes are no larger than what it is given in one call."""
    page, photos = Page(1, 2 * at_once), [f"http://photos.example/{n}.jpg" for n in range(2 * at_once)]
    asks = [Ask(Photo(0, url, url, url), Known(), page) for url in photos]
    monkeypatch.setattr(drive, "unscored", lambda services, ids: iter([(page, asks)]))
    monkeypatch.setattr(drive, "packed", lambda folder: b"")
    monkeypatch.setattr(drive, "LINGER", 60.0)
    services = SimpleNamespace(
        settings=load_settings(batch_size=batch_size),
        database=SimpleNamespace(url=make_url("postgresql://db.example/portal")),
        bundle=SimpleNamespace(folder=None, arithmetic="fp32"),
        queue=SimpleNamespace(waiting_count=lambda ids: 0),
    )
    ray, report = Ray(), ScoredAhead()
    drive.score_ahead(ray, LOCAL, cast(Services, services), report, Stop())
    assert ray.scored == [at_once, at_once]
    assert (report.figures.scored, report.figures.listings, report.left) == (2 * at_once, 1, 0)
