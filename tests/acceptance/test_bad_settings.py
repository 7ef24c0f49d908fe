"""Bad settings, as cron meets them: processes of their own, with passwords that must not be seen.

The whole list of mistakes is in `test_cli_errors.py`, in the test's own process.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from enrich.state.database import parse_url
from tests.support.harness import ENRICH, World
from tests.support.postgres import PostgresServer

PASSWORD = "pa55-w0rd!"
NEVER = ("pa55", "Traceback")
COMMANDS = ("run", "check")


def complaint(environment: Mapping[str, str], folder: Path, *arguments: str) -> str:
    """What the command says, having ended as bad settings must: exit 2 and one line."""
    done = subprocess.run(
        [*ENRICH, *arguments], cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=120
    )
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert not any(part in output for part in NEVER), output
    crosses = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    if arguments[0] == "check" and crosses:
        assert len(crosses) == 1, done.stdout
        return " ".join(done.stdout[done.stdout.index("✗") :].split())
    assert done.stdout == "" and done.stderr.startswith("enrich: ") and done.stderr.count("\n") == 1, output
    return done.stderr


def written(world: World) -> object:
    """What is in our tables that a run writes first, and in the index."""
    runs = world.portal.execute("SELECT id, exit_code FROM enrichment.run ORDER BY id")
    listings = world.portal.execute("SELECT id, xmin::text FROM enrichment.listing ORDER BY id")
    return runs, listings, world.versions()


@pytest.fixture
def locked(on_own_postgres: World, postgres_server: PostgresServer) -> World:
    """A world on a server that asks the role `locked` for its password."""
    postgres_server.add_locked_user(PASSWORD, "SUPERUSER")
    url = parse_url(postgres_server.url).set(drivername="postgresql", username="locked", password=PASSWORD)
    on_own_postgres.fixed["database_url"] = url.render_as_string(hide_password=False)
    return on_own_postgres


def test_a_password_that_is_changed_under_a_portal_at_work(locked: World, tmp_path: Path) -> None:
    locked.listing("1", "kitchen")
    first = locked.enrich("run")
    assert first.returncode == 0 and PASSWORD not in first.stdout + first.stderr, first.stderr
    locked.listing("2", "balcony")
    locked.portal.execute("ALTER ROLE locked PASSWORD 'another'")
    before = written(locked)
    for command in COMMANDS:
        said = complaint(locked.environment(), tmp_path, command)
        assert "wrong user or password" in said and "DATABASE_URL" in said
    assert written(locked) == before
    locked.portal.execute(f"ALTER ROLE locked PASSWORD '{PASSWORD}'")
    assert locked.enrich("run").returncode == 0
    assert locked.documents().keys() == {"1", "2"}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option(world: World, command: str, tmp_path: Path) -> None:
    world.listing("1", "kitchen")
    before = written(world)
    said = complaint(world.environment(), tmp_path, command, "--fast")
    assert "--fast" in said and f"enrich {command} --help" in said
    assert written(world) == before


def test_settings_of_a_dotenv_file(world: World, tmp_path: Path) -> None:
    world.listing("1", "kitchen")
    world.elasticsearch.indices.create(index=world.index)
    (tmp_path / ".env").write_text(
        f"ELASTICSEARCH_USERNAME=me\nELASTICSEARCH_PASSWORD={PASSWORD}\nENRICH_SOURCE_IMAGES=pictures\n"
    )
    before = written(world)
    for command in COMMANDS:
        mended = world.environment(source_images="listing_images")
        said = complaint(mended, tmp_path, command)
        assert world.index in said and "ENRICH_INDEX" in said and "alias" in said
    world.drop_indices()
    for command in COMMANDS:
        said = complaint(world.environment(), tmp_path, command)
        assert "pictures" in said and "ENRICH_SOURCE_IMAGES" in said
    assert written(world) == before


def test_several_mistakes_are_told_in_one_line(world: World, tmp_path: Path) -> None:
    for command in COMMANDS:
        environment = world.environment(batch_size=PASSWORD, timezone="here", max_removed="plenty")
        said = complaint(environment, tmp_path, command)
        assert all(name in said for name in ("ENRICH_BATCH_SIZE", "ENRICH_TIMEZONE", "ENRICH_MAX_REMOVED"))
