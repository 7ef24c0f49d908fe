"""A lease that goes to another worker while its listing is worked on."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gate import Gate
from tests.support.harness import World, until


def test_what_is_still_done_for_a_lost_listing_is_thrown_away(
    world: World, gate: Gate, beside: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    gate.holds(world.photos, *world.listing("house", "kitchen", "balcony"))
    with caplog.at_level(logging.WARNING, "enrich.pipeline.leases"):
        running = beside.submit(world.run, settings={"lease_seconds": 1.5, "fetch_timeout": 120.0})
        until(lambda: world.requests() == 2, "the photos are on their way")
        # As if another worker had taken it after an outage, and died.
        world.portal.execute(
            "UPDATE enrichment.listing SET status = 'pending', lease_token = NULL, lease_worker = NULL"
        )
        until(lambda: "its claim is over" in caplog.text or running.done(), "the loss is noticed")
    assert world.statuses() == {"house": "pending"}, "not claimed anew beside what is under way"
    gate.open()
    report = running.result()
    assert (report.exit_code, report.figures.stale, report.figures.listings) == (0, 1, 1)
    assert world.statuses() == {"house": "done"}
    assert world.documents()["house"]["has_balcony"] is True
    world.photos.forget()
    assert world.run(revalidate=True).figures.unchanged == 2, "how the photos ended was saved"
