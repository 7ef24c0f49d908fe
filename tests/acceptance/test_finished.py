"""How a run ends for those who watch it: drift beside the nights before, and the report for whoever asks."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from enrich.errors import ErrorBudgetError
from jobs.run.reconcile import reconcile
from jobs.run.stop import Stop
from tests.support.bundles import draw_bytes
from tests.support.command import enrich_here
from tests.support.harness import World
from tests.support.photo_server import status

HOMES = 60


@pytest.fixture
def after_a_month(world: World) -> World:
    """A portal with thirty nights behind it, in each of which 20 of 100 homes had a balcony."""
    drift = [
        {"figure": figure, "value": value, "of": of, "usual": None, "drifted": False}
        for figure, value, of in (("has_balcony", 0.2, 100), ("photo_failures", 0.01, 500))
    ]
    world.portal.execute(
        "INSERT INTO enrichment.run (kind, started_at, finished_at, exit_code, bundle_id, figures)"
        " SELECT 'run', now(), now(), 0, 'earlier', CAST(:figures AS jsonb) FROM generate_series(1, 30)",
        figures=json.dumps({"drift": drift}),
    )
    return world


def add_homes(world: World, shows: str, number: int) -> None:
    for n in range(HOMES):
        world.portal.add(f"{shows}-{n}", [world.photo(shows, n)] if n < number else [world.photo("other", n)])


def measured(world: World) -> dict[str, dict[str, Any]]:
    """What `enrich status --json` says of the last night, by figure."""
    done = world.enrich_here("status", "--json")
    return {each["figure"]: each for each in json.loads(done.stdout)["drift"]}


def test_a_night_like_the_others_is_no_news(after_a_month: World) -> None:
    add_homes(after_a_month, "balcony", 13)
    report = after_a_month.run()
    assert report.exit_code == 0
    balcony = measured(after_a_month)["has_balcony"]
    assert (balcony["value"], balcony["of"], balcony["usual"]) == (round(13 / HOMES, 4), HOMES, 0.2)


def test_a_night_in_which_all_homes_have_a_balcony_is_a_warning(after_a_month: World) -> None:
    add_homes(after_a_month, "balcony", HOMES)
    environment = after_a_month.environment()
    done = enrich_here(environment, "run")
    assert done.returncode == 1, done.stderr
    assert "drift: has_balcony 100.0% (usually 20.0%) of 60" in done.stderr
    assert "drift      has_balcony 100.0% (usually 20.0%) of 60" in done.stdout
    assert len(after_a_month.documents()) == HOMES, "it is published all the same"
    shown = enrich_here(environment, "status").stdout
    assert "drift" in shown and "has_balcony 100.0% (usually 20.0%) of 60: look at" in shown
    drifted = {figure for figure, each in measured(after_a_month).items() if each["drifted"]}
    assert drifted == {"has_balcony"}


def test_the_bound_is_a_setting(after_a_month: World) -> None:
    add_homes(after_a_month, "balcony", HOMES)
    assert after_a_month.run(settings={"max_drift": 1.0}).exit_code == 0


def test_a_run_of_named_listings_is_no_night(after_a_month: World) -> None:
    add_homes(after_a_month, "balcony", HOMES)
    report = after_a_month.run(ids=[f"balcony-{n}" for n in range(HOMES)])
    assert (report.exit_code, report.drift) == (0, None)
    assert len(measured(after_a_month)) == 2, "the last night is still the one before"


@pytest.fixture
def kept(world: World, tmp_path: Path) -> Path:
    """Where the hook of this world keeps the last report."""
    file = tmp_path / "kept.json"
    code = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    world.fixed["on_finish"] = SecretStr(shlex.join([sys.executable, "-c", code, str(file)]))
    return file


def test_the_report_of_every_job_goes_to_the_hook(world: World, kept: Path) -> None:
    world.listing("house", "balcony")
    for job in (world.run, world.backfill, world.publish):
        report = job()
        told = json.loads(kept.read_text())
        assert told == {
            "run": told["run"],
            "kind": job.__name__,
            "exit_code": 0,
            "error": None,
            **json.loads(json.dumps(report.as_json())),
            "seconds": told["seconds"],
            "photos_per_second": told["photos_per_second"],
        }
    assert told["run"] == 3


def test_a_reconcile_that_found_nothing_to_mend_is_told(world: World, kept: Path) -> None:
    world.listing("house", "balcony")
    world.run()
    kept.unlink()
    assert reconcile(world.settings(), False, False, Stop()).exit_code == 0 and not kept.exists()
    assert reconcile(world.settings(), True, False, Stop()).exit_code == 0
    told = json.loads(kept.read_text())
    assert (told["run"], told["kind"], told["exit_code"]) == (2, "reconcile", 0)
    assert (told["reconciled"]["documents"], told["reconciled"]["missing"]["count"]) == (1, 0)


def test_a_run_that_stops_itself_is_told_with_the_reason(world: World, kept: Path) -> None:
    body = draw_bytes("kitchen")
    for n in range(250):
        world.portal.add(f"{n:03}", [world.photos.add(f"/{n}.jpg", body)])
        world.photos.behave(f"/{n}.jpg", status(500))
    with pytest.raises(ErrorBudgetError):
        world.run()
    told = json.loads(kept.read_text())
    assert (told["exit_code"], told["drift"]) == (3, None)
    assert "ENRICH_ERROR_BUDGET" in told["error"]


def test_a_hook_that_fails_does_not_lose_the_run(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.listing("house", "balcony")
    assert world.run(settings={"on_finish": SecretStr("false")}).exit_code == 0
    assert "ENRICH_ON_FINISH: false failed: exit code 1" in caplog.text
    assert world.portal.execute("SELECT exit_code FROM enrichment.run") == [(0,)]


def test_the_hook_is_not_shown(world: World) -> None:
    given = {**world.environment(), "ENRICH_ON_FINISH": "https://hooks.example/t0ken"}
    shown = enrich_here(given, "settings", "--json").stdout
    assert "ENRICH_ON_FINISH" in shown and "t0ken" not in shown
