"""What a person asks for again is asked for again, also by a run that remembers how it ended before."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.bundles import draw_bytes
from tests.support.gate import Gate
from tests.support.harness import World, until


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
