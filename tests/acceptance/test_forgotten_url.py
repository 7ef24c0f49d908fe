"""What a command works on is never a surprise: no database of its own, and it says where documents go."""

from pathlib import Path

import pytest

from tests.support.command import enrich_here
from tests.support.harness import World

NOWHERE = "http://127.0.0.1:1"
COMMANDS = (
    ["migrate"], ["run"], ["run", "--dry-run"], ["backfill"], ["publish"], ["search"], ["status"],
    ["show", "1"], ["retry", "1"], ["override", "1", "has_balcony=true"], ["worker"],
)  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_forgotten_database_url_is_one_line_that_says_what_to_set(
    world: World, tmp_path: Path, arguments: list[str]
) -> None:
    done = world.enrich_here(*arguments, database_url=None, home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("enrich: DATABASE_URL is not set: ") and done.stderr.count("\n") == 1
    assert "ENRICH_EMBEDDED=true" in done.stderr
    assert not (tmp_path / "home").exists(), "nothing is started"


def test_check_says_it_too(world: World) -> None:
    done = world.enrich_here("check", database_url=None)
    assert done.returncode == 2 and "✗ database  DATABASE_URL is not set" in done.stdout


def test_migrate_names_its_database_and_no_password(world: World) -> None:
    done = world.enrich_here("migrate")
    assert done.returncode == 0
    assert f"database {world.portal.engine.url.database} is at version" in done.stdout
    assert "://" not in done.stdout


def test_documents_that_stay_in_postgres_are_announced_once_by_commands_that_run_or_search(
    world: World,
) -> None:
    world.listing("1", "kitchen")
    environment = world.environment(elasticsearch_url=None)
    for arguments in (["run"], ["backfill"], ["publish"], ["search"]):
        done = enrich_here(environment, *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("ELASTICSEARCH_URL is not set: documents stay in") == 1
    assert enrich_here(environment, "status").stderr == ""
    assert "ELASTICSEARCH_URL" not in world.enrich_here("run").stderr


@pytest.mark.parametrize("url", [NOWHERE, "me:secret@elsewhere"])
def test_what_is_known_of_listings_is_told_and_changed_without_an_index(world: World, url: str) -> None:
    world.listing("1", "balcony")
    world.run()
    environment = world.environment(elasticsearch_url=url)
    for arguments in (
        ["status"], ["show", "1"], ["override", "1", "has_balcony=false"], ["retry", "1"]
    ):  # fmt: skip
        done = enrich_here(environment, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)


def test_a_misspelt_setting_is_warned_of_and_shown(world: World) -> None:
    environment = {**world.environment(), "ENRICH_BUNDEL": "x"}
    for command in ("settings", "check", "status"):
        done = enrich_here(environment, command)
        assert done.returncode == 0
        assert (done.stdout + done.stderr).count("is ENRICH_BUNDLE meant?") == 1, command
    assert "ENRICH_BUNDEL" in enrich_here(environment, "settings").stdout
    assert "ENRICH_BUNDEL" in enrich_here(environment, "check").stdout


UUID = "0b5c1f6e-2d9b-4a53-9c3e-0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("kind", "id", "typed"),
    [
        ("uuid", UUID, UUID.upper()),
        ("uuid", UUID, UUID.replace("-", "")),
        ("uuid", UUID, f"{{{UUID}}}"),
        ("bigint", "1042", " 1042 "),
        ("integer", "7", "007"),
    ],
)
def test_an_id_is_found_in_any_of_its_spellings(
    world: World, tmp_path: Path, kind: str, id: str, typed: str
) -> None:
    url = world.photo("balcony", 1)
    world.portal.execute(f"ALTER TABLE listings ALTER id TYPE {kind} USING id::{kind}")
    world.portal.execute(f"INSERT INTO listings (id, updated_at) VALUES ('{id}', now())")
    world.portal.add_photo(id, 0, url)
    (tmp_path / "ids").write_text(f"{typed}\n")
    environment = world.environment()
    for arguments in (
        ["run", "--ids", str(tmp_path / "ids")],
        ["show", typed],
        ["override", typed, "has_balcony=false"],
        ["retry", typed],
        ["backfill", "--ids", str(tmp_path / "ids")],
    ):
        done = enrich_here(environment, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert world.documents()[id]["has_balcony"] is False


def test_an_id_that_is_text_is_taken_exactly_and_one_in_other_letters_is_named(world: World) -> None:
    world.listing("Sol-1", "kitchen")
    world.run()
    for arguments in (["show", "SOL-1"], ["retry", "SOL-1"], ["override", "SOL-1", "has_balcony=true"]):
        done = world.enrich_here(*arguments)
        assert done.returncode == 2
        assert "no listing 'SOL-1' is known, but 'Sol-1' is" in done.stderr
    assert "run `enrich run`" in world.enrich_here("show", "other").stderr
