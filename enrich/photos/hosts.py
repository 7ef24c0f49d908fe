"""Whose turn it is to be asked for a photo: limits in all and per host, and pauses that a host asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

LONGEST_PAUSE = 300.0
"""Seconds; a host that asks for more is asked again after these."""

_HOSTS_KEPT = 1_024


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore
    paused_until: float = 0.0
    """By the event loop's clock."""
    users: int = 0


class HostLimits:
    """At most `in_all` turns taken at once, at most `per_host` for one host, none for a paused host."""

    def __init__(self, in_all: int, per_host: int) -> None:
        self._slots = asyncio.Semaphore(in_all)
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn with this host and hold it; nobody holds two at once."""
        host = self._host(name)
        host.users += 1
        try:
            # In this order, those who wait for a paused host take nothing from the others.
            async with host.slots:
                while (wait := host.paused_until - _now()) > 0:  # noqa: ASYNC110 - a pause may grow meanwhile
                    await asyncio.sleep(wait)
                async with self._slots:
                    yield
        finally:
            host.users -= 1

    def pause(self, name: str, seconds: float) -> None:
        """Give no turn with this host for so long from now; never shortens a pause."""
        host = self._host(name)
        host.paused_until = max(host.paused_until, _now() + seconds)

    def _host(self, name: str) -> _Host:
        if name not in self._hosts:
            if len(self._hosts) >= _HOSTS_KEPT:
                now = _now()
                self._hosts = {n: h for n, h in self._hosts.items() if h.users or h.paused_until > now}
            self._hosts[name] = _Host(asyncio.Semaphore(self._per_host))
        return self._hosts[name]


def _now() -> float:
    return asyncio.get_running_loop().time()


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a `Retry-After` header, capped at `LONGEST_PAUSE`; None: it says nothing of use."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdecimal() else (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)
