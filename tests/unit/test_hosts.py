"""Limits in all and per host, and the pauses that hosts ask for."""

import asyncio
from datetime import UTC, datetime

import pytest

from enrich.photos.hosts import LONGEST_PAUSE, HostLimits, retry_after
from enrich.state.listings import PAUSED_SECONDS

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        ("999999", LONGEST_PAUSE),
        ("9" * 400, LONGEST_PAUSE),
        ("Sun, 01 Mar 2026 12:00:20 GMT", 20.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Mon, 02 Mar 2026 12:00:00 GMT", LONGEST_PAUSE),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Mar 2026 12:00:20 GMT", None),
        ("Sun, 01 Mar 2026 12:00:20 -0000", None),  # no HTTP date
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


async def _most_at_once(limits: HostLimits, hosts: list[str]) -> int:
    held = most = 0

    async def one(host: str) -> None:
        nonlocal held, most
        async with limits.take(host):
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    await asyncio.gather(*(one(host) for host in hosts))
    return most


def test_limits() -> None:
    assert asyncio.run(_most_at_once(HostLimits(10, 3), ["a"] * 20)) == 3
    assert asyncio.run(_most_at_once(HostLimits(10, 3), ["a", "b"] * 20)) == 6
    assert asyncio.run(_most_at_once(HostLimits(4, 3), ["a", "b"] * 20)) == 4


def test_those_who_wait_for_a_paused_host_hold_up_no_other() -> None:
    async def go() -> list[str]:
        limits, order = HostLimits(2, 2), list[str]()
        limits.pause("paused", 0.2)

        async def one(host: str) -> None:
            while True:
                async with limits.take(host) as pause:
                    if pause == 0:
                        return order.append(host)
                await asyncio.sleep(pause)

        await asyncio.gather(*(one(host) for host in ["paused"] * 5 + ["other"] * 5))
        return order

    assert asyncio.run(go()) == ["other"] * 5 + ["paused"] * 5


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    async def go() -> tuple[float, float]:
        limits = HostLimits(2, 2)
        limits.pause("a", 60)
        left = limits.pause("a", 0)
        async with asyncio.timeout(10), limits.take("a") as pause:
            return left, pause

    assert all(59 < seconds <= 60 for seconds in asyncio.run(go()))


def test_those_who_wait_for_a_slot_of_a_host_are_told_of_its_pause_when_one_is_free() -> None:
    async def go() -> list[float]:
        limits = HostLimits(2, 1)

        async def one() -> float:
            async with limits.take("a") as pause:
                return pause

        async with asyncio.timeout(10):
            async with limits.take("a") as pause:
                waiting = [asyncio.create_task(one()) for _ in range(5)]
                await asyncio.sleep(0)
                limits.pause("a", 60)
            return [pause, *await asyncio.gather(*waiting)]

    first, *others = asyncio.run(go())
    assert first == 0 and len(others) == 5
    assert all(59 < seconds <= 60 for seconds in others)


def test_many_hosts_are_forgotten_but_not_their_pauses() -> None:
    async def go() -> int:
        limits = HostLimits(2, 2)
        limits.pause("paused", 60)
        for number in range(3_000):
            async with limits.take(f"host{number}"):
                pass
        assert "paused" in limits._hosts
        return len(limits._hosts)

    assert asyncio.run(go()) <= 1_024


def test_a_cancelled_wait_gives_its_turn_back() -> None:
    async def go() -> None:
        limits = HostLimits(1, 1)

        async def one() -> None:
            async with limits.take("a"):
                await asyncio.sleep(60)

        async with asyncio.timeout(10):
            async with limits.take("a"):
                task = asyncio.create_task(one())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            async with limits.take("a"):
                pass

    asyncio.run(go())


def test_what_waits_for_a_paused_host_is_counted_as_long_as_a_pause_lasts() -> None:
    assert PAUSED_SECONDS == LONGEST_PAUSE
