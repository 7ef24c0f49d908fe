"""Scores the photos of waiting listings ahead, on a Ray cluster; the ordinary pipeline finds them known.

Nothing is promised here. A photo that was lost on the way, with its node, or whose host was paused for too
long, is left: whoever claims its listing asks for it. So no call is repeated, and a photo that kills a scorer
kills one.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from pydantic import SecretStr

from enrich.errors import ErrorBudgetError, UsageError
from enrich.model.open import open_engine
from enrich.pipeline.budget import ErrorBudget
from enrich.pipeline.run import WINDOW_PER_REQUEST
from enrich.settings import Settings
from enrich.state.ahead import Ahead
from jobs.run.ahead import ScoredAhead
from jobs.run.cluster.connect import LOCAL
from jobs.run.cluster.crew import SCORER_THREADS, Crew, Worker, muster
from jobs.run.cluster.hosts import Ask, Host, Hosts, Page
from jobs.run.cluster.stages import Asked, OpenEngine, Scored, counted, packed
from jobs.run.cluster.unscored import unscored
from jobs.run.progress import shown
from jobs.run.services import Services
from jobs.run.stop import Stop

LOOK_AHEAD = 20_000  # photos that wait for their turn, those of paused hosts included
FETCH_BATCH = 16  # photos of one host per call to a fetcher
SCORE_BATCH = 64  # photos per call to a scorer, about and at least
LINGER = 0.2  # seconds after which fetched photos go to a scorer though they are few
CALLS_PER_SCORER = SCORER_THREADS + 1
POLL = 0.5  # seconds between looks for a signal, and for hosts whose pause is over


def score_ahead(
    ray: Any,
    address: str,
    services: Services,
    report: ScoredAhead,
    stop: Stop,
    ids: Sequence[str] | None = None,
    engine: OpenEngine = open_engine,
) -> None:
    """Fetch and score the photos of waiting listings (of `ids`, if given) that state does not settle.

    When told to stop, requests under way are dropped, and what is fetched is scored and saved.

    Raises:
        UsageError: the nodes cannot work with the settings.
        ErrorBudgetError: too many photo requests failed for passing reasons.
        OutageError: Postgres, or the cluster, was away for too long.
    """
    settings = for_nodes(services, address)

    def start() -> Crew:
        crew = muster(ray, settings, packed(services.bundle.folder), engine)
        report.fetchers, report.scorers = len(crew.fetchers), len(crew.scorers)
        return crew

    budget = ErrorBudget(settings.error_budget)
    drive = _Drive(start, unscored(services, ids), settings, report, budget, stop)
    queue, figures = services.queue, report.figures
    with shown(figures, lambda: queue.waiting_count(ids) - figures.listings, settings.log_interval):
        try:
            drive.run()
        except ErrorBudgetError:
            Ahead(services.database).forgive(budget.failed())
            raise
        finally:
            figures.end()


def for_nodes(services: Services, address: str) -> Settings:
    """The settings as nodes need them: where state is, the arithmetic by which the pipeline will look for
    scores, and nothing of the index or the portal's tables.

    Raises:
        UsageError: other machines cannot reach an embedded Postgres.
    """
    if services.settings.embedded and address != LOCAL:
        raise UsageError(
            "--ray with ENRICH_EMBEDDED=true: other machines cannot reach the embedded Postgres; set "
            "DATABASE_URL, or use --ray local"
        )
    url = services.database.url.render_as_string(hide_password=False)
    unused = ("source_database_url", "elasticsearch_url", "elasticsearch_api_key", "elasticsearch_password")
    return services.settings.model_copy(
        update={
            "database_url": SecretStr(url),
            "embedded": False,
            "index_backend": "elasticsearch",
            "precision": services.bundle.arithmetic,
            **dict.fromkeys(unused),
        }
    )


class _Drive:
    """One streaming of photos through a crew; `muster` starts it when there is a photo to ask for."""

    def __init__(
        self,
        muster: Callable[[], Crew],
        pages: Iterator[tuple[Page, list[Ask]]],
        settings: Settings,
        report: ScoredAhead,
        budget: ErrorBudget,
        stop: Stop,
    ) -> None:
        self._muster, self._pages, self._report = muster, pages, report
        self._figures, self._budget, self._stop = report.figures, budget, stop
        self._hosts: Hosts[Worker] = Hosts()
        self._crew: Crew | None = None
        self._fetched: deque[tuple[list[Ask], Any]] = deque()
        self._more, self._fetched_at = True, 0.0
        self._per_score = max(SCORE_BATCH, settings.batch_size)
        self._per_host = max(2 * FETCH_BATCH, 3 * settings.fetch_per_host)
        self._per_fetcher = max(2 * FETCH_BATCH, WINDOW_PER_REQUEST * settings.fetch_concurrency)

    def run(self) -> None:
        """Work until every photo is dealt with, or until told to stop and nothing is in hand."""
        while not self._stop.is_set() and (self._more or self._hosts.waiting or self._in_hand):
            if self._reading:
                self._read()
            if self._crew is not None:
                self._send_to_fetchers(self._crew)
                self._go_on(self._crew)
        if self._crew is not None:
            self._crew.stop()
            while self._in_hand:
                self._go_on(self._crew)

    @property
    def _in_hand(self) -> bool:
        return bool(self._fetched) or (self._crew is not None and self._crew.busy)

    @property
    def _reading(self) -> bool:
        return self._more and self._hosts.waiting < LOOK_AHEAD

    def _read(self) -> None:
        page, asks = next(self._pages, (None, []))
        if page is None:
            self._more = False
        elif not asks:
            self._figures.listings += page.listings
        for ask in asks:
            self._hosts.add(ask)
        if asks and self._crew is None:
            self._crew = self._muster()

    def _go_on(self, crew: Crew) -> None:
        self._send_to_scorers(crew)
        crew.wait(0 if self._reading and not self._stop.is_set() else LINGER if self._fetched else POLL)

    def _send_to_fetchers(self, crew: Crew) -> None:
        if not crew.assembled:
            return
        # Photos are not fetched faster than they are scored.
        most = len(crew.fetchers) * self._per_fetcher + len(crew.scorers) * CALLS_PER_SCORER * self._per_score
        in_hand = crew.photos + sum(len(asks) for asks, _ in self._fetched)
        owned = self._hosts.owned()
        ready = [worker for worker in crew.fetchers if worker.ready]
        for host in self._hosts.askable(time.monotonic(), self._per_host):
            owner = self._owner(host, ready, owned)
            while owner is not None and host.waiting and host.asked < self._per_host:
                if owner.photos >= self._per_fetcher or in_hand >= most:
                    break
                asks = self._hosts.take(host, FETCH_BATCH)
                in_hand += len(asks)
                asked, fetched = owner.actor.fetch.options(num_returns=2).remote(asks)
                then = partial(self._asked, host, asks, fetched)
                crew.called(asked, owner, asks, then, partial(self._lost, asks, host))

    def _owner(self, host: Host[Worker], ready: Sequence[Worker], owned: Counter[Worker]) -> Worker | None:
        """Who asks this host now: the same one as long as anything of it is under way.

        None: nobody can, or it is about to go to a fetcher that has far fewer, once nothing is under way.
        """
        least = min(ready, key=lambda worker: owned[worker], default=None)
        owner = host.owner
        crowded = owner is not None and least is not None and owned[owner] > 2 * owned[least] + 2
        if not host.asked and (owner is None or owner not in ready or crowded):
            owned.subtract([owner] if owner else [])
            owned.update([least] if least else [])
            host.owner = least
            return least
        return None if crowded or owner not in ready else owner

    def _asked(self, host: Host[Worker], asks: Sequence[Ask], fetched: Any, asked: Asked) -> None:
        host.asked -= len(asks)
        self._figures.bytes += asked.bytes
        self._figures.seconds["fetch"] += asked.seconds
        now = time.monotonic()
        answered, refused = [], []
        for place, ask in enumerate(asks):
            if place in asked.dropped:
                self._leave([ask])
            elif (pause := asked.paused.get(place)) is None:
                answered.append(ask)
            elif refusal := self._hosts.paused(host, ask, pause, now):
                refused.append((ask, refusal))
        if answered:
            host.waited = 0.0
            self._to_score(answered, fetched)
        if refused:
            self._to_score([ask for ask, _ in refused], [refusal for _, refusal in refused])
        self._leave(self._hosts.given_up(host))

    def _to_score(self, asks: list[Ask], fetched: Any) -> None:
        if not self._fetched:
            self._fetched_at = time.monotonic()
        self._fetched.append((asks, fetched))

    def _send_to_scorers(self, crew: Crew) -> None:
        while self._fetched:
            few = sum(len(asks) for asks, _ in self._fetched) < self._per_score
            free = [worker for worker in crew.scorers if worker.ready and worker.calls < CALLS_PER_SCORER]
            if not free or (few and crew.busy and time.monotonic() - self._fetched_at < LINGER):
                return
            scorer = min(free, key=lambda worker: worker.photos)
            asks: list[Ask] = []
            batches = []
            while self._fetched and len(asks) < self._per_score:
                some, fetched = self._fetched.popleft()
                asks += some
                batches.append(fetched)
            ref = scorer.actor.score.remote(asks, *batches)
            crew.called(ref, scorer, asks, partial(self._scored, asks), partial(self._lost, asks))

    def _scored(self, asks: Sequence[Ask], scored: Scored) -> None:
        counted(scored, self._figures)
        self._leave([asks[place] for place in scored.left])
        for place, (ask, (status, transient)) in enumerate(zip(asks, scored.ends, strict=True)):
            if place not in scored.left:
                self._figures.listings += ask.page.dealt_with()
                self._budget.spend(ask.photo.key, status.value if transient else None)

    def _lost(self, asks: Sequence[Ask], host: Host[Worker] | None = None) -> None:
        if host is not None:
            host.asked -= len(asks)
        self._leave(asks)

    def _leave(self, asks: Sequence[Ask]) -> None:
        """These are left to whoever claims their listings."""
        self._report.left += len(asks)
        self._figures.listings += sum(ask.page.dealt_with() for ask in asks)
