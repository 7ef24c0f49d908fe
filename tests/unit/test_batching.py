"""Full batches, no waiting for photos that do not come, and outcomes made once."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from enrich.pipeline.batching import Batcher, Memo


def batched(items: int, size: int, expected: int) -> tuple[list[int], list[int]]:
    """Submit `items` numbers at once; the outputs and the sizes of the batches."""
    sizes: list[int] = []

    def double(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        return [2 * item for item in batch]

    async def main() -> list[int]:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(double, size, pool, lambda held: expected > held)
            worker = asyncio.ensure_future(batcher.run())
            try:
                return list(await asyncio.gather(*(batcher.submit(i) for i in range(items))))
            finally:
                worker.cancel()

    return asyncio.run(main()), sizes


def test_batches_are_full_while_there_is_enough() -> None:
    outputs, sizes = batched(items=100, size=32, expected=100)
    assert outputs == [2 * i for i in range(100)]
    assert sizes[:3] == [32, 32, 32]


def test_a_single_item_goes_at_once_when_nothing_else_is_on_its_way() -> None:
    assert batched(items=1, size=32, expected=1) == ([0], [1])


def test_a_partial_batch_goes_although_others_are_still_on_their_way() -> None:
    outputs, sizes = batched(items=3, size=32, expected=1000)
    assert (outputs, sum(sizes)) == ([0, 2, 4], 3)


def test_the_last_photos_do_not_wait_while_another_lane_works_on_the_ones_before_them() -> None:
    """Nothing more is on its way then, although not all is done: the lanes' own batches do not count."""
    sizes: list[int] = []
    last = Event()

    def work(batch: Sequence[int]) -> Sequence[int]:
        sizes.append(len(batch))
        if len(batch) == 2:
            last.set()
        assert last.wait(20), "the last two wait for the first four"
        return batch

    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(work, 4, pool, lambda held: held < 6, linger=60)
            lanes = [asyncio.ensure_future(batcher.run()) for _ in range(2)]
            await asyncio.gather(*(batcher.submit(i) for i in range(6)))
            for lane in lanes:
                lane.cancel()

    asyncio.run(main())
    assert sizes == [4, 2]


def test_a_batch_that_raises_raises_for_each_of_its_callers() -> None:
    def broken(batch: Sequence[int]) -> list[int]:
        raise RuntimeError("the model broke")

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(broken, 4, pool, lambda held: held < 2)
            worker = asyncio.ensure_future(batcher.run())
            found = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
            assert [str(error) for error in found] == ["the model broke"] * 2
            worker.cancel()

    asyncio.run(main())


def test_an_outcome_is_made_once_for_callers_at_the_same_time_and_later() -> None:
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0.01)
        return made

    async def main() -> None:
        memo = Memo()
        both = await asyncio.gather(memo.get("key", make), memo.get("key", make))
        assert sorted(both, key=lambda b: not b[1]) == [(1, True), (1, False)]
        assert await memo.get("key", make) == (1, False)
        memo.forget("key")
        assert await memo.get("key", make) == (2, True)

    asyncio.run(main())


def test_a_failed_outcome_is_not_remembered_and_old_ones_are_let_go() -> None:
    async def fail() -> int:
        raise ValueError("no")

    async def give() -> int:
        return 1

    async def main() -> None:
        memo = Memo(limit=2)
        with pytest.raises(ValueError, match="no"):
            await memo.get("a", fail)
        for key in "abc":
            assert await memo.get(key, give) == (1, True)
        assert await memo.get("c", give) == (1, False)
        assert await memo.get("a", give) == (1, True)

    asyncio.run(main())
