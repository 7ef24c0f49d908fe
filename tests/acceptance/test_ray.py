"""`enrich backfill --ray`: a cluster fetches and scores first, and nothing else is different."""

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from enrich.settings import STARTER_BUNDLE
from tests.acceptance.test_real_homes import portal_of, real_homes
from tests.support.gate import Gate
from tests.support.harness import ENRICH, World, assert_same, until
from tests.support.photo_server import FINE, Answer, PhotoServer, status

SMALL = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
MARK = "marked-4711"  # in the database URL, where a password may stand too


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the Ray that a command starts keeps its sockets and logs: a short path, as sockets need it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def on_ray(world: World, address: str = "local", **settings: Any) -> dict[str, Any]:
    """The report of a backfill with Ray that went well; the cluster's part has to be all there was to do."""
    done = world.enrich("backfill", "--ray", address, "--json", **settings)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def start_anew(world: World) -> None:
    """Forget what was made, so that it is made again from nothing."""
    world.portal.execute("TRUNCATE enrichment.listing, enrichment.photo, enrichment.photo_score CASCADE")
    world.drop_indices()
    world.photos.forget()


# On real homes


@contextmanager
def world_of_homes(
    shared: Path, photos: PhotoServer, postgres_url: str, template: str, elasticsearch_url: str
) -> Iterator[World]:
    with portal_of(postgres_url, template) as portal:
        world = World(portal, photos, elasticsearch_url, f"test-ray-{uuid4().hex[:8]}", STARTER_BUNDLE)
        for id, rows in real_homes(shared).items():
            files = [shared / "photos" / row["path"] for row in rows]
            portal.add(id, [photos.add(f"/{id}/{file.name}", file=file) for file in files])
        assert world.enrich("migrate").returncode == 0
        yield world
        world.close()


def test_the_95_homes_have_the_same_documents_as_without_ray(
    shared: Path,
    postgres_url: str,
    _templates: dict[str, str],
    elasticsearch_url: str,
    ray_folder: Path,
    photo_server: PhotoServer,
) -> None:
    of_homes = (shared, photo_server, postgres_url, _templates["portal"], elasticsearch_url)
    with world_of_homes(*of_homes) as world:
        expected_report = json.loads(world.enrich("backfill", "--json").stdout)
        expected, asked = world.documents(), world.requests()
        assert len(expected) == 95 and asked == expected_report["fetched"] > 300
        start_anew(world)
        report = on_ray(world, database_url=f"{world.portal.url}&application_name={MARK}")
        assert report["ray"]["fetched"] == report["ray"]["scored"] == world.requests() == asked
        assert report["ray"]["left"] == 0 and not report["ray"]["failures"]
        assert (report["fetched"], report["cached"]) == (0, report["photos"])
        assert report["listings"] == report["ray"]["listings"] == 95
        assert_same(world.documents(), expected)
        again = on_ray(world)
        assert again["ray"]["photos"] == again["fetched"] == 0 and world.requests() == asked
    logs = [path for path in ray_folder.rglob("*") if path.is_file()]
    assert len(logs) > 5
    assert not [path for path in logs if MARK.encode() in path.read_bytes()], "settings stand nowhere"


# On a cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine; a test adds the third."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    cluster.add_node(**SMALL)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def third_node(cluster: Any) -> Iterator[Any]:
    node = cluster.add_node(**SMALL)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)
    cluster.wait_for_nodes(120)  # until Ray knows that it is gone, or the next test has it too


HOMES, PHOTOS = 30, 4
AT_ONCE = 5  # homes of each host that are answered at once, more than one call to a fetcher


def homes_on_three_hosts(world: World, servers: list[PhotoServer], gate: Gate) -> None:
    """Homes, a third of them on each of three hosts; those after the first few wait at the gate."""
    for number in range(HOMES):
        urls = world.listing(f"{number:02}", *["kitchen", "bedroom", "balcony", "fireplace"][:PHOTOS])
        server = servers[number % 3]
        for url in urls:
            path = url.removeprefix(world.photos.url(""))
            server.add(path, world.photos.find(path).read())  # type: ignore[union-attr]
            if number >= 3 * AT_ONCE:
                gate.holds(server, path)
        old, new = world.photos.url("/"), server.url("/")
        world.portal.execute(
            "UPDATE listing_images SET url = replace(url, :old, :new) WHERE listing_id = :id",
            old=old,
            new=new,
            id=f"{number:02}",
        )


def kill(cluster: Any, node: Any) -> None:
    """Lose a node with all that works there; actors outlive it for a moment, in which they still answer."""
    actors = [
        actor for _, process in node.live_processes() for actor in psutil.Process(process.pid).children()
    ]
    cluster.remove_node(node, allow_graceful=False)
    _, alive = psutil.wait_procs(actors, 60)
    assert actors and not alive


ALL_NODES = f"""
from jobs.run.cluster import crew

crew.ASSEMBLE = 600  # each node gets a host, however slowly they start
{ENRICH[-1]}
"""


def test_a_node_that_is_killed_in_mid_run_changes_nothing_in_the_documents(
    world: World, other_server: PhotoServer, cluster: Any, third_node: Any, gate: Gate
) -> None:
    with PhotoServer("127.0.0.3") as third_server:
        servers = [world.photos, other_server, third_server]
        homes_on_three_hosts(world, servers, gate)
        world.fixed |= {"fetch_per_host": 2, "outage_seconds": 90, "fetch_timeout": 60.0}
        program = [*ENRICH[:-1], ALL_NODES]
        process = world.start("backfill", "--ray", cluster.address, "--json", program=program)
        answered = AT_ONCE * PHOTOS
        until(lambda: all(s.requests() > answered for s in servers), "all nodes have photos in hand", 180)
        kill(cluster, third_node)
        gate.open()
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        report = json.loads(out)
        assert report["ray"]["fetchers"] == report["ray"]["scorers"] == 3
        assert "a Ray worker was lost" in err and "Traceback" not in err
        assert report["ray"]["left"] > 0 and report["ray"]["scored"] > 0
        assert report["fetched"] <= report["ray"]["left"], "what was lost is asked for here, and no more"
        assert set(world.statuses().values()) == {"done"} and len(world.documents()) == HOMES
        documents = world.documents()
        start_anew(world)
        assert world.backfill().exit_code == 0
        assert_same(documents, world.documents())


def test_a_hosts_retry_after_holds_for_the_whole_cluster(world: World, cluster: Any, third_node: Any) -> None:
    pause, asked_at, refused_at, turns = 3, [], [], count(1)

    def step(answer: Answer) -> None:
        asked_at.append(time.monotonic())
        if next(turns) == 40:
            refused_at.append(time.monotonic())
            return status(429, Retry_After=str(pause))(answer)
        time.sleep(0.05)
        FINE(answer)

    for number in range(HOMES):
        for url in world.listing(f"{number:02}", *["kitchen"] * PHOTOS):
            world.photos.behave(url.removeprefix(world.photos.url("")), step)
    report = on_ray(world, cluster.address, fetch_per_host=4)
    (refused,) = refused_at
    in_pause = [at - refused for at in asked_at if 0 < at - refused < pause - 0.1]
    assert len(in_pause) < 2 * 4, "what is on its way, and one more each until the refusal is read"
    assert world.photos.busiest <= 4
    assert report["ray"]["fetched"] == HOMES * PHOTOS == len(asked_at) - 1
    assert report["ray"]["fetchers"] == 3 and report["ray"]["left"] == report["fetched"] == 0


@pytest.mark.parametrize("actor", ["Fetcher", "Scorer"])
def test_an_actor_that_dies_between_two_calls_changes_nothing(
    world: World, ray_folder: Path, actor: str
) -> None:
    """While a host is paused nobody has anything to do; Ray starts such an actor anew, with nothing open."""
    for number in range(6):
        world.listing(f"{number:02}", "kitchen")
    refusal, turns = status(429, Retry_After="20"), count(1)
    for number in range(6):
        world.photos.behave(f"/{number:02}/0.jpg", lambda a: refusal(a) if next(turns) == 3 else FINE(a))
    process = world.start("backfill", "--ray", "local", "--json", fetch_per_host=1, log_interval=60.0)
    scored = "SELECT count(*) FROM enrichment.photo_score"
    until(lambda: world.portal.execute(scored)[0][0] >= 2, "the host is paused", patience=180)

    def actors() -> list[psutil.Process]:
        started = psutil.Process(process.pid).children(recursive=True)
        named = [(each, each.as_dict(["cmdline"])["cmdline"] or [""]) for each in started]
        return [each for each, words in named if words[0] == f"ray::{actor}"]

    (first,) = until(actors, "it is idle")
    first.kill()
    until(lambda: [each for each in actors() if each.pid != first.pid], "Ray started it anew")
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert json.loads(out)["listings"] == 6 and len(world.documents()) == 6


WITHOUT_NUMBERS = """
from dataclasses import replace
from functools import partial
from enrich.model.open import open_engine
from jobs.cli.commands import main
from jobs.run import backfill

class Broken:
    def __init__(self, engine):
        self.engine, self.lanes, self.batch_size, self.asked = engine, 1, engine.batch_size, False

    def start_lane(self):
        self.engine.start_lane()

    def score(self, batch):
        first, *others = self.engine.score(batch)
        if not self.asked:
            nothing = {"balcony": (float("nan"),)}
            first = {id: replace(one, scores=one.scores | nothing) for id, one in first.items()}
        self.asked = True
        return [first, *others]

backfill.score_ahead = partial(backfill.score_ahead, engine=lambda *given: Broken(open_engine(*given)))
main()
"""


def test_a_photo_whose_scores_are_no_numbers_is_left_to_the_queue(world: World, ray_folder: Path) -> None:
    """Its listing's claim says what becomes of it; here it is an engine that makes one mistake."""
    for number in range(6):
        world.listing(f"{number:02}", "kitchen")
    done = world.script(WITHOUT_NUMBERS, "backfill", "--ray", "local", "--json", log_interval=60.0)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["ray"]["photos"], report["ray"]["left"], report["fetched"]) == (5, 1, 1)
    assert set(world.statuses().values()) == {"done"} and len(world.documents()) == 6


# What ends it


def test_a_sigterm_keeps_what_is_scored_and_says_what_is_left(
    world: World, gate: Gate, ray_folder: Path
) -> None:
    for number in range(20):
        world.listing(f"{number:02}", "kitchen")
    gate.holds(world.photos, *world.listing("held", "balcony"))
    process = world.start("backfill", "--ray", "local", fetch_timeout=120.0)
    scored = "SELECT count(*) FROM enrichment.photo_score"
    until(
        lambda: world.portal.execute(scored)[0][0] and world.requests("/held/0.jpg"),
        "it is under way",
        patience=120,  # Ray starts, and then its actors
    )
    assert "under way" in world.enrich_here("status").stdout
    listening = addresses(process.pid)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "enrich: stopped by signal, 21 left: the same command goes on"
    assert "Traceback" not in err
    assert listening and {address for address in listening if not address.startswith("127.")} == set()
    gate.open()
    kept = int(world.portal.execute(scored)[0][0])
    report = world.backfill()
    assert report.figures.scored == 21 - kept and len(world.documents()) == 21


def addresses(pid: int) -> set[str]:
    """The addresses on which a process and those that it started listen."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(processes) > 4
    return found


def test_the_error_budget_counts_for_the_whole_cluster(world: World, cluster: Any) -> None:
    for number in range(75):
        for url in world.listing(f"{number:02}", *["kitchen"] * 4):
            world.photos.behave(url.removeprefix(world.photos.url("")), status(500))
    done = world.enrich("backfill", "--ray", cluster.address)
    assert done.returncode == 3 and "ENRICH_ERROR_BUDGET" in done.stderr, done.stderr
    assert set(world.statuses().values()) == {"pending"} and world.documents() == {}
    due = world.portal.execute(
        "SELECT count(*) FROM enrichment.photo WHERE failures = 0 AND next_try <= now()"
    )
    assert due[0][0] >= 200, "nothing is held against them"


# What it refuses


def refused(world: World, *arguments: str, **settings: Any) -> str:
    """What the command says, having ended with exit code 2 before it wrote anything."""
    done = world.enrich_here("backfill", *arguments, **settings)
    assert done.returncode == 2
    assert world.portal.execute("SELECT count(*) FROM enrichment.backfill") == [(0,)]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("enrich: ")]
    return line


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody.invalid:6379"])
def test_an_address_where_nothing_answers(world: World, address: str) -> None:
    said = refused(world, "--ray", address)
    assert f"--ray {address}: nothing answers there" in said


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:x", ""])
def test_what_is_no_address(world: World, address: str) -> None:
    assert "write host:port" in refused(world, "--ray", address)


def test_photos_that_are_to_be_revalidated_are_not_for_ray(world: World) -> None:
    assert "say --ray or --revalidate" in refused(world, "--ray", "local", "--revalidate")


def test_without_the_extra_it_says_what_to_install(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without = f"import sys; sys.modules['ray'] = None; {ENRICH[-1]}"
    done = world.script(without, "backfill", "--ray", "local")
    assert done.returncode == 2
    assert done.stderr == (
        "enrich: --ray needs Ray, which is not installed: pip install 'listing-enrichment[ray]'\n"
    )
    assert world.portal.execute("SELECT count(*) FROM enrichment.backfill") == [(0,)]


def test_places_are_counted_beside_the_photos_that_a_cluster_scored(
    world: World, cluster: Any, tmp_path: Path
) -> None:
    """The metrics' batch fill is the one by the other."""
    world.listing("house", "kitchen", "balcony")
    metrics = tmp_path / "enrich.prom"
    assert on_ray(world, cluster.address, metrics_file=metrics)["ray"]["scored"] == 2
    told = dict(line.split() for line in metrics.read_text().splitlines() if not line.startswith("#"))
    assert float(told["enrich_batch_places_total"]) >= float(told["enrich_photos_scored_total"]) == 2
