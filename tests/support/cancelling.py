"""Waits that are cancelled just as they end."""

import asyncio
from typing import Any


async def ends_or_is_cancelled(waiting: "asyncio.Task[Any]", turns: int) -> bool:
    """Cancel a task in `turns` turns of the event loop; whether it had ended before, or ends cancelled."""
    for _ in range(turns):
        await asyncio.sleep(0)
    ended = waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting], timeout=10)
    return ended or waiting.cancelled()
