"""Bad settings: each is one clear line that says what to do, exit code 2; `enrich check` finds it too."""

import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from enrich.state.database import parse_url
from enrich.state.schema import metadata
from tests.support.command import enrich_here
from tests.support.harness import World, until
from tests.support.messages import faults
from tests.support.photo_server import hang
from tests.support.postgres import PostgresServer

PASSWORD = "pa55-w0rd!"
NEVER = ("pa55-w0rd", "pa55%2Dw0rd", "Traceback")


@pytest.fixture
def secretive(world: World) -> World:
    """A world whose settings hold passwords wherever there can be one; the servers do not ask for them."""
    url = parse_url(world.portal.url)
    if url.password is None:
        world.fixed["database_url"] = text_of(url.set(password=PASSWORD))
    world.fixed |= {"elasticsearch_username": "me", "elasticsearch_password": PASSWORD}
    return world


@pytest.fixture(scope="module")
def locked_server() -> Iterator[PostgresServer]:
    """A server where everybody over the local socket needs a password."""
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="enrich-locked-")))
    server.add_locked_user("right")
    yield server
    server.destroy()


def text_of(url: Any) -> str:
    return str(url.set(drivername="postgresql").render_as_string(hide_password=False))


def url_with(world: World, **change: Any) -> dict[str, Any]:
    return {"database_url": text_of(parse_url(world.portal.url).set(password=PASSWORD, **change))}


def broken_bundle(world: World, folder: Path) -> dict[str, Any]:
    shutil.copytree(world.fixed["bundle"], folder / "bundle")
    (folder / "bundle" / "manifest.json").write_text('{"format": 1,')
    return {"bundle": folder / "bundle"}


def other_weights(world: World, folder: Path) -> dict[str, Any]:
    shutil.copytree(world.fixed["bundle"], folder / "bundle")
    weights = folder / "bundle" / "tiny.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return {"bundle": folder / "bundle"}


def missing_column(world: World, folder: Path) -> dict[str, Any]:
    world.portal.execute("ALTER TABLE listing_images DROP COLUMN position")
    return {}


def concrete_index(world: World, folder: Path) -> dict[str, Any]:
    world.elasticsearch.indices.create(index=world.index)
    return {}


def not_migrated(world: World, folder: Path) -> dict[str, Any]:
    world.portal.execute("DROP SCHEMA enrichment CASCADE")
    return {}


Mistake = Callable[[World, Path], dict[str, Any]]
NOWHERE: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "query": {}}
MISTAKES: dict[str, tuple[Mistake, tuple[str, ...]]] = {
    "no such table": (
        lambda world, folder: {"source_listings": "nothing_here"},
        ("nothing_here", "ENRICH_SOURCE_LISTINGS"),
    ),
    "missing column": (missing_column, ("position", "ENRICH_SOURCE_IMAGES")),
    "no such copied column": (
        lambda world, folder: {"index_columns": ("city", "sauna")},
        ("no column sauna", "ENRICH_INDEX_COLUMNS"),
    ),
    "Postgres is not there": (
        lambda world, folder: url_with(world, **NOWHERE),
        ("127.0.0.1:1", "DATABASE_URL"),
    ),
    "no such database": (
        lambda world, folder: url_with(world, database="nothing_here"),
        ("nothing_here", "DATABASE_URL"),
    ),
    "not a Postgres URL": (
        lambda world, folder: {"database_url": f"mysql://me:{PASSWORD}@127.0.0.1/x"},
        ("DATABASE_URL", "postgresql://"),
    ),
    "replica is not there": (
        lambda world, folder: {"source_database_url": url_with(world, **NOWHERE)["database_url"]},
        ("127.0.0.1:1", "SOURCE_DATABASE_URL"),
    ),
    "not migrated": (not_migrated, ("enrichment", "enrich migrate")),
    "not an index URL": (
        lambda world, folder: {"elasticsearch_url": f"me:{PASSWORD}@elsewhere"},
        ("ELASTICSEARCH_URL", "https://"),
    ),
    "concrete index": (concrete_index, ("ENRICH_INDEX", "alias")),
    "no bundle": (lambda world, folder: {"bundle": folder / "none"}, ("none", "ENRICH_BUNDLE")),
    "broken bundle": (broken_bundle, ("manifest.json", "not JSON")),
    "wrong hash": (other_weights, ("tiny.safetensors", "sha256")),
    "a GPU that is not there": (
        lambda world, folder: {"device": "cuda:99"},
        ("ENRICH_DEVICE", "cuda:99 is not here"),
    ),
    "setting of the wrong kind": (
        lambda world, folder: {"batch_size": "many"},
        ("ENRICH_BATCH_SIZE",),
    ),
    "setting out of range": (lambda world, folder: {"error_budget": 3}, ("ENRICH_ERROR_BUDGET",)),
}


def everything(world: World) -> Any:
    """All that a check might have written: our tables with their rows, and the indices."""
    tables = {
        name: world.portal.execute(f"SELECT count(*) FROM {name}")[0][0] if there else None
        for name in metadata.tables
        for there in [world.portal.execute("SELECT to_regclass(:name) IS NOT NULL", name=name)[0][0]]
    }
    return tables, sorted(world.elasticsearch.indices.get(index=f"{world.index}*", expand_wildcards="all"))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do_and_check_finds_it_without_writing(
    name: str, secretive: World, tmp_path: Path
) -> None:
    make, says = MISTAKES[name]
    secretive.listing("1", "kitchen")
    assert_told(secretive, make(secretive, tmp_path), says)


class Website(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...


def test_a_web_server_is_not_taken_for_an_index(secretive: World, tmp_path: Path) -> None:
    (tmp_path / secretive.index).write_text("<p>Welcome")
    handler = partial(Website, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        overrides = {"elasticsearch_url": f"http://127.0.0.1:{server.server_port}"}
        assert_told(secretive, overrides, ("not Elasticsearch", "ELASTICSEARCH_URL"))
        server.shutdown()
        thread.join()


def assert_told(world: World, overrides: dict[str, Any], says: tuple[str, ...]) -> None:
    """`enrich run` and `enrich check` both say it and write nothing."""
    before = everything(world)
    ran = world.enrich_here("run", **overrides)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr.startswith("enrich: ") and ran.stderr.count("\n") == 1, ran.stderr
    assert all(part in ran.stderr for part in says), ran.stderr
    assert faults(ran.stderr.removeprefix("enrich: ").rstrip("\n")) == [], ran.stderr
    assert everything(world) == before

    checked = world.enrich_here("check", **overrides)
    assert checked.returncode == 2, checked.stdout
    complaint = "".join(line for line in checked.stdout.splitlines() if line.startswith("✗"))
    assert all(part in (complaint or checked.stderr) for part in says), checked.stdout
    assert everything(world) == before

    output = ran.stdout + ran.stderr + checked.stdout + checked.stderr
    assert not any(part in output for part in NEVER)


def test_a_wrong_password_is_one_line_without_the_password(
    secretive: World, locked_server: PostgresServer
) -> None:
    url = parse_url(locked_server.url).set(username="locked", password=PASSWORD)
    environment = secretive.environment(database_url=text_of(url))
    for command in ("run", "migrate", "status", "check"):
        done = enrich_here(environment, command, "-v")
        assert done.returncode == 2
        assert "wrong user or password" in done.stdout + done.stderr
        assert not any(part in done.stdout + done.stderr for part in NEVER)


def test_privileges_that_are_missing_are_named(world: World) -> None:
    role = f"reader_{parse_url(world.portal.url).database}"
    world.listing("1", "kitchen")
    world.portal.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    try:
        world.portal.execute(f"GRANT SELECT ON listings, listing_images TO {role}")
        world.portal.execute(f"GRANT USAGE ON SCHEMA enrichment TO {role}")
        world.portal.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA enrichment TO {role}")
        url = parse_url(world.portal.url).set(username=role, password=PASSWORD)
        environment = world.environment(database_url=text_of(url))
        checked = enrich_here(environment, "check")
        assert checked.returncode == 2 and "INSERT on enrichment.listing" in checked.stdout
        assert "✓ tables" in checked.stdout and "✓ photos" in checked.stdout
        ran = enrich_here(environment, "run")
        assert ran.returncode == 2 and "permission denied" in ran.stderr and "GRANT" in ran.stderr
        assert ran.stderr.startswith("enrich: ") and ran.stderr.count("\n") == 1
    finally:
        world.portal.execute(f"DROP OWNED BY {role}")
        world.portal.execute(f"DROP ROLE {role}")


def test_a_run_that_the_server_ended_is_recorded_as_the_command_says(world: World) -> None:
    role = f"writer_{parse_url(world.portal.url).database}"
    world.listing("1", "kitchen", "balcony")
    world.portal.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    try:
        world.portal.execute(f"GRANT SELECT ON listings, listing_images TO {role}")
        world.portal.execute(f"GRANT USAGE ON SCHEMA enrichment TO {role}")
        world.portal.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA enrichment TO {role}")
        world.portal.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA enrichment TO {role}")
        world.portal.execute(f"REVOKE INSERT ON enrichment.history FROM {role}")
        url = parse_url(world.portal.url).set(username=role, password=PASSWORD)
        ran = enrich_here(world.environment(database_url=text_of(url)), "run")
        assert ran.returncode == 2 and "permission denied for table history" in ran.stderr, ran.stderr
        ((code, error),) = world.portal.execute("SELECT exit_code, error FROM enrichment.run")
        assert code == 2 and error.startswith("Postgres: permission denied for table history. GRANT it")
        assert world.portal.execute("SELECT status, attempts FROM enrichment.listing") == [("pending", 0)]
    finally:
        world.portal.execute(f"DROP OWNED BY {role}")
        world.portal.execute(f"DROP ROLE {role}")


def test_an_index_that_is_not_there_is_an_outage_and_check_and_search_say_so(secretive: World) -> None:
    secretive.listing("1", "kitchen")
    nowhere = secretive.environment(elasticsearch_url="http://127.0.0.1:1", outage_seconds=1)
    for command, code in (("run", 3), ("search", 3), ("check", 2)):
        ended = enrich_here(nowhere, command)
        assert ended.returncode == code, ended
        said = ended.stdout if command == "check" else ended.stderr.splitlines()[-1]
        assert "no connection to http://127.0.0.1:1: Connection refused" in said
        assert PASSWORD not in ended.stdout + ended.stderr
    assert secretive.portal.state("1").status == "done", "enriched all the same"
    assert secretive.enrich_here("publish").returncode == 0
    assert secretive.documents().keys() == {"1"}


def test_check_makes_every_check_that_it_can_though_others_fail(world: World) -> None:
    world.listing("1", "kitchen")
    not_migrated(world, Path())
    checked = world.enrich_here("check", elasticsearch_url="http://127.0.0.1:1")
    signs = {line.split()[1]: line[0] for line in checked.stdout.splitlines() if line[0] in "✓✗-"}
    assert signs == {
        "bundle": "✓", "database": "✓", "schema": "✗", "tables": "✓", "index": "✗", "photos": "✓"
    }  # fmt: skip


def test_check_names_tables_of_ours_that_are_gone(world: World) -> None:
    world.portal.execute("DROP TABLE enrichment.history")
    checked = world.enrich_here("check")
    assert checked.returncode == 2
    assert "tables are gone: enrichment.history. Restore the schema" in checked.stdout


def test_check_of_a_world_in_order_is_content_and_writes_nothing(world: World) -> None:
    for number in range(12):
        world.listing(str(number), "kitchen")
    before = everything(world)
    checked = world.enrich_here("check")
    assert checked.returncode == 0, checked.stdout
    assert "10 of 10 sampled photos fetched and decoded" in checked.stdout and "all is well" in checked.stdout
    assert world.requests() == 10
    assert everything(world) == before == (dict.fromkeys(metadata.tables, 0), [])


def test_check_says_when_photo_hosts_may_not_be_asked(world: World) -> None:
    world.listing("1", "kitchen")
    checked = world.enrich_here("check", allowed_private_hosts=())
    assert checked.returncode == 2
    assert "forbidden_address" in checked.stdout and "ENRICH_ALLOWED_PRIVATE_HOSTS" in checked.stdout
    assert world.requests() == 0


def test_check_tolerates_a_photo_that_is_broken(world: World) -> None:
    for number in range(9):
        world.listing(str(number), "kitchen")
    world.portal.add("9", [world.photos.add("/broken.jpg", b"not a picture")])
    checked = world.enrich_here("check")
    assert checked.returncode == 0, checked.stdout
    assert "9 of 10 sampled photos" in checked.stdout and "unsupported_format" in checked.stdout


def test_another_run_under_way_is_exit_75(world: World) -> None:
    world.portal.execute("INSERT INTO enrichment.run (kind, host) VALUES ('run', 'elsewhere:1')")
    world.portal.execute(
        "INSERT INTO enrichment.lock VALUES"
        " ('discover', 'elsewhere:1', gen_random_uuid(), now() + interval '1 hour')"
    )
    done = world.enrich_here("run")
    assert done.returncode == 75 and "elsewhere:1" in done.stderr
    assert done.stderr.startswith("enrich: ") and done.stderr.count("\n") == 1


def test_a_signal_ends_a_run_gently_though_a_photo_host_hangs(world: World) -> None:
    world.portal.add("1", [world.photos.behave("/slow.jpg", hang())])
    with world.start("run", fetch_timeout=200) as process:
        until(world.requests, "the photo is asked for")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert world.statuses() == {"1": "pending"}


def test_results_go_to_stdout_and_logs_to_stderr_as_json(world: World) -> None:
    world.listing("1", "kitchen", "balcony")
    done = world.enrich("run", "--json", "-v")
    assert json.loads(done.stdout)["documents"]["written"] == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines and all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
