"""A photo that kills whoever decodes it costs its own listing, and no other."""

import hashlib
import signal
import subprocess
import sys
import time
from typing import Any
from unittest import mock

import pytest

from enrich.state.listings import Listings
from tests.support.bundles import draw_bytes
from tests.support.harness import CHECKOUT, World, seed_of

BRIEF = {"lease_seconds": 2.0, "max_attempts": 3}
LETHAL, COUNT = "home-05", 24


def run(world: World) -> int:
    """Run the command, once the lock of a dead one has run out, with the lethal photo; its exit code."""
    lethal = hashlib.sha256(draw_bytes("balcony", seed_of(LETHAL, 0))).hexdigest()
    command = [sys.executable, "-m", "tests.support.lethal", lethal, "run"]
    while True:
        ended = subprocess.run(
            command, cwd=CHECKOUT, env=world.environment(**BRIEF), capture_output=True, text=True, timeout=120
        )
        if ended.returncode != 75:
            assert "Traceback" not in ended.stderr
            return ended.returncode
        time.sleep(0.5)


def attempts(world: World) -> dict[str, int]:
    return {row.id: row.attempts for row in world.portal.execute("SELECT * FROM enrichment.listing")}


def test_only_the_listing_of_a_photo_that_kills_its_workers_is_quarantined(world: World) -> None:
    for number in range(COUNT):
        id = f"home-{number:02}"
        world.listing(id, "balcony" if id == LETHAL else "kitchen", "bedroom")
    others = {f"home-{number:02}" for number in range(COUNT)} - {LETHAL}

    deaths = 0
    while (code := run(world)) == -signal.SIGKILL:
        deaths += 1
        tried = attempts(world)
        assert tried[LETHAL] == deaths
        assert max(tried[id] for id in others) <= 2
        if deaths == 1:
            assert sum(tried[id] for id in others) >= 8, "others were in hand with it"

    assert (code, deaths) == (1, 3), "this run quarantined a listing"
    assert world.statuses() == {**dict.fromkeys(others, "done"), LETHAL: "quarantined"}
    assert "died 3 times" in world.portal.state(LETHAL).error
    assert world.documents().keys() == others
    asked = {id: world.requests(f"/{id}/{position}.jpg") for id in others for position in (0, 1)}
    assert max(asked.values()) <= 2, "no other listing is tried more than twice"


def test_what_a_run_quarantined_before_a_stage_ended_it_is_in_its_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.listing("fine", "bedroom")
    world.listing("lethal", "kitchen")
    claim = Listings.claim

    def late(queue: Listings, *given: Any, **named: Any) -> Any:
        """As if workers had died on a listing."""
        world.portal.execute("UPDATE enrichment.listing SET attempts = 3 WHERE id = 'lethal'")
        return claim(queue, *given, **named)

    monkeypatch.setattr(Listings, "claim", late)
    with (
        mock.patch("enrich.pipeline.photo.decode", side_effect=RuntimeError("broken")),
        pytest.raises(RuntimeError),
    ):
        world.run(settings={"max_attempts": 3})
    assert world.statuses()["lethal"] == "quarantined"
    recorded = "SELECT figures ->> 'quarantined' FROM enrichment.run"
    assert world.portal.execute(recorded) == [("1",)]
