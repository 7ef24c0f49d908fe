"""Bounds that are given as shares: of listings that may change, and of documents that may leave."""

import pytest

from enrich.source.removals import Losses, refusal
from enrich.state import flips
from enrich.state.backfills import Backfills, Selection
from enrich.state.database import Database
from tests.support.postgres import Portal


@pytest.mark.parametrize("bound", ["29%", "0.57", "58%"])
def test_a_share_of_the_listings_may_change_in_full(migrated: Portal, database: Database, bound: str) -> None:
    """As floating point numbers have it, 29 % of 100 are less than 29."""
    asked = Backfills(database).ask(Selection(stale_bundle="new"), bound)
    migrated.execute("UPDATE enrichment.backfill SET marked = 100")
    before, after = ({"fields": {"has_balcony": value}} for value in (True, False))
    most = int(bound.removeprefix("0.").removesuffix("%"))
    database.run(lambda connection: flips.count(connection, [(asked.id, before, after)] * most))
    with pytest.raises(flips.FlipsExceededError, match=f"more than {most} of the 100 listings"):
        database.run(lambda connection: flips.count(connection, [(asked.id, before, after)]))


@pytest.mark.parametrize("bound", ["29%", "0.57", "58%"])
def test_a_share_of_the_documents_may_leave_in_full(bound: str) -> None:
    most = int(bound.removeprefix("0.").removesuffix("%"))
    losses = Losses(leaving=most, documents=100, seen=50, photos_seen=True)
    assert refusal(losses, bound, whole=True) is None
    losses.leaving += 1
    assert refusal(losses, bound, whole=True) is not None
