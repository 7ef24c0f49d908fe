"""The role of docs/database.md is enough for a whole run, and nothing that is printed holds its password."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from enrich.state.database import parse_url
from tests.support.harness import World

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "pa55-w0rd,of:the/role"


@pytest.fixture
def as_documented(world: World) -> Iterator[str]:
    """The world's database URL for the documented role, on a database that has no schema of ours yet."""
    url = parse_url(world.portal.url)
    role = f"enrich_{url.database}"
    page = (DOCS / "database.md").read_text()
    statements = re.search(r"```sql\n(CREATE ROLE enrich .*?)```", page, re.DOTALL)
    assert statements
    world.portal.execute("DROP SCHEMA enrichment CASCADE; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    granted = (
        statements[1].replace("DATABASE portal", f"DATABASE {url.database}").replace("'…'", f"'{SECRET}'")
    )
    world.portal.execute(
        re.sub(r"\b(ROLE|TO|AUTHORIZATION) enrich\b", rf"\1 {role}", granted).replace(":", "\\:")
    )
    yield url.set(username=role, password=SECRET, drivername="postgresql").render_as_string(
        hide_password=False
    )
    world.portal.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_every_command_works_as_that_role_and_tells_no_secret(world: World, as_documented: str) -> None:
    world.fixed |= {"database_url": as_documented, "elasticsearch_username": None}
    world.listing("a", "kitchen", "balcony")
    world.listing("b", "bathroom")
    for command in (
        "migrate",
        "check",
        "run -v",
        "status",
        "show a",
        "override b has_balcony=true --by ann",
        "publish -v",
        "search --has balcony",
        "retry a",
        "backfill -v",
        "reconcile",
        "reindex",
        "prune --yes",
        "settings",
        "settings --json",
    ):
        # What libraries print beside Python is seen of a process only.
        start = world.enrich if "-v" in command else world.enrich_here
        done = start(*command.split())
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "pa55" not in done.stdout + done.stderr, command
    assert set(world.documents()) == {"a", "b"}
    assert world.documents()["b"]["has_balcony"] is True
    kept = world.portal.execute("SELECT string_agg(r::text, ' ') FROM enrichment.run AS r")[0][0]
    assert "pa55" not in kept


def test_a_role_that_may_write_tables_and_count_no_rows_is_told_so_by_check(world: World) -> None:
    """As where an administrator's role made the schema, and granted what `enrich check` named."""
    url = parse_url(world.portal.url)
    role = f"writer_{url.database}"
    world.listing("a", "kitchen")
    world.portal.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA enrichment TO {role}")
    try:
        world.portal.execute(f"GRANT SELECT ON listings, listing_images TO {role}")
        world.portal.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA enrichment TO {role}"
        )
        text = url.set(username=role, password="x", drivername="postgresql")
        world.fixed |= {"database_url": text.render_as_string(hide_password=False)}
        checked = world.enrich_here("check")
        assert checked.returncode == 2, checked.stdout
        named = re.findall(r"USAGE on (enrichment\.\w+)", checked.stdout)
        assert "enrichment.run_id_seq" in named
        for sequence in named:
            world.portal.execute(f"GRANT USAGE ON SEQUENCE {sequence} TO {role}")
        assert world.enrich_here("check").returncode == 0
        for command in ("run", "backfill", "override a has_balcony=true --by ann", "publish"):
            done = world.enrich_here(*command.split())
            assert done.returncode == 0, f"{command}: {done.stderr}"
    finally:
        world.portal.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_fails_tells_no_secret_either(world: World, as_documented: str) -> None:
    wrong = as_documented.replace("pa55", "pa55-wrong")
    for overrides in ({"database_url": wrong}, {"database_url": as_documented, "index": "UPPER"}):
        done = world.enrich("run", "-v", **overrides)
        assert done.returncode == 2
        assert "pa55" not in done.stdout + done.stderr, done.stderr
