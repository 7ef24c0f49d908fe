"""The status page: what it tells, and *try again*. On a real Postgres."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from enrich.settings import Settings, load_settings
from enrich.state.backfills import Backfills, Selection
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.locks import Locks
from enrich.state.runs import Runs
from jobs.run.record import RunReport
from tests.support.enriched import add, claim_one, enriched, quarantined, statuses
from tests.support.page import OpenClient
from tests.support.postgres import Portal

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def settings(migrated: Portal, tiny_bundle: Path) -> Settings:
    return load_settings(database_url=migrated.url, bundle=tiny_bundle, person="ann", precision="fp32")


def figures(**more: object) -> dict[str, object]:
    """As a run leaves them."""
    return {**RunReport().as_json(), "photos": 40, "fetched": 31, "scored": 30, **more}


def test_with_nothing_done_yet_it_says_so(settings: Settings, open_client: OpenClient) -> None:
    shown = open_client(settings).get("/status")
    assert shown.status_code == 200
    assert "No run yet" in shown.text and "No listing is in quarantine" in shown.text


def test_the_picture_tells_what_is_where(
    settings: Settings, migrated: Portal, database: Database, state: Listings, open_client: OpenClient
) -> None:
    add(migrated, "a", "b", "c", "d")
    enriched(state, "a")
    quarantined(state, "b")
    claim_one(state, "c")
    Runs(database).finish_run(Runs(database).start_run("run", "b1"), 0, figures())
    shown = open_client(settings).get("/status").text
    for told in ("Postgres 4 listings", "claim 1 waiting", "fetch 31 fetched", "score 30 scored"):
        assert told in shown
    for told in ("aggregate 1 in hand", "save 1 done", "publish 1 to publish", "index 0 documents"):
        assert told in shown


def test_runs_failures_and_drift(settings: Settings, database: Database, open_client: OpenClient) -> None:
    runs = Runs(database)
    hosts = [{"host": "img.example", "kind": "timeout", "photos": 7}]
    drift = [{"figure": "has_balcony", "value": 0.9, "of": 100, "usual": 0.2, "drifted": True}]
    found = figures(failures={"timeout": 7, "not_found": 2}, failing_hosts=hosts, drift=drift)
    runs.finish_run(runs.start_run("run", "b1"), 1, found)
    runs.finish_run(runs.start_run("publish", "b1"), 3, {}, "the index was away")
    shown = open_client(settings).get("/status").text
    assert "img.example: timeout" in shown and "not found" in shown
    assert "90.0 %" in shown and ">drift<" in shown
    assert "the index was away" in shown
    assert 'class="trouble"' in shown and 'class="failed"' in shown


def test_a_run_under_way_is_told_from_one_that_was_killed(
    settings: Settings, database: Database, open_client: OpenClient
) -> None:
    for kind in ("backfill", "run"):
        Runs(database).start_run(kind, "b1")
    with Locks(database).hold("discover"):
        shown = open_client(settings).get("/status").text
    assert ended_of(shown, "run") == "under way" and ended_of(shown, "backfill") == "did not end"


def ended_of(shown: str, kind: str) -> str:
    """How the table of runs says that this one ended."""
    row = shown.partition(f"<td>{kind}</td>")[2].partition("</tr>")[0]
    return row.partition('<td class="words">')[2].partition("<")[0]


def test_a_backfill_says_how_far_it_got(
    settings: Settings, migrated: Portal, database: Database, state: Listings, open_client: OpenClient
) -> None:
    add(migrated, "a", "b", "c")
    for id in ("a", "b", "c"):
        enriched(state, id)
    backfills = Backfills(database)
    backfills.ask(Selection())
    backfills.mark()
    enriched(state, "a")
    shown = open_client(settings).get("/status").text
    assert '<progress value="1" max="3"' in shown and "3 marked, 2 left" in shown


def test_try_again_takes_one_listing_out_of_quarantine(
    settings: Settings, migrated: Portal, state: Listings, open_client: OpenClient
) -> None:
    add(migrated, "a", "b")
    for id in ("a", "b"):
        quarantined(state, id)
    client = open_client(settings)
    assert "broken" in client.get("/status").text
    told = client.send_form("/status/retry", {"id": "a"})
    assert told.status_code == 303
    assert statuses(migrated) == {"a": "pending", "b": "quarantined"}
    shown = client.get(told.headers["location"]).text
    assert "1 listing will be tried again" in shown
    assert 'aria-label="Try again: a"' not in shown and 'aria-label="Try again: b"' in shown


def test_try_all_again_and_an_unknown_one(
    settings: Settings, migrated: Portal, state: Listings, open_client: OpenClient
) -> None:
    add(migrated, "a", "b")
    for id in ("a", "b"):
        quarantined(state, id)
    client = open_client(settings)
    for id in ("nobody", "a\0"):
        assert client.send_form("/status/retry", {"id": id}).status_code == 404
    assert client.post("/status/retry", data={}).status_code == 403, "another site's form"
    assert statuses(migrated) == {"a": "quarantined", "b": "quarantined"}
    client.send_form("/status/retry")
    assert statuses(migrated) == {"a": "pending", "b": "pending"}


def test_who_may_only_look_is_shown_no_button_and_tries_nothing_again(
    settings: Settings, migrated: Portal, state: Listings, open_client: OpenClient
) -> None:
    add(migrated, "a")
    quarantined(state, "a")
    token = SecretStr("only-for-looking-at")
    client = open_client(settings.model_copy(update={"web_token": token}))
    assert client.send_form("/login", {"token": token.get_secret_value()}).status_code == 303
    shown = client.get("/status").text
    assert "broken" in shown and "Try again" not in shown
    assert client.send_form("/status/retry", {"id": "a"}).status_code == 403
    assert statuses(migrated) == {"a": "quarantined"}


def test_what_comes_from_outside_is_shown_as_text(
    settings: Settings, migrated: Portal, state: Listings, open_client: OpenClient
) -> None:
    add(migrated, HOSTILE)
    assert state.fail(claim_one(state, HOSTILE), HOSTILE)
    shown = open_client(settings).get("/status").text
    assert "<script>alert" not in shown and shown.count("&lt;script&gt;") >= 2


def test_a_state_that_takes_long_to_count_is_not_counted_for_every_visitor(
    settings: Settings, migrated: Portal, state: Listings, open_client: OpenClient
) -> None:
    client = open_client(settings)
    assert "Postgres 0 listings" in client.get("/status").text
    add(migrated, "a")
    assert "Postgres 0 listings" in client.get("/status").text
    client.app.state.standing.forget()  # type: ignore[attr-defined]
    assert "Postgres 1 listings" in client.get("/status").text
