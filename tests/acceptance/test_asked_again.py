"""What a person asks for again is asked for again, also by a run that remembers how it ended before."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

from jobs.run.stop import Stop
from tests.support.bundles import draw_bytes
from tests.support.gate import Gate
from tests.support.harness import World, until
from tests.support.photo_server import Answer, status


def test_a_photo_that_was_mended_is_fetched_again_by_the_run_that_saw_it_broken(
    world: World, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    world.listing("broken", "kitchen")
    world.photos.add("/broken/0.jpg", b"\xff\xd8\xff no picture")
    gate.holds(world.photos, *world.listing("slow", "bedroom"))
    running = beside.submit(world.run, settings={"fetch_timeout": 120.0})
    until(lambda: world.statuses().get("broken") == "done", "the broken photo is known")
    world.photos.add("/broken/0.jpg", draw_bytes("kitchen", 1))
    assert world.enrich("retry", "broken").returncode == 0
    until(lambda: world.photo_statuses("broken") == ["ok"], "the same run has fetched it again")
    gate.open()
    assert running.result().exit_code == 0
    assert world.documents()["broken"]["room_types"] == ["kitchen"]


def test_listings_that_share_a_photo_of_ever_other_bytes_do_not_ask_each_other_for_ever(world: World) -> None:
    """Each has a version of its own for it, as where the version is the time of the row."""
    served, stop = count(1), Stop()

    def answer_anew(answer: Answer) -> None:
        number = next(served)
        if number > 20:
            stop.set()
        status(200, draw_bytes("kitchen", number))(answer)

    url = world.photos.behave("/shared.jpg", answer_anew)
    for version in ("1", "2", "3"):
        world.portal.add(f"home-{version}", [url], version=version)
    report = world.run(stop=stop)
    assert report.exit_code == 0 and set(world.statuses().values()) == {"done"}
    assert world.requests() <= 3
    held = world.portal.execute("SELECT DISTINCT photos -> 0 ->> 'sha256' FROM enrichment.listing")
    assert len(held) == 1
    assert world.run().exit_code == 0 and world.requests() <= 3
