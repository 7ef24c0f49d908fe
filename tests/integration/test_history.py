"""The history of what is published: which answer changed, by which bundle or person. On a real Postgres."""

from typing import Any

import pytest

from enrich.state.database import Database
from enrich.state.history import history
from enrich.state.listings import Listings
from enrich.state.overrides import Overrides
from tests.support.enriched import add, ask_again, claim_one, result
from tests.support.postgres import Portal


@pytest.fixture
def overrides(database: Database) -> Overrides:
    return Overrides(database)


def complete(portal: Portal, state: Listings, bundle_id: str = "bundle-1", **fields: Any) -> None:
    if not portal.execute("SELECT FROM enrichment.listing"):
        add(portal, "a")
    ask_again(portal, "a")
    assert state.complete([result(claim_one(state), bundle_id=bundle_id, **fields)])


def told(database: Database) -> list[tuple[Any, ...]]:
    """The oldest first."""
    return [
        (one.field, one.before, one.after, one.cause, one.person) for one in reversed(history(database, "a"))
    ]


def test_the_first_answers_come_from_nothing_and_unknown_ones_are_no_news(
    migrated: Portal, database: Database, state: Listings
) -> None:
    complete(migrated, state, has_fireplace=None, fireplace_confidence=0.2, style_types=[])
    first = history(database, "a")
    assert {(one.field, one.first, one.before, one.bundle_before) for one in first} == {
        ("has_balcony", True, None, None),
        ("room_types", True, None, None),
    }
    (balcony,) = [one for one in first if one.field == "has_balcony"]
    assert (balcony.after, balcony.confidence, balcony.bundle_id, balcony.cause) == (
        True, 0.9312, "bundle-1", "model",
    )  # fmt: skip


def test_what_comes_out_as_before_is_no_change(migrated: Portal, database: Database, state: Listings) -> None:
    complete(migrated, state)
    before = told(database)
    complete(migrated, state, balcony_confidence=0.95, bundle_id="bundle-2")
    assert told(database) == before


def test_another_bundle_that_says_something_else_is_named_beside_the_one_before(
    migrated: Portal, database: Database, state: Listings
) -> None:
    complete(migrated, state)
    complete(migrated, state, "bundle-2", has_balcony=None, balcony_confidence=0.5)
    change = history(database, "a")[0]
    assert (change.before, change.after, change.first, change.confidence) == (True, None, False, 0.5)
    assert (change.bundle_before, change.bundle_id) == ("bundle-1", "bundle-2")


def test_an_answer_that_the_new_bundle_does_not_give_any_more_is_unknown_from_then_on(
    migrated: Portal, database: Database, state: Listings, overrides: Overrides
) -> None:
    complete(migrated, state, has_sauna=True, sauna_confidence=0.9, has_pool=None, pool_confidence=0.3)
    overrides.set_override("a", "has_attic", True, None, "ann")  # which no bundle knows
    before = told(database)
    complete(migrated, state, "bundle-2")
    overrides.clear_override("a", "has_attic", "bob")
    assert told(database)[len(before) :] == [
        ("has_sauna", True, None, "model", None),
        ("has_attic", True, None, "cleared", "bob"),
    ]


def test_a_first_answer_that_was_unknown_is_told_when_it_changes(
    migrated: Portal, database: Database, state: Listings
) -> None:
    complete(migrated, state, has_balcony=None)
    complete(migrated, state)
    change = history(database, "a")[0]
    assert (change.before, change.after, change.first) == (None, True, False)


def test_a_person_and_what_they_took_back(
    migrated: Portal, database: Database, state: Listings, overrides: Overrides
) -> None:
    complete(migrated, state)
    overrides.set_override("a", "has_balcony", False, None, "ann")
    overrides.clear_override("a", "has_balcony", "bob")
    assert told(database)[-2:] == [
        ("has_balcony", True, False, "person", "ann"),
        ("has_balcony", False, True, "cleared", "bob"),
    ]


def test_a_person_who_says_the_same_as_the_model_is_on_record_once(
    migrated: Portal, database: Database, state: Listings, overrides: Overrides
) -> None:
    complete(migrated, state)
    before = told(database)
    for by in ("ann", "bob"):
        overrides.set_override("a", "has_balcony", True, None, by)
    assert told(database)[len(before) :] == [("has_balcony", True, True, "person", "ann")]


def test_a_person_s_word_said_before_the_first_enrichment_is_theirs(
    migrated: Portal, database: Database, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    overrides.set_override("a", "has_balcony", None, None, "ann")
    assert told(database) == [], "nothing is published yet"
    complete(migrated, state)
    assert ("has_balcony", None, None, "person", "ann") in told(database)


def test_a_model_that_changes_its_mind_under_a_person_s_word_changes_nothing(
    migrated: Portal, database: Database, state: Listings, overrides: Overrides
) -> None:
    complete(migrated, state)
    overrides.set_override("a", "has_balcony", True, None, "ann")
    before = told(database)
    complete(migrated, state, "bundle-2", has_balcony=False, balcony_confidence=0.01)
    assert told(database) == before


def test_a_completion_that_is_not_saved_leaves_no_history(
    migrated: Portal, database: Database, state: Listings
) -> None:
    add(migrated, "a", "b")
    stale = claim_one(state)
    migrated.execute("UPDATE enrichment.listing SET lease_token = gen_random_uuid() WHERE id = 'a'")
    assert state.complete([result(stale)]) == set()
    assert told(database) == []


def test_the_latest_come_first_and_no_more_than_asked_for(
    migrated: Portal, database: Database, state: Listings
) -> None:
    for confidence in range(6):
        complete(migrated, state, has_balcony=confidence % 2 == 0)
    assert [one.after for one in history(database, "a", limit=3)] == [False, True, False]
    assert history(database, "nobody") == []
