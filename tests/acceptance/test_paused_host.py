"""A photo host that asks to be left alone holds up its own photos, and no others."""

import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.run.record import RunReport
from jobs.run.stop import Stop
from tests.support.bundles import draw_bytes
from tests.support.harness import World, until
from tests.support.photo_server import FINE, Answer, PhotoServer, Step, status

PAUSED, OTHERS = 200, 40
LONG = status(429, Retry_After="300")
BRIEF = status(429, Retry_After="1")


def slow(answer: Answer) -> None:
    time.sleep(1)
    FINE(answer)


def paused_homes(world: World, count: int, *script: Step) -> list[str]:
    """Homes of one photo at the world's host, which answers as the script says; the photos' paths."""
    paths = [f"/a-{number:03}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        world.photos.add(path, draw_bytes("kitchen", number, (64, 64)))
        world.portal.add(f"a-{number:03}", [world.photos.behave(path, *script)])
    return paths


@pytest.fixture
def two_hosts(world: World, other_server: PhotoServer) -> World:
    """Homes at a host that wants to be left alone for minutes, and some, last by id, at one that is fine."""
    paused_homes(world, PAUSED, LONG)
    for number in range(OTHERS):
        body = draw_bytes("bedroom", number, (64, 64))
        world.portal.add(f"z-{number:03}", [other_server.add(f"/{number}.jpg", body)])
    return world


def others_done(world: World) -> bool:
    return Counter(world.statuses().values())["done"] == OTHERS


def assert_not_held_against_them(world: World) -> None:
    """The paused homes were given back, and the next run finds them as if nobody had tried."""
    rows = world.portal.execute("SELECT attempts, lease_token FROM enrichment.listing WHERE id < 'b'")
    assert {tuple(row) for row in rows} == {(0, None)}
    assert len(rows) == PAUSED


def test_the_homes_of_another_host_are_done_meanwhile(two_hosts: World, beside: ThreadPoolExecutor) -> None:
    stop = Stop()
    running = beside.submit(two_hosts.run, stop=stop)
    until(lambda: others_done(two_hosts), "the fine host's homes are done")
    assert 1 <= two_hosts.requests() <= 16, "the paused host is left alone"
    assert not running.done(), "the run waits for it"
    stop.set()
    report = running.result(timeout=60)
    assert report.figures.listings == OTHERS and not report.figures.failures
    assert_not_held_against_them(two_hosts)


def test_what_has_no_room_to_wait_is_put_off_without_counting_an_attempt(
    two_hosts: World, beside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.pipeline.run.PARKED", 20)
    stop = Stop()
    running = beside.submit(two_hosts.run, stop=stop)
    until(lambda: others_done(two_hosts), "the fine host's homes are done")
    put_off = """
        SELECT attempts, not_before > now() + interval '4 minutes' AS later, lease_token
        FROM enrichment.listing WHERE status = 'retry'
    """
    assert {tuple(row) for row in two_hosts.portal.execute(put_off)} == {(0, True, None)}
    assert Counter(two_hosts.statuses().values()) == {"done": OTHERS, "leased": 20, "retry": PAUSED - 20}
    assert not running.done()
    stop.set()
    running.result(timeout=60)
    assert_not_held_against_them(two_hosts)


def test_a_run_that_waits_for_a_host_ends_at_once_when_it_is_told_to(two_hosts: World) -> None:
    run = two_hosts.start("run")
    until(lambda: others_done(two_hosts), "the fine host's homes are done")
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, err
    assert "Traceback" not in err
    assert_not_held_against_them(two_hosts)


def told_to_stop(world: World, beside: ThreadPoolExecutor, statuses: Counter[str]) -> RunReport:
    """The report of a run that is told to stop once the listings have these statuses, and are published."""
    published = "SELECT FROM enrichment.publication WHERE status = 'done'"
    stop = Stop()
    running = beside.submit(world.run, stop=stop)
    until(lambda: Counter(world.statuses().values()) == statuses, "all else is done")
    until(lambda: len(world.portal.execute(published)) == statuses["done"], "it waits for a paused host only")
    stop.signal = signal.SIGTERM
    stop.set()
    return running.result(timeout=60)


def test_what_was_put_off_is_left_of_a_run_that_is_told_to_stop(
    two_hosts: World, beside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.pipeline.run.PARKED", 20)
    waits = Counter(done=OTHERS, leased=20, retry=PAUSED - 20)
    report = told_to_stop(two_hosts, beside, waits)
    assert (report.left, report.exit_code) == (PAUSED, 128 + signal.SIGTERM)


def test_a_run_of_which_only_what_was_put_off_is_left_was_stopped(
    world: World, other_server: PhotoServer, beside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long_pause(answer: Answer) -> None:
        time.sleep(1)
        LONG(answer)

    monkeypatch.setattr("enrich.pipeline.run.PARKED", 0)  # but for the home that waits first
    paused_homes(world, 1, status(429, Retry_After="4"), FINE)
    other_server.add("/z.jpg", draw_bytes("bedroom", 1, (64, 64)))
    world.portal.add("z", [other_server.behave("/z.jpg", long_pause)])
    report = told_to_stop(world, beside, Counter(done=1, retry=1))
    assert (report.left, report.exit_code) == (1, 128 + signal.SIGTERM)


@pytest.mark.parametrize("room", [1_000, 10])
def test_a_short_pause_is_waited_out(world: World, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr("enrich.pipeline.run.PARKED", room)
    paths = paused_homes(world, 50, BRIEF, FINE)
    report = world.run()
    assert report.exit_code == 0 and report.figures.retry == 0
    assert set(world.statuses().values()) == {"done"}
    assert Counter(r.path for r in world.photos.log) == dict.fromkeys(paths, 2), "asked for once more"


def test_a_home_with_more_photos_than_may_wait_gets_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.pipeline.run.PARKED", 5)
    urls = world.listing("palace", *["kitchen"] * 24)
    for position in range(len(urls)):
        world.photos.behave(f"/palace/{position}.jpg", BRIEF, FINE)
    paused_homes(world, 8, BRIEF, FINE)
    assert world.run().exit_code == 0
    assert set(world.statuses().values()) == {"done"}
    assert world.documents()["palace"]["enrichment"]["photos_seen"] == 24


def test_a_host_that_never_relents_is_asked_three_times(world: World) -> None:
    (path,) = paused_homes(world, 1, status(429, Retry_After="0"))
    report = world.run()
    assert report.exit_code == 0 and report.figures.failures == {"throttled": 1}
    assert world.requests(path) == 3
    assert world.statuses() == {"a-000": "retry"} and world.photo_statuses("a-000") == ["throttled"]


def test_a_host_that_asks_for_more_than_a_photo_can_wait_is_tried_again_another_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.pipeline.listing.PATIENCE", 2.0)
    paused_homes(world, 100, BRIEF)
    report = world.run(settings={"error_budget": 1.0})
    assert report.figures.failures == {"throttled": 100}
    assert set(world.statuses().values()) == {"retry"}
    assert world.requests() < 100, "most were not even asked for"


def test_what_was_fetched_of_a_home_that_is_put_off_is_not_asked_for_again(
    world: World, other_server: PhotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.pipeline.run.PARKED", 0)  # but for the home that waits first
    good, gone = Counter[str](), status(410)
    for home in range(4):
        paths = [f"/{home}/{number}.jpg" for number in range(6)]
        urls = [other_server.add(p, draw_bytes("bedroom", home * 6 + n)) for n, p in enumerate(paths)]
        other_server.behave(paths[0], gone)
        other_server.behave(paths[1], slow)  # comes when its home has been put off
        path = f"/paused-{home}.jpg"
        world.photos.add(path, draw_bytes("kitchen", home))
        world.portal.add(
            f"home-{home}", [*urls, world.photos.behave(path, status(429, Retry_After="3"), FINE)]
        )
        good.update(paths)
    report = world.run()
    assert report.exit_code == 0 and set(world.statuses().values()) == {"done"}
    assert Counter(r.path for r in other_server.log) == good, "each once"
    assert report.figures.scored == 4 * 6
    assert {d["enrichment"]["photos_seen"] for d in world.documents().values()} == {6}


@pytest.mark.parametrize("revalidate", [True, False])
def test_a_photo_that_was_due_for_a_look_is_asked_for_after_the_pause(
    world: World, monkeypatch: pytest.MonkeyPatch, revalidate: bool
) -> None:
    world.listing("house", "kitchen", "balcony", version="1")
    world.run()
    monkeypatch.setattr("enrich.pipeline.listing.PATIENCE", 0.0)
    world.photo("bedroom", 1, "/house/1.jpg")
    world.photos.behave("/house/0.jpg", LONG, FINE)
    if not revalidate:
        world.portal.execute("UPDATE listing_images SET version = '2'")
    world.photos.forget()
    world.run(revalidate=revalidate, settings={"fetch_concurrency": 1})
    assert world.requests("/house/1.jpg") == 0, "its host was paused to the end"
    assert world.photo_statuses("house") == ["throttled", "throttled"]
    assert world.documents()["house"]["has_balcony"] is True, "what was seen of it stands in"
    assert world.statuses() == {"house": "retry"}
    world.portal.execute("UPDATE enrichment.photo SET next_try = now()")
    world.portal.execute("UPDATE enrichment.listing SET not_before = now()")
    world.run()
    assert world.requests("/house/1.jpg") == 1
    assert "has_balcony" not in world.documents()["house"]
    assert world.statuses() == {"house": "done"}


@pytest.mark.parametrize(("asks", "status_then"), [(LONG, "retry"), (BRIEF, "done")])
@pytest.mark.timeout(240)
def test_homes_in_whose_hands_a_worker_died_wait_for_a_short_pause_only(
    world: World, asks: Step, status_then: str
) -> None:
    """Each is worked on alone, so all others would wait with it."""
    paused_homes(world, 3, FINE, asks, FINE)
    assert world.run().exit_code == 0
    world.portal.execute("DELETE FROM enrichment.photo")
    world.portal.execute("UPDATE enrichment.listing SET status = 'pending', attempts = 1")
    assert world.run().exit_code == 0
    assert set(world.statuses().values()) == {status_then}
