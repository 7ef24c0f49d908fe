"""Places for photos on their way, and room for those whose host is paused."""

import asyncio

import pytest

from enrich.pipeline.window import Window
from enrich.records import Claim
from tests.support.cancelling import ends_or_is_cancelled

FIRST, SECOND = (Claim(id, "token", 1, False) for id in "ab")


async def parked(window: Window, claim: Claim, count: int = 1) -> list["asyncio.Task[bool]"]:
    tasks = [asyncio.create_task(window.park(claim, 60)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_a_place_is_for_one_photo_at_a_time() -> None:
    async def go() -> None:
        window = Window(2, 0)
        await window.take()
        await window.take()
        waiting = asyncio.create_task(window.take())
        await asyncio.sleep(0)
        assert window.taken == 2 and not waiting.done()
        window.give_back()
        await waiting
        assert window.taken == 2

    asyncio.run(go())


def test_the_listing_that_came_first_may_always_park() -> None:
    async def go() -> None:
        window = Window(1, 3)
        assert window.has_room(SECOND)
        await parked(window, FIRST, 2)
        assert window.has_room(SECOND)
        await parked(window, SECOND)
        assert window.has_room(FIRST) and not window.has_room(SECOND)
        window.leave(FIRST)
        assert window.has_room(FIRST) and window.has_room(SECOND)

    asyncio.run(go())


def test_a_listing_stays_the_first_when_its_pause_is_over() -> None:
    async def go() -> None:
        window = Window(1, 1)
        assert await window.park(FIRST, 0)
        await parked(window, SECOND)
        assert window.has_room(FIRST) and not window.has_room(SECOND)

    asyncio.run(go())


def test_a_pause_is_waited_out_unless_the_claim_leaves_or_the_window_closes() -> None:
    async def go() -> None:
        window = Window(1, 9)
        assert await window.park(FIRST, 0.01)
        first, second = [*await parked(window, FIRST), *await parked(window, SECOND)]
        window.leave(FIRST)
        assert not await first and not second.done()
        window.close()
        assert not await second
        assert not await window.park(SECOND, 60), "nobody waits in a closed window"

    asyncio.run(asyncio.wait_for(go(), 10))


@pytest.mark.parametrize("turns", range(4))
def test_a_pause_is_cancelled_even_where_the_claim_leaves_at_that_moment(turns: int) -> None:
    async def go() -> None:
        window = Window(1, 9)
        (pause,) = await parked(window, FIRST)
        await asyncio.sleep(0.01)
        window.leave(FIRST)
        assert await ends_or_is_cancelled(pause, turns)

    asyncio.run(go())
