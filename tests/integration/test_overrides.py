"""A person outranks the model, on a real Postgres."""

from threading import Thread
from typing import Any

import pytest

from enrich.errors import UsageError
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.overrides import Override, Overrides, Said, read
from tests.support.enriched import (
    add,
    ask_again,
    claim_one,
    result,
    wait_for_lock,
)
from tests.support.postgres import Portal


@pytest.fixture
def overrides(database: Database) -> Overrides:
    return Overrides(database)


def said(database: Database, id: str) -> list[Override]:
    return database.run(lambda connection: read(connection, [id]).get(id, []))


def fields(portal: Portal) -> dict[str, Any]:
    found: dict[str, Any] = portal.state("a").attributes["fields"]
    return found


def test_an_override_before_the_first_enrichment_holds_afterwards(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    overrides.set_override("a", "has_balcony", False, "I was there", "ann")
    assert migrated.state("a").revision is None  # nothing to publish yet
    state.complete([result(claim_one(state))])
    row = migrated.state("a")
    assert row.attributes["fields"]["has_balcony"] is False
    assert row.attributes["fields"]["balcony_confidence"] == 0.0
    assert row.attributes["evidence"]["balcony"] == {"override": True, "model_confidence": 0.9312}
    assert row.model_attributes["fields"]["has_balcony"] is True


def test_an_override_is_to_be_published_at_once(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    state.complete([result(claim_one(state))])
    before = migrated.state("a").revision
    overrides.set_override("a", "has_balcony", None, None, "ann")
    assert migrated.state("a").revision > before
    assert fields(migrated)["has_balcony"] is None


def test_an_override_survives_another_run_and_another_model(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    state.complete([result(claim_one(state))])
    overrides.set_override("a", "has_balcony", False, None, "ann")
    ask_again(migrated, "a")
    state.complete([result(claim_one(state), bundle_id="bundle-2", balcony_confidence=0.99)])
    assert (fields(migrated)["has_balcony"], fields(migrated)["balcony_confidence"]) == (False, 0.0)
    assert migrated.state("a").attributes["evidence"]["balcony"]["model_confidence"] == 0.99


def test_an_override_during_an_enrichment_is_not_lost(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    claim = claim_one(state)
    overrides.set_override("a", "room_types", ["sauna", "kitchen"], None, "ann")
    state.complete([result(claim)])
    assert fields(migrated)["room_types"] == ["kitchen", "sauna"]


def test_an_override_committed_while_a_completion_waits_is_not_lost(
    migrated: Portal, state: Listings
) -> None:
    add(migrated, "a")
    completing = Thread(target=state.complete, args=([result(claim_one(state))],))
    with migrated.engine.begin() as connection:  # an override, stopped in the middle
        connection.exec_driver_sql("SELECT id FROM enrichment.listing WHERE id = 'a' FOR NO KEY UPDATE")
        completing.start()
        wait_for_lock(migrated, completing)
        connection.exec_driver_sql(
            "INSERT INTO enrichment.override (listing_id, field, value) VALUES ('a', 'has_balcony', 'false')"
        )
    completing.join()
    assert fields(migrated)["has_balcony"] is False


def test_a_completion_committed_while_an_override_waits_is_not_lost(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    state.complete([result(claim_one(state))])
    overriding = Thread(target=overrides.set_override, args=("a", "has_balcony", False, None, "ann"))
    with migrated.engine.begin() as connection:  # a completion, stopped in the middle
        connection.exec_driver_sql(
            "UPDATE enrichment.listing SET model_attributes = "
            "jsonb_set(model_attributes, '{fields,balcony_confidence}', '0.25')"
        )
        overriding.start()
        wait_for_lock(migrated, overriding)
    overriding.join()
    assert fields(migrated) == {"has_balcony": False, "balcony_confidence": 0.0, "room_types": ["kitchen"]}
    assert migrated.state("a").attributes["evidence"]["balcony"]["model_confidence"] == 0.25


def test_a_cleared_override_gives_the_model_its_say_back(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    state.complete([result(claim_one(state))])
    as_found = migrated.state("a").attributes
    overrides.set_override("a", "has_balcony", False, None, "ann")
    before = migrated.state("a").revision
    assert overrides.clear_override("a", "has_balcony")
    assert migrated.state("a").attributes == as_found
    assert migrated.state("a").revision > before
    assert not overrides.clear_override("a", "has_balcony")


@pytest.mark.parametrize(("value", "confidence"), [(True, 1.0), (False, 0.0), (None, None)])
def test_what_a_person_said_is_the_confidence_too(
    migrated: Portal, state: Listings, overrides: Overrides, value: bool | None, confidence: float | None
) -> None:
    add(migrated, "a")
    state.complete([result(claim_one(state), balcony_confidence=0.99)])
    overrides.set_override("a", "has_balcony", value, None, "ann")
    said = {"has_balcony": value, "balcony_confidence": confidence}
    assert said.items() <= fields(migrated).items()
    evidence = migrated.state("a").attributes["evidence"]["balcony"]
    assert evidence == {"override": True, "model_confidence": 0.99}
    view = "SELECT has_balcony, balcony_confidence FROM enrichment.listing_attributes"
    assert migrated.execute(view) == [(value, confidence)]


def test_where_the_model_saw_no_photo_there_is_no_confidence_of_its_own(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    nothing = {"has_balcony": None, "balcony_confidence": None, "room_types": None}
    state.complete([result(claim_one(state), **nothing)])
    overrides.set_override("a", "has_balcony", True, None, "ann")
    assert fields(migrated)["balcony_confidence"] == 1.0
    assert migrated.state("a").attributes["evidence"]["balcony"] == {"override": True}


def test_the_same_override_twice_is_published_once(
    migrated: Portal, database: Database, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    state.complete([result(claim_one(state))])
    overrides.set_override("a", "has_balcony", False, None, "ann")
    before = migrated.state("a").revision
    overrides.set_override("a", "has_balcony", False, "still", "bob")
    assert migrated.state("a").revision == before
    (kept,) = said(database, "a")
    assert (kept.field, kept.value, kept.note, kept.by) == ("has_balcony", False, "still", "bob")


def test_an_override_of_a_listing_that_is_gone_publishes_nothing(
    migrated: Portal, state: Listings, overrides: Overrides
) -> None:
    add(migrated, "a")
    state.complete([result(claim_one(state))])
    migrated.execute("UPDATE enrichment.listing SET status = 'gone'")
    before = migrated.state("a").revision
    overrides.set_override("a", "has_balcony", False, None, "ann")
    assert (migrated.state("a").revision, fields(migrated)["has_balcony"]) == (before, False)


def test_a_change_tells_what_stood_before_and_is_undone_only_while_it_stands(
    migrated: Portal, database: Database, state: Listings
) -> None:
    add(migrated, "a")
    overrides = Overrides(database)
    earlier, mine = overrides.change("a", "has_balcony", Said("a", "has_balcony", True, "seen", "ann"), "ann")
    assert earlier is None and mine is not None and (mine.value, mine.by) == (True, "ann")
    before, cleared = overrides.change("a", "has_balcony", None, "ben")
    assert (before, cleared) == (mine, None)
    assert overrides.put_back("a", "has_balcony", cleared, before)
    assert overrides.of(["a"])["a"] == [mine]
    overrides.set_override("a", "has_balcony", False, None, "eve")
    assert not overrides.put_back("a", "has_balcony", mine, None)
    assert [one.by for one in overrides.of(["a"])["a"]] == ["eve"]


def test_unknown_and_lists_are_kept_as_said(
    migrated: Portal, database: Database, overrides: Overrides
) -> None:
    add(migrated, "a")
    overrides.set_override("a", "has_balcony", None, None, None)
    overrides.set_override("a", "room_types", [], None, None)
    assert [(o.field, o.value) for o in said(database, "a")] == [
        ("has_balcony", None),
        ("room_types", ()),
    ]


@pytest.mark.parametrize(
    ("id", "field", "value", "message"),
    [
        ("nobody", "has_balcony", True, "no listing 'nobody' is known"),
        ("a", "price", 5, "'price' cannot be overridden"),
        ("a", "has_", True, "'has_' cannot be overridden"),
        ("a", "has_balcony", "yes", "true, false or unknown"),
        ("a", "has_balcony", 1, "true, false or unknown"),
        ("a", "room_types", "kitchen", "list of classes"),
        ("a", "room_types", None, "list of classes"),
    ],
)
def test_what_cannot_be_overridden_is_said(
    migrated: Portal,
    database: Database,
    overrides: Overrides,
    id: str,
    field: str,
    value: Any,
    message: str,
) -> None:
    add(migrated, "a")
    with pytest.raises(UsageError, match=message):
        overrides.set_override(id, field, value, None, "ann")
    assert said(database, id) == []
