"""Waiting for claims to leave this process's hands; with a real queue: `tests/integration`."""

import asyncio
from typing import Any

import pytest

from enrich.pipeline.leases import Leases
from tests.support.cancelling import ends_or_is_cancelled

UNUSED: Any = None


@pytest.mark.parametrize("turns", range(4))
def test_a_wait_is_cancelled_even_where_a_claim_leaves_at_that_moment(turns: int) -> None:
    """Else the run of a photo host that is gone would wait forever for claims that nobody works on."""

    async def go() -> None:
        leases = Leases(UNUSED, UNUSED, 9)
        waiting = asyncio.create_task(leases.change(60))
        await asyncio.sleep(0.01)
        leases.wake()
        assert await ends_or_is_cancelled(waiting, turns)

    asyncio.run(go())


def test_a_wait_ends_with_its_time_or_when_it_is_woken() -> None:
    async def go() -> None:
        leases = Leases(UNUSED, UNUSED, 9)
        await leases.change(0.01)
        waiting = asyncio.create_task(leases.change(60))
        await asyncio.sleep(0.01)
        leases.wake()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(go())
