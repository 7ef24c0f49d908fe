"""Photos that wait to be asked for, by host: each host belongs to one fetcher at a time, and pauses for all.

The one place that knows of hosts' pauses, so that they hold for the whole cluster, and past the death of a
fetcher; those of hosts that are reached by redirects only, each fetcher knows for itself. Ports and user
names do not make another host.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from enrich.photos.transport import Paused
from enrich.pipeline.listing import PATIENCE, REFUSALS
from enrich.pipeline.outcome import Known
from enrich.records import Fetched, Photo

Owner = TypeVar("Owner")


@dataclass(slots=True)
class Page:
    """Some listings that were read together, and how many photos of theirs are not dealt with yet."""

    listings: int
    photos: int = 0

    def dealt_with(self) -> int:
        """One photo less; how many listings are done with it."""
        self.photos -= 1
        return 0 if self.photos else self.listings


@dataclass(slots=True)
class Ask:
    """A photo to be asked for. `page` is the page of listings that it came with."""

    photo: Photo
    known: Known
    page: Page
    refusals: int = 0
    waited: float = 0.0
    """Seconds of pauses of hosts to which its own has redirected."""


@dataclass(slots=True)
class Host(Generic[Owner]):
    """A photo host and what waits for it."""

    name: str
    waiting: deque[Ask] = field(default_factory=deque)
    later: list[tuple[float, int, Ask]] = field(default_factory=list)
    """A heap of photos that were redirected to a paused host, by when they wait for their turn again."""
    overdue: list[Ask] = field(default_factory=list)
    """Those that waited for such a host for too long."""
    asked: int = 0
    """Photos under way."""
    owner: Owner | None = None
    """Who asks it; changed only while nothing is under way."""
    paused_until: float = 0.0
    waited: float = 0.0
    """Seconds of pauses since its last answer."""


class Hosts(Generic[Owner]):
    """All hosts that photos wait for. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host[Owner]] = {}
        self._order = count()
        self.waiting = 0
        """Photos that wait, those of paused hosts included."""

    def add(self, ask: Ask) -> None:
        """Let a photo wait for its turn."""
        name = host_of(ask.photo.url)
        self._hosts.setdefault(name, Host(name)).waiting.append(ask)
        self.waiting += 1

    def askable(self, now: float, most: int) -> Iterator[Host[Owner]]:
        """Unpaused hosts with photos that wait and fewer than `most` under way; idle hosts are forgotten."""
        for name, host in list(self._hosts.items()):
            while host.later and host.later[0][0] <= now:
                host.waiting.append(heappop(host.later)[-1])
            if host.waiting and host.asked < most and host.paused_until <= now:
                yield host
            elif not (host.waiting or host.later or host.asked) and host.paused_until <= now:
                del self._hosts[name]

    def owned(self) -> Counter[Owner]:
        """How many hosts are whose."""
        return Counter(host.owner for host in self._hosts.values() if host.owner is not None)

    def take(self, host: Host[Owner], count: int) -> list[Ask]:
        """The next photos of a host, at most `count`; they are under way now, and other hosts come first."""
        self._hosts[host.name] = self._hosts.pop(host.name)
        taken = [host.waiting.popleft() for _ in range(min(count, len(host.waiting)))]
        self.waiting -= len(taken)
        host.asked += len(taken)
        return taken

    def paused(self, host: Host[Owner], ask: Ask, pause: Paused, now: float) -> Fetched | None:
        """The host wants to be left alone: the photo waits again, first in its queue. Where it is a host that
        this one has redirected to, the photo waits alone.

        Answers the refusal where it counts as the answer, since the photo was refused too often.
        """
        if not pause.elsewhere:
            until = max(host.paused_until, now + pause.seconds)
            host.waited += until - max(host.paused_until, now)
            host.paused_until = until
        ask.refusals += pause.refusal is not None
        if pause.refusal is not None and ask.refusals > REFUSALS:
            return pause.refusal
        if not pause.elsewhere:
            host.waiting.appendleft(ask)
        elif ask.waited < PATIENCE:
            ask.waited += pause.seconds
            heappush(host.later, (now + pause.seconds, next(self._order), ask))
        else:
            host.overdue.append(ask)
        self.waiting += 1
        return None

    def given_up(self, host: Host[Owner]) -> list[Ask]:
        """What waits no longer for a host that was paused for too long without an answer."""
        left, host.overdue = host.overdue, []
        if host.waited >= PATIENCE:
            left += host.waiting
            host.waiting.clear()
        self.waiting -= len(left)
        return left


def host_of(url: str) -> str:
    """The host of a URL, the bucket of an object store's; "" where there is none."""
    try:
        return urlsplit(url.strip()).hostname or ""
    except ValueError:  # no URL at all: a photo's status will say so
        return ""
