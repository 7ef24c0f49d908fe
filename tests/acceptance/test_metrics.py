"""The jobs as seen from outside: metrics, health and readiness over HTTP, in a file and at a push gateway."""

import logging
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from enrich.settings import Settings
from jobs.metrics.names import METRICS
from jobs.metrics.serving import Ready
from jobs.metrics.watching import watched
from jobs.run import worker
from jobs.run.nightly import RunOptions, run
from jobs.run.record import RunReport
from jobs.run.stop import Stop
from tests.support.enriched import add
from tests.support.gate import Gate
from tests.support.harness import World, until
from tests.support.photo_server import status

Samples = dict[tuple[str, ...], float]
"""(name, label values…) -> value."""


@pytest.fixture
def port() -> Iterator[int]:
    """One for the metrics: nobody listens there, and the system gives it to nobody else meanwhile."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def read(text: str) -> Samples:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(port: int) -> Samples:
    code, text = get(port, "/metrics")
    assert code == 200
    return read(text)


@pytest.fixture
def settings(world: World, port: int) -> Settings:
    """Those of the world, with the port for the metrics."""
    return world.settings(metrics_port=port)


def test_a_run_is_seen_while_it_works_and_when_it_has_ended(
    world: World, settings: Settings, port: int, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    urls = world.listing("house", "kitchen", "balcony", "other")
    world.photos.behave("/house/2.jpg", status(410))
    gate.holds(world.photos, *urls[:2])
    with watched(settings) as watch:
        assert scraped(port)["enrich_running",] == 0
        running = beside.submit(run, settings, RunOptions(), Stop(), watch)
        until(lambda: world.requests() == 3, "the photos are on their way")
        until(lambda: scraped(port)["enrich_stage_queue", "fetch"] == 2, "one photo has ended")
        assert scraped(port)["enrich_running",] == 1
        gate.open()
        report: RunReport = running.result()
        found = scraped(port)
        assert scraped(port) == found, "nothing moves between jobs"
    expected = {
        ("enrich_running",): 0,
        ("enrich_photos_total", "fetched"): 2,
        ("enrich_photos_total", "gone"): 1,
        ("enrich_photos_total", "cached"): 0,
        ("enrich_photos_scored_total",): 2,
        ("enrich_photo_bytes_total",): report.figures.bytes,
        ("enrich_listings_total", "enriched"): 1,
        ("enrich_listings_total", "quarantined"): 0,
        ("enrich_leases_lost_total",): 0,
        ("enrich_index_answers_total", "done"): 1,
        ("enrich_state_readable",): 1,
        ("enrich_state_listings", "done"): 1,
        ("enrich_state_listings", "pending"): 0,
        ("enrich_oldest_waiting_seconds",): 0,
        ("enrich_outbox_documents", "waiting"): 0,
        ("enrich_night", "has_balcony"): 1,
        ("enrich_night", "photo_failures"): round(1 / 3, 4),
        ("enrich_night_drifted", "has_balcony"): 0,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["enrich_batch_places_total",] >= 2 and found["enrich_photos_per_second",] > 0
    assert {key[1] for key in found if key[0] == "enrich_stage_seconds_total"} > {"fetch", "score", "save"}
    assert not any(key[0] == "enrich_stage_queue" for key in found), "there is no queue between jobs"
    (ended,) = world.portal.execute("SELECT extract(epoch FROM finished_at) AS at FROM enrichment.run")
    assert found["enrich_last_success_timestamp_seconds", "run"] == pytest.approx(float(ended.at))


def test_what_is_exported_is_what_is_named(world: World, settings: Settings, port: int) -> None:
    world.listing("house", "balcony")
    with watched(settings) as watch:
        run(settings, RunOptions(), Stop(), watch)
        families = list(text_string_to_metric_families(get(port, "/metrics")[1]))
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert names == {metric.name for metric in METRICS}
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    for family in families:
        assert family.type in ("counter", "gauge")
        for sample in family.samples:
            assert sample.labels.keys() == labels[sample.name]


def test_the_first_photos_that_fail_are_seen_to_come(world: World, settings: Settings, port: int) -> None:
    """Prometheus sees how much a number grew only where an earlier scrape had it."""
    world.listing("house", "balcony", "kitchen")
    for number in range(2):
        world.photos.behave(f"/house/{number}.jpg", status(503))
    with watched(settings) as watch:
        before = scraped(port)
        run(settings, RunOptions(), Stop(), watch)
        after = scraped(port)
    grown = {key[1]: after[key] - before[key] for key in before if key[0] == "enrich_photos_total"}
    assert {status: count for status, count in grown.items() if count} == {"server_error": 2}


def test_what_counts_goes_on_from_run_to_run(world: World, settings: Settings, port: int) -> None:
    with watched(settings) as watch:
        for number, id in enumerate(("house", "flat", "loft"), 1):
            world.listing(id, "balcony", "kitchen")
            run(settings, RunOptions(), Stop(), watch)
            found = scraped(port)
            assert found["enrich_photos_total", "fetched"] == 2 * number
            assert found["enrich_index_answers_total", "done"] == number


def test_what_waits_is_seen(world: World, settings: Settings, port: int) -> None:
    for id in "abc":
        world.listing(id, "kitchen")
    world.photos.behave("/a/0.jpg", status(503))
    world.run(limit=2)
    world.portal.execute(
        "UPDATE enrichment.listing SET pending_since = now() - interval '1 hour' WHERE id = 'c';"
        "UPDATE enrichment.publication SET status = 'waiting' WHERE listing_id = 'b'"
    )
    with watched(settings):
        found = scraped(port)
    assert [found["enrich_state_listings", status] for status in ("pending", "retry", "done")] == [1, 1, 1]
    assert 3600 <= found["enrich_oldest_waiting_seconds",] < 4000
    assert found["enrich_outbox_documents", "waiting"] == 1


def test_a_worker_is_seen_before_its_first_run(world: World, settings: Settings, port: int) -> None:
    world.start("worker", metrics_port=port)

    def answers() -> bool:
        try:
            return get(port, "/healthz") == (200, "alive\n")
        except URLError:
            return False

    until(answers, "the worker answers")
    assert get(port, "/readyz")[0] == 200
    assert scraped(port)["enrich_state_readable",] == 1
    assert get(port, "/anything")[0] == 404


def test_it_listens_on_loopback_only_unless_a_setting_says_otherwise(world: World, port: int) -> None:
    for given, reached in (({}, False), ({"metrics_address": "0.0.0.0"}, True)):
        with watched(world.settings(metrics_port=port, **given)), socket.socket() as client:
            # Another address of this machine that no packet leaves it for.
            assert (client.connect_ex(("127.0.0.2", port)) == 0) == reached


def test_without_a_database_the_metrics_say_so(
    world: World, settings: Settings, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://me:s3cret@127.0.0.1:1/x")})
    with watched(away):
        for _ in range(2):
            found = scraped(port)
    assert found["enrich_state_readable",] == 0 and found["enrich_photos_total", "fetched"] == 0
    assert not any(key[0] == "enrich_state_listings" for key in found)
    assert caplog.text.count("the database cannot be asked") == 1 and "s3cret" not in caplog.text


@pytest.mark.parametrize(("every", "share", "pending"), [(0.0, 1e9, 1), (60.0, 1e9, 0), (0.0, 1e-9, 0)])
def test_scrapes_ask_the_database_once_in_a_while(
    world: World,
    settings: Settings,
    port: int,
    every: float,
    share: float,
    pending: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.metrics.collecting.STATE_EVERY", every)
    monkeypatch.setattr("jobs.metrics.collecting.STATE_SHARE", share)
    with watched(settings):
        assert scraped(port)["enrich_state_listings", "pending"] == 0
        add(world.portal, "a")
        assert scraped(port)["enrich_state_listings", "pending"] == pending


def test_a_port_that_is_taken_is_a_warning(
    world: World, settings: Settings, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    world.listing("house", "balcony")
    with socket.create_server(("127.0.0.1", port)), watched(settings) as watch:
        assert run(settings, RunOptions(), Stop(), watch).exit_code == 0
    assert f"ENRICH_METRICS_PORT={port} cannot be listened on" in caplog.text


class TestReady:
    def test_ready_when_a_run_could_start(self, world: World) -> None:
        code, _, body = Ready(world.settings())()
        assert (code, body) == (200, b"bundle: ok\ndatabase: ok\nschema: ok\ntables: ok\nindex: ok\n")

    @pytest.mark.parametrize(
        ("part", "wrong"),
        [
            ("bundle", {"bundle": Path("/nowhere")}),
            ("database", {"database_url": "postgresql://me:s3cret@127.0.0.1:1/x"}),
            ("index", {"elasticsearch_url": "http://127.0.0.1:1"}),
        ],
    )
    def test_not_ready_without(
        self,
        world: World,
        part: str,
        wrong: dict[str, Any],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("jobs.metrics.serving.READY_EVERY", 0.0)
        ready = Ready(world.settings(**wrong))
        for _ in range(2):
            code, _, body = ready()
            assert code == 503 and f"{part}: failed" in body.decode().splitlines()
        assert caplog.text.count("not ready") == 1
        assert "s3cret" not in caplog.text and b"127.0.0.1" not in body

    def test_photo_hosts_are_not_asked(self, world: World) -> None:
        world.listing("house", "balcony")
        assert Ready(world.settings())()[0] == 200 and world.requests() == 0


class Gateway(ThreadingHTTPServer):
    """A push gateway that keeps what it is given."""

    def __init__(self) -> None:
        self.put: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.put.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_job_that_has_ended_leaves_its_metrics(world: World, gateway: Gateway, tmp_path: Path) -> None:
    world.listing("house", "balcony")
    given = {
        "metrics_file": tmp_path / "enrich.prom",
        "metrics_push": f"http://127.0.0.1:{gateway.server_port}",
    }
    for command, kinds in (("run", {"run"}), ("backfill", {"run", "backfill"})):
        assert world.enrich(command, **given).returncode == 0
        path, pushed = gateway.put.pop()
        assert path == f"/metrics/job/enrich/instance/{socket.gethostname()}" and not gateway.put
        for found in (read(pushed), read((tmp_path / "enrich.prom").read_text())):
            assert found["enrich_listings_total", "enriched"] == 1
            assert {key[1] for key in found if key[0] == "enrich_last_success_timestamp_seconds"} == kinds
    assert [file.name for file in tmp_path.iterdir()] == ["enrich.prom"], "nothing half-written is left"


def test_a_run_of_some_listings_is_no_night(world: World, tmp_path: Path) -> None:
    world.listing("house", "balcony")
    (tmp_path / "ids").write_text("house\n")
    file = tmp_path / "enrich.prom"
    for arguments, successes in ((("--ids", str(tmp_path / "ids")), 0), ((), 1)):
        assert world.enrich_here("run", *arguments, metrics_file=file).returncode == 0
        found = read(file.read_text())
        assert sum(key[0] == "enrich_last_success_timestamp_seconds" for key in found) == successes


def test_a_job_that_failed_leaves_its_metrics(world: World, tmp_path: Path) -> None:
    for n in range(250):
        world.portal.add(f"{n:03}", [world.photo("kitchen", n, f"/{n}.jpg")])
        world.photos.behave(f"/{n}.jpg", status(500))
    file = tmp_path / "enrich.prom"
    assert world.enrich("run", metrics_file=file).returncode == 3
    found = read(file.read_text())
    assert found["enrich_photos_total", "server_error"] >= 200
    assert not any(key[0] == "enrich_last_success_timestamp_seconds" for key in found)


AWAY = "postgresql://me:s3cret@127.0.0.1:1/x"


@pytest.mark.parametrize("command", ["run", "backfill", "worker"])
def test_a_job_that_fails_before_it_is_on_record_leaves_its_metrics(
    world: World, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "enrich.prom"
    given = {"metrics_file": file, "database_url": AWAY, "outage_seconds": 0}
    if command == "worker":
        settings = world.settings(**given)
        with watched(settings) as watch:
            worker._one_run(settings, Stop(), watch)
            assert read(file.read_text())["enrich_state_readable",] == 0
    else:
        assert world.enrich_here(command, **given).returncode == 2
        assert read(file.read_text())["enrich_state_readable",] == 0


def test_a_job_that_is_turned_away_leaves_metrics_once(
    world: World, gateway: Gateway, tmp_path: Path
) -> None:
    world.elasticsearch.indices.create(index=world.index)  # where an alias should be
    push = f"http://127.0.0.1:{gateway.server_port}"
    assert world.enrich_here("run", metrics_push=push).returncode == 2
    ((_, pushed),) = gateway.put
    assert read(pushed)["enrich_state_readable",] == 1


def test_metrics_that_cannot_be_left_are_warnings(world: World, tmp_path: Path) -> None:
    world.listing("house", "balcony")
    given = {
        "metrics_file": tmp_path / "no" / "x.prom",
        "metrics_push": "http://me:s3cret@127.0.0.1:1",
    }
    with_warnings = world.enrich("run", **given)
    assert with_warnings.returncode == 0
    assert "ENRICH_METRICS_FILE" in with_warnings.stderr and "ENRICH_METRICS_PUSH" in with_warnings.stderr
    assert "s3cret" not in with_warnings.stderr and "Traceback" not in with_warnings.stderr


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING):
        yield
