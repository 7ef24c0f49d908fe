"""Which photo host may be asked now: limits in all and per host, and pauses that a host asked for."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

log = logging.getLogger(__name__)

LONGEST_PAUSE = 300.0
"""Seconds; a host that asks for more is asked again after these."""

_HOSTS_KEPT = 1_024
_TOLD_FROM = 10.0  # seconds of a pause that people are told of


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore
    paused_until: float = 0.0
    """By the event loop's clock."""
    users: int = 0

    def pause_left(self) -> float:
        return max(self.paused_until - _now(), 0.0)


class HostLimits:
    """At most `in_all` slots taken at once, at most `per_host` for one host, none for a paused host."""

    def __init__(self, in_all: int, per_host: int) -> None:
        self._slots = asyncio.Semaphore(in_all)
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[float]:
        """Wait for a slot of this host and hold it; nobody holds two at once.

        Yields the seconds of the host's pause that are left. Above 0 there is no slot: those who came before
        the pause, and wait for one, are told as soon as the next slot of the host is free.
        """
        host = self._host(name)
        host.users += 1
        try:
            if (left := host.pause_left()) > 0:
                yield left
                return
            # In this order, those who wait for a busy host take nothing from the others.
            async with host.slots:
                if (left := host.pause_left()) > 0:
                    yield left
                    return
                async with self._slots:
                    yield host.pause_left()
        finally:
            host.users -= 1

    def pause(self, name: str, seconds: float) -> float:
        """Give no slot of this host for so long from now; never shortens a pause. Answers what is left."""
        host = self._host(name)
        if seconds >= _TOLD_FROM and host.pause_left() == 0:
            log.info("the photo host %s wants to be left alone for %.0f s", name, seconds)
        host.paused_until = max(host.paused_until, _now() + seconds)
        return host.pause_left()

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
