"""Work shared between photos: full batches for the model, and outcomes made once for many callers."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Out = TypeVar("Out")
T = TypeVar("T")
REMEMBERED = 20_000  # outcomes kept, so that a URL or picture shared by listings is worked on once
LINGER = 0.2  # seconds without a new item after which a partial batch goes


class Batcher(Generic[Item, Out]):
    """Collects items of many callers into batches for one function that runs in `executor`.

    A batch goes when it is full, when `more(held)` says that nothing is on its way beside the `held` items
    that were submitted and have no output yet, or when no item has come for `linger` seconds. `run` may run
    several times at once, each time working on a batch of its own.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Out]],
        size: int,
        executor: Executor,
        more: Callable[[int], bool],
        linger: float = LINGER,
    ) -> None:
        self._work = work
        self._size = size
        self._executor = executor
        self._more = more
        self._linger = linger
        self._held = 0
        self._collecting = asyncio.Lock()
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Out]]] = asyncio.Queue(maxsize=4 * size)

    def __len__(self) -> int:
        """Items submitted that have no output yet."""
        return self._held

    async def submit(self, item: Item) -> Out:
        """The function's output for `item`; raises what the function raised for its batch."""
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._held += 1
        try:
            await self._queue.put((item, future))
            return await future
        finally:
            self._held -= 1

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._collecting:  # one at a time, so that batches are full
                batch = await self._collect()
            try:
                outputs = await loop.run_in_executor(self._executor, self._work, [item for item, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), output in zip(batch, outputs, strict=True):
                if not future.done():
                    future.set_result(output)

    async def _collect(self) -> list[tuple[Item, asyncio.Future[Out]]]:
        batch = [await self._queue.get()]
        while len(batch) < self._size:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            if not self._more(self._held):
                break
            try:
                async with asyncio.timeout(self._linger):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch


class Memo:
    """A bounded memory of outcomes by key; callers that ask while one is made wait for it."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._tasks: OrderedDict[Any, asyncio.Future[Any]] = OrderedDict()

    async def get(self, key: Any, make: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """The outcome for `key` and whether this call made it."""
        if (known := self._tasks.get(key)) is not None:
            return await asyncio.shield(known), False
        task = asyncio.ensure_future(make())
        self._tasks[key] = task
        try:
            return await task, True
        except BaseException:
            self._tasks.pop(key, None)
            raise
        finally:
            while len(self._tasks) > self._limit and next(iter(self._tasks.values())).done():
                self._tasks.popitem(last=False)

    def forget(self, key: Any, outcome: Any = None) -> None:
        """Let the next caller make the outcome again; with `outcome`, unless another was made meanwhile."""
        task = self._tasks.get(key)
        if outcome is not None and (task is None or not task.done() or task.result() is not outcome):
            return
        self._tasks.pop(key, None)
