"""Backfills on a real Postgres: marked in pages, joined, gone on with, and done."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import pytest

from enrich.records import PhotoStatus
from enrich.state import backfills as module
from enrich.state import flips
from enrich.state.backfills import Asked, Backfill, Backfills, Selection
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.schema import BACKFILL, NIGHTLY
from enrich.state.summary import summary
from tests.support.enriched import (
    add,
    ask_again,
    enriched,
    failed,
    photo,
    quarantined,
    result,
    statuses,
    wait_for_lock,
)
from tests.support.postgres import Portal


@pytest.fixture
def backfills(database: Database) -> Backfills:
    return Backfills(database)


def marked(backfills: Backfills, **selection: Any) -> int:
    """Ask for a backfill and mark it; how many listings it marked."""
    asked = backfills.ask(Selection(**selection))
    backfills.mark()
    return backfills.marked(asked.id)


def told(database: Database) -> list[Backfill]:
    """What `enrich status` tells of backfills."""
    return list(summary(database).backfills)


def left(database: Database) -> int:
    return told(database)[0].left


def test_a_backfill_marks_everything_but_what_is_gone_or_quarantined(
    migrated: Portal, state: Listings, backfills: Backfills
) -> None:
    add(migrated, "done", "pending", "leased", "retry", "quarantined", "gone")
    enriched(state, "done")
    enriched(state, "retry", failed(photo("retry"), PhotoStatus.DNS))
    quarantined(state, "quarantined")
    (claim,) = state.claim(1, ["leased"])
    migrated.execute("UPDATE enrichment.listing SET status = 'gone' WHERE id = 'gone'")
    assert marked(backfills) == 4
    assert statuses(migrated) == {
        "done": "pending", "pending": "pending", "leased": "leased", "retry": "pending",
        "quarantined": "quarantined", "gone": "gone",
    }  # fmt: skip
    assert migrated.state("done").priority == BACKFILL
    assert migrated.state("pending").priority == NIGHTLY
    assert state.complete([result(claim)])
    assert statuses(migrated)["leased"] == "pending"  # it was made before the backfill asked


def test_a_named_listing_leaves_quarantine(migrated: Portal, state: Listings, backfills: Backfills) -> None:
    add(migrated, "a", "b")
    quarantined(state, "a")
    assert marked(backfills, ids=["a", "nobody"]) == 1
    assert (migrated.state("a").status, migrated.state("a").attempts) == ("pending", 0)


def test_a_stale_bundle_is_rolled_over_and_going_on_marks_only_the_rest(
    migrated: Portal, state: Listings, backfills: Backfills, database: Database
) -> None:
    add(migrated, "a", "b", "c")
    for id in "abc":
        enriched(state, id, bundle_id="new" if id == "c" else "old")
    assert marked(backfills, stale_bundle="new") == 2
    enriched(state, "a", bundle_id="new")
    assert left(database) == 1
    assert backfills.ask(Selection(stale_bundle="new")).joined
    backfills.mark()
    assert left(database) == 1, "not marked anew"
    enriched(state, "b", bundle_id="new")
    assert (left(database), marked(backfills, stale_bundle="new")) == (0, 0)


def test_since_is_when_the_portal_changed_it(migrated: Portal, state: Listings, backfills: Backfills) -> None:
    add(migrated, "a", updated_at=datetime(2024, 1, 1, tzinfo=UTC))
    add(migrated, "b", updated_at=datetime(2024, 6, 1, tzinfo=UTC))
    add(migrated, "c")
    for id in "abc":
        enriched(state, id)
    assert marked(backfills, since=datetime(2024, 6, 1, tzinfo=UTC)) == 1
    assert statuses(migrated) == {"a": "done", "b": "pending", "c": "done"}


def test_photos_can_be_asked_for_again(migrated: Portal, state: Listings, backfills: Backfills) -> None:
    add(migrated, "a")
    enriched(state, "a")
    marked(backfills, revalidate=True)
    (claim,) = state.claim(1)
    assert claim.revalidate


def test_many_listings_are_marked_page_by_page(
    migrated: Portal, state: Listings, backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MARK_PAGE", 3)
    ids = [f"l{n}ö" for n in range(10)]
    add(migrated, *ids)
    migrated.execute("UPDATE enrichment.listing SET status = 'done'")
    assert marked(backfills) == 10
    rows = migrated.execute("SELECT DISTINCT status, requested FROM enrichment.listing")
    assert [tuple(row) for row in rows] == [("pending", 2)]


def test_a_listing_that_a_backfill_left_in_retry_is_the_nightly_runs(
    migrated: Portal, state: Listings, backfills: Backfills, database: Database
) -> None:
    add(migrated, "a", status="done")
    marked(backfills)
    enriched(state, "a", failed(photo("x"), PhotoStatus.DNS))
    assert (migrated.state("a").status, migrated.state("a").priority) == ("retry", NIGHTLY)
    assert left(database) == 0


@pytest.fixture
def done(migrated: Portal) -> list[str]:
    """Ten listings that are done."""
    ids = [f"l{n}" for n in range(10)]
    add(migrated, *ids, status="done")
    return ids


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MARK_PAGE", 3)


def test_marking_that_was_interrupted_goes_on_where_it_was(
    migrated: Portal, backfills: Backfills, database: Database, done: list[str], small_pages: None
) -> None:
    asked = backfills.ask(Selection())
    pages = iter([False, False, True])
    backfills.mark(lambda: next(pages))  # as if killed behind the second page
    assert backfills.marked(asked.id) == 6
    assert told(database)[0].marked_at is None
    add(migrated, "a", status="done")  # behind the cursor: came in later
    Backfills(database).mark()
    assert backfills.marked(asked.id) == 10
    requested = migrated.execute("SELECT DISTINCT requested FROM enrichment.listing WHERE id <> 'a'")
    assert requested == [(2,)], "nothing is marked twice"
    assert told(database)[0].marked_at is not None


def test_a_page_and_its_cursor_are_one_transaction(
    migrated: Portal, backfills: Backfills, done: list[str], small_pages: None
) -> None:
    asked = backfills.ask(Selection())
    migrated.execute(
        "CREATE FUNCTION enrichment.broken() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.marked > 3 THEN RAISE 'power cut'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER broken BEFORE UPDATE ON enrichment.backfill"
        " FOR EACH ROW EXECUTE FUNCTION enrichment.broken()"
    )
    with pytest.raises(Exception, match="power cut"):
        backfills.mark()
    assert sum(status == "pending" for status in statuses(migrated).values()) == 3
    assert backfills.marked(asked.id) == 3


def test_many_processes_mark_each_listing_once(
    migrated: Portal, backfills: Backfills, done: list[str], small_pages: None
) -> None:
    asked = backfills.ask(Selection())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: backfills.mark(), range(4)))
    assert backfills.marked(asked.id) == 10
    assert migrated.execute("SELECT DISTINCT requested FROM enrichment.listing") == [(2,)]


def test_the_same_question_joins_while_it_is_unfinished(
    backfills: Backfills, state: Listings, done: list[str]
) -> None:
    first = backfills.ask(Selection(ids=["l1", "l0"], revalidate=True))
    assert backfills.ask(Selection(ids=["l0", "l1", "l0"], revalidate=True)) == Asked(first.id, joined=True)
    backfills.mark()
    enriched(state, "l0")
    assert backfills.ask(Selection(ids=["l0", "l1"], revalidate=True)) == Asked(first.id, joined=True)
    enriched(state, "l1")  # the last one: and nobody is left to say that it is done
    again = backfills.ask(Selection(ids=["l0", "l1"], revalidate=True))
    assert not again.joined and again.id != first.id


def test_asked_at_once_it_is_one_backfill(backfills: Backfills) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: backfills.ask(Selection()), range(8)))
    assert len({a.id for a in asked}) == 1
    assert sum(not a.joined for a in asked) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"ids": ["l0"]},
        {"since": datetime(2024, 1, 1, tzinfo=UTC)},
        {"stale_bundle": "b"},
        {"revalidate": True},
    ],
)
def test_other_questions_are_other_backfills(backfills: Backfills, other: dict[str, Any]) -> None:
    first = backfills.ask(Selection())
    second = backfills.ask(Selection(**other))
    assert not second.joined and second.id != first.id


def test_two_selections_are_both_honoured(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database, done: list[str]
) -> None:
    first, second = backfills.ask(Selection(ids=["l0", "l1"])), backfills.ask(Selection(ids=["l1", "l2"]))
    backfills.mark()
    assert (backfills.marked(first.id), backfills.marked(second.id)) == (2, 2)
    assert {id for id, status in statuses(migrated).items() if status == "pending"} == {"l0", "l1", "l2"}
    enriched(state, "l0")
    backfills.finish()
    assert [(b.id, b.left, b.done_at is None) for b in told(database)] == [
        (second.id, 2, True), (first.id, 0, False),
    ]  # fmt: skip


def test_it_is_done_when_nothing_that_it_marked_waits(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database, done: list[str]
) -> None:
    backfills.ask(Selection(ids=["l0", "l1", "l2"]))
    backfills.finish()
    assert told(database)[0].done_at is None, "it is not marked yet"
    backfills.mark()
    (claim,) = state.claim(1, ["l0"])
    enriched(state, "l1", failed(photo("x"), PhotoStatus.DNS))  # in retry: it was tried
    migrated.execute("UPDATE enrichment.listing SET status = 'gone' WHERE id = 'l2'")
    backfills.finish()
    assert (told(database)[0].left, told(database)[0].done_at) == (1, None), "one is being worked on"
    assert state.complete([result(claim)])
    backfills.finish()
    assert told(database)[0].left == 0 and told(database)[0].done_at is not None
    migrated.execute("UPDATE enrichment.listing SET status = 'pending' WHERE id = 'l0'")
    assert told(database)[0].left == 0, "what something else asks for later is none of its"


def test_a_listing_that_is_put_off_for_a_paused_host_is_waited_for(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database
) -> None:
    """Asked for once more, the same backfill goes on, with the filters that it has changed so far."""
    add(migrated, "a", "b")
    for id in "ab":
        enriched(state, id, bundle_id="old")
    asked = backfills.ask(Selection(stale_bundle="new"), "1")
    backfills.mark()
    (claim,) = state.claim(1, ["a"])
    state.release([claim], later=300)
    (claim,) = state.claim(1, ["b"])
    assert state.complete([result(claim, bundle_id="new", has_balcony=False)])
    backfills.finish()
    assert (told(database)[0].left, told(database)[0].done_at) == (1, None)
    assert backfills.ask(Selection(stale_bundle="new"), "1") == Asked(asked.id, joined=True)

    migrated.execute("UPDATE enrichment.listing SET not_before = now() WHERE id = 'a'")
    (claim,) = state.claim(1, ["a"])
    assert state.complete([result(claim, bundle_id="new", has_balcony=False)]) == set()
    assert "more than 1" in (backfills.held(asked.id) or "")
    assert (migrated.state("a").status, migrated.state("a").bundle_id) == ("done", "old")


def test_what_is_put_off_while_a_backfill_is_held_stays_as_it_is(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database
) -> None:
    add(migrated, "a")
    enriched(state, "a", bundle_id="old")
    asked = backfills.ask(Selection(stale_bundle="new"))
    backfills.mark()
    (claim,) = state.claim(1, ["a"])
    state.release([claim], later=300)
    database.run(lambda connection: flips.hold(connection, asked.id, "too many"))
    row = migrated.state("a")
    assert (row.status, row.not_before, row.priority, row.backfill) == ("done", None, NIGHTLY, None)


def test_what_was_in_retry_when_a_backfill_marked_it_is_so_again_when_that_is_held(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database
) -> None:
    """Left pending, it would go over to the new bundle in the next night, and nobody would count it."""
    add(migrated, "a", "b", "asked for")
    for id in ("a", "b", "asked for"):
        enriched(state, id, failed(photo(id), PhotoStatus.DNS), bundle_id="old")
    before = {id: migrated.state(id) for id in "ab"}
    migrated.execute(
        "UPDATE enrichment.listing SET status = 'pending', not_before = NULL WHERE id = 'asked for'"
    )
    state.release(state.claim(1, ["asked for"]), later=300)
    asked = backfills.ask(Selection(stale_bundle="new"))
    backfills.mark()
    assert migrated.state("a").priority == BACKFILL
    state.claim(1, ["b"])
    database.run(lambda connection: flips.hold(connection, asked.id, "too many"))
    for id, row in before.items():
        after = migrated.state(id)
        assert row.status == "retry" and after.not_before == row.not_before
        for column in ("status", "priority", "error", "transient_rounds", "pending_since", "lease_token"):
            assert getattr(after, column) == getattr(row, column), column
    assert statuses(migrated)["asked for"] == "pending"


def test_what_was_enriched_before_its_time_is_tried_when_its_photos_are_due_after_a_held_backfill(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database
) -> None:
    add(migrated, "a")
    enriched(state, "a", failed(photo("x"), PhotoStatus.DNS), bundle_id="old")
    migrated.execute("UPDATE enrichment.photo SET next_try = next_try - interval '20 minutes'")
    ask_again(migrated, "a")
    migrated.execute("UPDATE enrichment.listing SET not_before = NULL, pending_since = now()")
    enriched(state, "a", replace(failed(photo("x"), PhotoStatus.DNS), requested=False), bundle_id="old")
    asked = backfills.ask(Selection(stale_bundle="new"))
    backfills.mark()
    database.run(lambda connection: flips.hold(connection, asked.id, "too many"))
    assert migrated.execute("SELECT next_try FROM enrichment.photo") == [(migrated.state("a").not_before,)]


def test_what_was_to_be_asked_for_again_stays_as_it_is_when_its_backfill_is_held(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database
) -> None:
    """Left pending, it would go over to the new bundle, and nobody would count it."""
    add(migrated, "a", "asked for")
    for id in ("a", "asked for"):
        enriched(state, id, bundle_id="old")
    migrated.execute(  # as discovery does where the listing moved
        "UPDATE enrichment.listing SET status = 'pending', revalidate = true, requested = 2"
        " WHERE id = 'asked for'"
    )
    asked = backfills.ask(Selection(stale_bundle="new", revalidate=True))
    backfills.mark()
    database.run(lambda connection: flips.hold(connection, asked.id, "too many"))
    rows = {id: migrated.state(id) for id in ("a", "asked for")}
    assert {id: (row.status, row.priority, row.revalidate, row.backfill) for id, row in rows.items()} == {
        "a": ("done", NIGHTLY, False, None),
        "asked for": ("pending", NIGHTLY, True, None),
    }


def test_what_a_backfill_took_out_of_quarantine_returns_there_when_it_is_held(
    migrated: Portal, backfills: Backfills, state: Listings, database: Database
) -> None:
    add(migrated, "a", "forgiven")
    enriched(state, "a", bundle_id="old")
    ask_again(migrated, "a")
    quarantined(state, "a")
    enriched(state, "forgiven", failed(photo("x"), PhotoStatus.DNS), bundle_id="old")
    state.forgive(["forgiven"])
    asked = backfills.ask(Selection(ids=["a", "forgiven"], stale_bundle="new"))
    backfills.mark()
    assert statuses(migrated) == {"a": "pending", "forgiven": "pending"}
    database.run(lambda connection: flips.hold(connection, asked.id, "too many"))
    assert statuses(migrated)["forgiven"] == "retry"
    assert [claim.id for claim in state.claim(2)] == ["forgiven"]
    row = migrated.state("a")
    assert (row.status, row.error, row.bundle_id) == ("quarantined", "broken", "old")


def test_photos_that_discovery_finds_changed_while_a_backfill_is_held_are_enriched(
    migrated: Portal, state: Listings, backfills: Backfills, database: Database
) -> None:
    add(migrated, "a", "b")
    for id in "ab":
        enriched(state, id, bundle_id="old")
    asked = backfills.ask(Selection(stale_bundle="new"))
    backfills.mark()
    holding = Thread(target=database.run, args=(lambda c: flips.hold(c, asked.id, "too many"),))
    with migrated.engine.begin() as discovery:  # its page, not committed yet
        discovery.exec_driver_sql(
            "UPDATE enrichment.listing SET photo_fp = 'fp-2', requested = requested + 1, priority = 0"
            " WHERE id = 'a'"
        )
        holding.start()
        wait_for_lock(migrated, holding)
    holding.join()
    assert statuses(migrated) == {"a": "pending", "b": "done"}


def test_status_lists_the_unfinished_and_the_last_few(backfills: Backfills, database: Database) -> None:
    first = backfills.ask(Selection())
    for number in range(8):
        marked(backfills, ids=[str(number)])
        backfills.finish()
    # All of these marked nothing: the first one too, for there is nothing here.
    assert len(told(database)) == 5 and first.id not in {b.id for b in told(database)}
    assert all(b.done_at and b.named == 1 for b in told(database))


def test_who_joins_without_a_bound_leaves_the_one_that_was_set(
    migrated: Portal, backfills: Backfills
) -> None:
    def bound() -> Any:
        return migrated.execute("SELECT max_flips FROM enrichment.backfill")

    rollout = Selection(stale_bundle="new")
    backfills.ask(rollout, "2%")
    assert backfills.ask(rollout).joined and bound() == [("2%",)]
    assert backfills.ask(rollout, "10").joined and bound() == [("10",)]
