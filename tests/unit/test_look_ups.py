"""Scores of bytes that were just fetched are looked up together, and known ones are not made again."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from enrich.pipeline.features import FreshFeatures
from enrich.pipeline.figures import Figures
from enrich.pipeline.photo import LOOKED_UP, Known, PhotoStages
from enrich.pipeline.pools import Pools
from enrich.records import Claim, Fetched, Photo, PhotoResult, PhotoScore, PhotoStatus

MODEL = "m"


class Queue:
    """State in which all bytes are scored; keeps how many were asked for at once."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def scores(self, shas: Sequence[str], model_ids: Sequence[str]) -> dict[str, PhotoScore]:
        self.asked.append(len(shas))
        return {sha: PhotoScore(sha, 7, {MODEL: {"balcony": (1.0,)}}) for sha in shas}


class Transport:
    async def fetch(self, url: str, validators: object) -> Fetched:
        body = url.encode()
        return Fetched(PhotoStatus.OK, body, sha256(body).hexdigest())


def fetched(photos: int) -> tuple[list[PhotoResult], list[int]]:
    """What comes of so many new photos whose bytes are known, and how many were looked up at a time."""
    queue = Queue()
    no_members: Any = SimpleNamespace(members=[])
    given: Any = (queue, SimpleNamespace(members=[SimpleNamespace(model_id=MODEL)]), Transport(), None)
    engine: Any = SimpleNamespace(lanes=1, start_lane=lambda: None)
    claim = Claim("a", "token", 1, False)

    async def go(pools: Pools) -> list[PhotoResult]:
        stages = PhotoStages(*given, pools, 1000, FreshFeatures(no_members, "none"), Figures(), lambda: False)
        looking = asyncio.ensure_future(stages.look_ups.run())
        found = await asyncio.gather(
            *(stages.result(claim, Photo(n, f"u{n}", f"k{n}", ""), Known(), False) for n in range(photos))
        )
        looking.cancel()
        return [result for result in found if isinstance(result, PhotoResult)]

    with Pools(engine, 1) as pools:
        return asyncio.run(go(pools)), queue.asked


def test_many_photos_take_few_look_ups() -> None:
    found, asked = fetched(3 * LOOKED_UP)
    assert [result.score.dhash for result in found if result.score] == [7] * 3 * LOOKED_UP
    assert asked == [LOOKED_UP] * 3


def test_a_single_photo_is_looked_up_at_once() -> None:
    found, asked = fetched(1)
    assert (len(found), asked) == (1, [1])
