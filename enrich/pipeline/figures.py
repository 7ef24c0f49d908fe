"""What a run counts while it works, and how it says so."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from enrich.records import Attributes, PhotoResult, PhotoStatus

HOSTS_KEPT, HOSTS_TOLD = 1_000, 20
OTHER_HOSTS = "other hosts"
_COUNTERS = (
    *("listings", "retry", "quarantined", "stale"),
    *("photos", "fetched", "unchanged", "cached", "scored", "rescored", "bytes"),
)


@dataclass(slots=True)
class Figures:
    """Counters of one run; stages add to them from several threads."""

    listings: int = 0
    retry: int = 0
    quarantined: int = 0
    stale: int = 0
    """Results thrown away because the lease had gone to another worker."""
    photos: int = 0
    fetched: int = 0
    unchanged: int = 0
    cached: int = 0
    scored: int = 0
    rescored: int = 0
    """Photos scored from kept features."""
    bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    failing_hosts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(host, kind) -> failures; beyond `HOSTS_KEPT` of them as of `OTHER_HOSTS`."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of work per stage, summed over its threads or requests."""
    places: int = 0
    """Places for photos in the batches that went through the model."""
    seen: int = 0
    """Listings of which a photo was seen; `answers` sums what the model says of these."""
    answers: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """`has_X`: how many are true; `X_confidence`: the sum; `X_types`: how many have any, `X_types=Y`: Y."""
    queues: Mapping[str, Callable[[], int]] = field(default_factory=dict)
    """Stage -> what asks how many photos or listings wait for it or are in it, while a pipeline runs."""
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent in the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start

    def count(self, result: PhotoResult) -> None:
        """Count how one photo ended."""
        self.photos += 1
        if not result.status.ok:
            self.failures[result.status.value] += 1
            where = _host(result.photo.shown_url), result.status.value
            if where not in self.failing_hosts and len(self.failing_hosts) >= HOSTS_KEPT:
                where = OTHER_HOSTS, result.status.value
            self.failing_hosts[where] += 1
        elif not result.requested:
            self.cached += 1
        elif result.status is PhotoStatus.UNCHANGED:
            self.unchanged += 1
        else:
            self.fetched += 1

    def count_rescored(self, photos: int) -> None:
        """Count photos that were scored from kept features."""
        with self._lock:
            self.rescored += photos

    def batch(self, size: int) -> None:
        """Count a batch with room for `size` photos."""
        with self._lock:
            self.places += size

    def answered(self, attributes: Attributes) -> None:
        """Count what the model says of a listing that was saved."""
        if not attributes.photos_seen:
            return
        self.seen += 1
        for name, value in attributes.fields.items():
            if isinstance(value, list | tuple):
                for each in value:
                    self.answers[f"{name}={each}"] += 1
                value = bool(value)
            self.answers[name] += value or 0.0

    @property
    def elapsed(self) -> float:
        return (self.ended or time.monotonic()) - self.started

    @property
    def speed(self) -> float:
        """Photos per second."""
        elapsed = self.elapsed
        return self.photos / elapsed if elapsed else 0.0

    def end(self) -> None:
        """Let the clock stand still, and let go of the pipeline."""
        self.ended = time.monotonic()
        self.queues = {}

    def as_json(self) -> dict[str, Any]:
        """The figures for logs and the table `run`; copies, since others may add to them meanwhile."""
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            "failures": dict(self.failures),
            "failing_hosts": [
                {"host": host, "kind": kind, "photos": count}
                for (host, kind), count in self.failing_hosts.copy().most_common(HOSTS_TOLD)
            ],
            "stage_seconds": {stage: round(spent, 3) for stage, spent in self.seconds.copy().items()},
            "seconds": round(self.elapsed, 3),
            "photos_per_second": round(self.speed, 2),
        }


def _host(url: str) -> str:
    """The host of a photo's address; of a folder or a store, what stands in its place."""
    try:
        parts = urlsplit(url)
        return parts.hostname or parts.scheme or "no address"
    except ValueError:
        return "no address"
