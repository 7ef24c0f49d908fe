"""What happened in a time, as `enrich report` tells it: from the first answer in it to the last."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from enrich.state.database import Database
from enrich.state.period import Period, Tally, came, tally
from tests.support.enriched import add
from tests.support.postgres import Portal

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
NIGHT = Period(START, START + timedelta(hours=1))


def change(
    portal: Portal, id: str, field: str, minute: int, before: Any, after: Any, sure: float = 0.9
) -> None:
    at = START + timedelta(minutes=minute)
    first = "NULL" if before is ... else f"'{json.dumps(before)}'"
    portal.execute(
        "INSERT INTO enrichment.history (listing_id, field, at, before, after, confidence, cause) "
        f"VALUES ('{id}', '{field}', '{at:%Y-%m-%d %H:%M}Z', {first}, '{json.dumps(after)}', {sure}, 'model')"
    )


def test_filters_gain_and_lose_by_what_was_before_and_is_after(migrated: Portal, database: Database) -> None:
    change(migrated, "a", "has_balcony", -5, ..., True)  # before that night
    change(migrated, "b", "has_balcony", 1, ..., True, sure=0.8)
    change(migrated, "c", "has_balcony", 1, True, False)
    change(migrated, "d", "has_balcony", 1, None, True, sure=0.95)
    change(migrated, "e", "has_balcony", 1, True, False)  # there and back
    change(migrated, "e", "has_balcony", 2, False, True)
    change(migrated, "f", "has_balcony", 1, ..., True)  # there, and gone again
    change(migrated, "f", "has_balcony", 2, True, None)
    change(migrated, "b", "room_types", 1, ..., ["kitchen", "bathroom"])
    change(migrated, "c", "room_types", 1, ["kitchen", "attic"], ["kitchen"])
    change(migrated, "g", "room_types", 1, [], ["kitchen"])
    change(migrated, "g", "has_balcony", 90, ..., True)  # after that night
    assert tally(database, NIGHT) == [
        Tally("has_balcony", None, 2, 1),
        Tally("room_types", "kitchen", 2, 0),
        Tally("room_types", "bathroom", 1, 0),
        Tally("room_types", "attic", 0, 1),
    ]
    homes, in_all = came(database, NIGHT, 2)
    assert (list(homes), in_all) == (["d", "b"], 3)
    assert [(one.field, one.before, one.after) for one in homes["b"]] == [
        ("has_balcony", None, True),
        ("room_types", None, ["kitchen", "bathroom"]),
    ]
    assert came(database, Period(START - timedelta(days=9), START - timedelta(days=8)), 9) == ({}, 0)


def test_classes_of_a_listing_whose_photos_cannot_be_seen_any_more_are_lost(
    migrated: Portal, database: Database
) -> None:
    change(migrated, "a", "has_balcony", 1, True, None)
    change(migrated, "a", "room_types", 1, ["kitchen", "attic"], None)
    change(migrated, "b", "room_types", 1, None, ["kitchen"])
    assert tally(database, NIGHT) == [
        Tally("has_balcony", None, 0, 1),
        Tally("room_types", "kitchen", 1, 1),
        Tally("room_types", "attic", 0, 1),
    ]
    assert list(came(database, NIGHT, 9)[0]) == ["b"]


def test_what_left_the_portal_since_is_found_by_no_filter(migrated: Portal, database: Database) -> None:
    for id in ("here", "sold"):
        add(migrated, id, status="gone" if id == "sold" else "done")
        change(migrated, id, "has_balcony", 1, ..., True, sure=0.9 if id == "here" else 0.99)
    homes, in_all = came(database, NIGHT, 1)
    assert (list(homes), in_all) == (["here"], 1)
    assert tally(database, NIGHT) == [Tally("has_balcony", None, 1, 0)]
