"""The claims in a process's hands, against a real queue."""

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from enrich.pipeline.leases import Leases
from enrich.pipeline.pools import Pools
from enrich.records import Claim
from enrich.state import flips
from enrich.state.backfills import Backfills, Selection
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.schema import BACKFILL
from tests.support.enriched import add, result
from tests.support.postgres import Portal


@pytest.fixture
def leases(state: Listings) -> Iterator[Leases]:
    engine: Any = SimpleNamespace(lanes=1, start_lane=lambda: None)
    with Pools(engine, 1) as pools:
        yield Leases(state, pools, 9)


def lose(portal: Portal, id: str) -> None:
    """Another worker took the listing, and gave it back."""
    portal.execute(
        "UPDATE enrichment.listing SET status = 'pending', lease_token = NULL, lease_worker = NULL, "
        "attempts = 0 WHERE id = :id",
        id=id,
    )


async def lost(leases: Leases) -> Claim:
    """The first claim that is lost while the leases are kept."""
    first: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()
    keeping = asyncio.create_task(leases.keep(lambda claim: first.done() or first.set_result(claim)))
    try:
        return await asyncio.wait_for(first, 30)
    finally:
        keeping.cancel()


def test_a_listing_reclaimed_by_this_process_is_not_confused_with_its_earlier_claim(
    migrated: Portal, state: Listings, leases: Leases
) -> None:
    async def go() -> None:
        add(migrated, "a")
        (earlier,) = await leases.claim(1, None, alone=False)
        lose(migrated, "a")
        (later,) = await leases.claim(1, None, alone=False)
        assert earlier != later and earlier in leases and later in leases

        assert await lost(leases) == earlier
        assert later in leases, "the later claim is still in hand"
        assert not leases.drop(earlier)
        leases.give_back(forgive=True)
        assert (migrated.state("a").status, migrated.state("a").lease_token) == ("pending", None)

    asyncio.run(go())


def test_a_claim_that_ends_just_now_is_not_lost(migrated: Portal, state: Listings, leases: Leases) -> None:
    async def go() -> None:
        add(migrated, "a", "b")
        ended, other = await leases.claim(2, None, alone=False)
        assert leases.ending(ended)
        assert state.complete([result(ended)])
        lose(migrated, other.id)
        assert await lost(leases) == other
        assert leases.drop(ended)

    asyncio.run(go())


def test_a_claim_whose_backfill_was_ended_is_not_said_to_be_with_another_worker(
    migrated: Portal, database: Database, leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        asked = Backfills(database).ask(Selection(stale_bundle="new"), "0")
        made = {"photo_fp_done": "fp-1", "bundle_id": "old"}
        add(migrated, "a", priority=BACKFILL, backfill=asked.id, **made)
        (claim,) = await leases.claim(1, None, alone=False)
        database.run(lambda connection: flips.hold(connection, asked.id, "too many"))
        assert await lost(leases) == claim

    with caplog.at_level(logging.WARNING, "enrich.pipeline.leases"):
        asyncio.run(go())
    (told,) = caplog.messages
    assert told.startswith("listing a: its claim is over") and "its backfill was ended" in told


def test_where_a_worker_died_the_listing_is_worked_on_alone(migrated: Portal, leases: Leases) -> None:
    async def claim(*, alone: bool = True) -> list[str]:
        nonlocal claims
        claims += (new := await leases.claim(10, None, alone=alone))
        return [claim.id for claim in new]

    async def go() -> None:
        add(migrated, "a", "b", attempts=1)
        add(migrated, "c")
        assert await claim() == ["c"]
        assert await claim() == [], "c is in hand"
        leases.drop(claims.pop())
        assert await claim(alone=False) == [], "something else is not done yet"
        assert await claim() == ["a"]
        add(migrated, "d")
        assert await claim() == [], "a is worked on alone"
        leases.drop(claims.pop())
        assert await claim() == ["d"]

    claims: list[Claim] = []
    asyncio.run(go())


def test_where_a_worker_died_a_backfill_does_not_keep_the_nightly_listing_waiting(
    migrated: Portal, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        add(migrated, "a", attempts=1)
        add(migrated, "b", attempts=1, priority=BACKFILL)
        add(migrated, "c", "d", "e", priority=BACKFILL)
        (c,) = await leases.claim(1, None, alone=True)
        monkeypatch.setattr(leases, "_turn", 0.0)  # a lease later
        assert await leases.claim(1, None, alone=True) == [], "c is in hand"
        leases.drop(c)
        (a,) = await leases.claim(1, None, alone=True)
        leases.drop(a)
        (d,) = await leases.claim(1, None, alone=True)
        leases.drop(d)
        assert [c.id, a.id, d.id] == ["c", "a", "d"]

    asyncio.run(go())


def test_a_listing_put_off_is_not_counted_as_taken(migrated: Portal, leases: Leases) -> None:
    async def go() -> None:
        add(migrated, "a", "b")
        first, _ = await leases.claim(2, None, alone=False)
        await leases.put_off(first, 60)
        await leases.put_off(first, 60)
        assert leases.taken == 1 and first not in leases
        assert (migrated.state("a").status, migrated.state("a").attempts) == ("retry", 0)

    asyncio.run(go())
