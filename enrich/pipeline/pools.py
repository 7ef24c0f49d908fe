"""The threads of a run: a pool for each kind of work that would hold up the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from enrich.model.engine import Engine, lane_pool

P = ParamSpec("P")
T = TypeVar("T")


class Pools:
    """Open until its context ends, which waits for the work that is under way."""

    def __init__(self, engine: Engine, decoders: int) -> None:
        self.decode = ThreadPoolExecutor(decoders, "decode")
        self.score = lane_pool(engine)
        self.state = ThreadPoolExecutor(4, "state")
        self.heartbeat = ThreadPoolExecutor(1, "heartbeat")

    def __enter__(self) -> Self:
        return self

    def decoding(self) -> int:
        """Photos that wait for a decoder."""
        return self.decode._work_queue.qsize()  # the executor says it nowhere else

    def __exit__(self, *_: object) -> None:
        for pool in (self.decode, self.score, self.state, self.heartbeat):
            pool.shutdown()


async def run_in(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` answers, called in a thread of the pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))
