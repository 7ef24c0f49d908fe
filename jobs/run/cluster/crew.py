"""The actors on the cluster's nodes: what each has in hand, and what is done when one is lost."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from enrich.errors import EnrichError, OutageError
from enrich.settings import Settings
from jobs.run.cluster.hosts import Ask
from jobs.run.cluster.stages import Fetcher, NotReadyError, OpenEngine, Scorer

log = logging.getLogger(__name__)

START = 120.0  # seconds that actors have to start in, again too, however short an outage may be
ASSEMBLE = 20.0  # seconds that the first fetchers to be ready wait for the others, so that each gets hosts
SCORER_THREADS = 2  # calls that one scorer works on at once: one decodes and saves while the other scores


@dataclass(slots=True, eq=False)
class Worker:
    """One actor. It is `ready` from its first sign of life until a call to it fails."""

    actor: Any
    needs: Sequence[Any]
    """What it is given to get ready, as references: Ray shows nothing of what these refer to."""
    ready: bool = False
    calls: int = 0
    photos: int = 0
    """Photos in its hands."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call under way: whom it is to, which photos are in it, and what is to be done with its answer."""

    worker: Worker
    asks: Sequence[Ask]
    then: Callable[[Any], None]
    lost: Callable[[], None]
    made_at: float


@dataclass(slots=True)
class Crew:
    """All actors, and the calls to them that are under way."""

    ray: Any
    fetchers: list[Worker]
    scorers: list[Worker]
    patience: float
    """Seconds without one ready fetcher and one ready scorer after which all is given up."""
    longest_call: float
    """Seconds after which there will be no answer."""
    _calls: dict[Any, _Call] = field(default_factory=dict)
    _pings: dict[Any, Worker] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _complete_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for worker in [*self.fetchers, *self.scorers]:
            self._ping(worker)

    @property
    def assembled(self) -> bool:
        """Whether hosts can be shared out among the fetchers."""
        return all(worker.ready for worker in self.fetchers) or time.monotonic() - self._started > ASSEMBLE

    @property
    def photos(self) -> int:
        """Photos in the actors' hands."""
        return sum(len(call.asks) for call in self._calls.values())

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._calls)

    def called(
        self,
        ref: Any,
        worker: Worker,
        asks: Sequence[Ask],
        then: Callable[[Any], None],
        lost: Callable[[], None],
    ) -> None:
        """A call has been made; `then` gets its answer, `lost` is called where there will be none."""
        worker.calls += 1
        worker.photos += len(asks)
        self._calls[ref] = _Call(worker, asks, then, lost, time.monotonic())

    def wait(self, seconds: float) -> None:
        """Wait for a sign from an actor, and deal with all there are.

        Raises:
            EnrichError: an actor cannot work as the settings are, or the database is away.
            OutageError: for too long there was no fetcher, or no scorer.
        """
        refs = [*self._calls, *self._pings]
        if not refs:
            time.sleep(seconds)
            return
        done, _ = self.ray.wait(refs, num_returns=1, timeout=seconds, fetch_local=False)
        if done:
            done, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        for ref in done:
            if (worker := self._pings.pop(ref, None)) is not None:
                self._pinged(ref, worker)
            else:
                self._answered(ref)
        self._give_up()
        self._check()

    def stop(self) -> None:
        """Have all requests under way dropped."""
        for worker in self.fetchers:
            worker.actor.stop.remote()

    def _ping(self, worker: Worker) -> None:
        worker.ready = False
        if worker not in self._pings.values():
            self._pings[worker.actor.ready.options(max_task_retries=-1).remote(*worker.needs)] = worker

    def _pinged(self, ref: Any, worker: Worker) -> None:
        try:
            self._get(ref)
            worker.ready = True
        except self.ray.exceptions.RayError as error:
            reason = _first_line(error)
            log.warning("Ray lost a worker for good: %s", reason)
            for crew in (self.fetchers, self.scorers):
                if worker in crew:
                    crew.remove(worker)
                    if not crew:
                        raise OutageError(f"Ray has no worker left: {reason}") from None

    def _answered(self, ref: Any) -> None:
        call = self._ended(ref)
        try:
            answer = self._get(ref)
        except (self.ray.exceptions.RayError, NotReadyError) as error:
            self._lost(call, _first_line(error))
        else:
            call.then(answer)

    def _ended(self, ref: Any) -> _Call:
        call = self._calls.pop(ref)
        call.worker.calls -= 1
        call.worker.photos -= len(call.asks)
        return call

    def _lost(self, call: _Call, reason: str) -> None:
        log.warning("a Ray worker was lost with %d photos: %s", len(call.asks), reason)
        call.lost()
        self._ping(call.worker)

    def _give_up(self) -> None:
        """Calls that Ray lost track of: seen where a node was lost while it sent an answer."""
        latest = time.monotonic() - self.longest_call
        for ref, call in list(self._calls.items()):
            if call.made_at < latest:
                self._lost(self._ended(ref), f"no answer for {self.longest_call:.0f} s")

    def _get(self, ref: Any) -> Any:
        """A call's answer; what it raised itself is raised as it was there, what Ray says as a `RayError`."""
        try:
            return self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EnrichError):
                raise cause from None
            raise cause from error

    def _check(self) -> None:
        now = time.monotonic()
        if any(worker.ready for worker in self.fetchers) and any(worker.ready for worker in self.scorers):
            self._complete_at = now
        elif now - self._complete_at > self.patience:
            raise OutageError(
                f"Ray: no {'scorer' if any(w.ready for w in self.fetchers) else 'fetcher'} was up for "
                f"{self.patience:g} s. Nothing is lost: see `ray status`, and start the command again"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def muster(ray: Any, settings: Settings, bundle: bytes, open_engine: OpenEngine) -> Crew:
    """Start a fetcher on every node that has CPUs, and a scorer for every GPU, or on every node without GPUs.

    Where the cluster has GPUs, and the settings do not say otherwise, all scoring is theirs, so that scores
    do not depend on which node made them, and their nodes are left to it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise OutageError("Ray: the cluster has no node with CPUs: see `ray status`")
    on_cpu = settings.device == "cpu" or settings.engine == "openvino"
    gpus = {} if on_cpu else {n["NodeID"]: int(n["Resources"].get("GPU", 0)) for n in nodes}
    without = [node["NodeID"] for node in nodes if not gpus.get(node["NodeID"])]
    everywhere = [node["NodeID"] for node in nodes]
    with_gpus = [node for node, count in gpus.items() for _ in range(count)]
    shared, model = ray.put(settings), ray.put(bundle)

    def on(node: str, **options: Any) -> dict[str, Any]:
        # One that breaks comes back there; with its node it is lost, and the others do its work.
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        return {"scheduling_strategy": strategy, "max_restarts": -1, "num_cpus": 0, **options}

    fetcher, scorer = ray.remote(Fetcher), ray.remote(Scorer)
    gpu = {"num_gpus": 1} if with_gpus else {}
    scorers = with_gpus or everywhere
    fetchers = without or everywhere
    log.info("Ray: %d nodes, %d fetchers, %d scorers", len(nodes), len(fetchers), len(scorers))
    return Crew(
        ray,
        [Worker(fetcher.options(**on(node)).remote(), [shared]) for node in fetchers],
        [
            Worker(
                scorer.options(**on(node, max_concurrency=SCORER_THREADS, **gpu)).remote(),
                [shared, model, open_engine],
            )
            for node in scorers
        ],
        max(settings.outage_seconds, START),
        # A photo waits for those before it, each of which may time out; saving waits for Postgres.
        settings.outage_seconds + 5 * settings.fetch_timeout,
    )
