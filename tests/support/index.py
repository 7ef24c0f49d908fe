"""What tests of the search index write and ask: heads, rows, writes, and buyers' filters with their hits."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

from enrich.index.protocol import Column, Facets, Query
from enrich.model.head import Head, HeadClass
from enrich.records import DocumentWrite, WriteResult, WriteStatus


def heads_with(*rooms: str) -> tuple[Head, ...]:
    """Two attributes, and rooms of these types."""
    classes = tuple(HeadClass(name, True, 0.5) for name in rooms)
    other = HeadClass("other", False, 0.5)
    return (
        Head("balcony", "binary"),
        Head("fireplace", "binary"),
        Head("room", "multiclass", (*classes, other)),
    )


HEADS = heads_with("kitchen", "bathroom")
COPIED = {"city": "keyword", "price": "long", "listed_on": "date", "furnished": "boolean", "tags": "keyword"}
BALCONY = {"url": "https://img/1.jpg", "position": 1, "confidence": 0.97}
ATTRIBUTES: dict[str, Any] = {
    "fields": {
        "has_balcony": True,
        "balcony_confidence": 0.98,
        "has_fireplace": None,
        "fireplace_confidence": 0.1,
        "room_types": ["kitchen"],
    },
    "evidence": {"balcony": BALCONY},
    "counts": {"room_counts": {"kitchen": 2}},
    "photo_count": 4,
    "photos_seen": 3,
    "photos_failed": 1,
}


def row(**changes: Any) -> Any:
    """A listing as the outbox reads it."""
    values: dict[str, Any] = {
        "id": "17",
        "revision": 5,
        "bundle_id": "b1",
        "enriched_at": datetime(2026, 3, 1, 3, 30, 0, 123456, timezone(timedelta(hours=1))),
        "columns": {"city": "Solna", "price": 3_500_000, "tags": ["new"], "floor": None},
        "attributes": ATTRIBUTES,
    }
    return SimpleNamespace(**(values | changes))


def put(id: str, revision: int, **fields: Any) -> DocumentWrite:
    return DocumentWrite(id, revision, {"listing_id": id, **fields})


def take(id: str, revision: int) -> DocumentWrite:
    return DocumentWrite(id, revision, None)


def statuses(results: Sequence[WriteResult]) -> list[WriteStatus]:
    return [result.status for result in results]


SURE, BOTH = {"has_balcony": True, "balcony_confidence": 0.9}, ["kitchen", "bathroom"]
# As Postgres has a time, days, a time without a zone, and times with a fraction.
LISTED_ON = [
    *("2026-03-01T10:00:00+00:00", "2026-05-02", "2025-01-01", "9999-12-31", "2024-02-03T04:05:06"),
    *("2023-06-07T08:09:10.5+00:00", "2022-06-08T08:09:10.123456+00:00"),
]
HOMES = (
    put("a", 5, **SURE | {"balcony_confidence": 0.7}, room_types=["kitchen"], city="Solna", price=3),
    put("b", 5, **SURE, room_types=BOTH, price=4),
    put("c", 5, has_balcony=False, balcony_confidence=0.1, room_types=[], city="Solna", price=3),
    put("d", 5, **SURE, has_fireplace=True, fireplace_confidence=0.6),
    put("e", 5, balcony_confidence=0.5, furnished=True, listed_on=LISTED_ON, tags=["x", "y", "x"]),
)
FILTERS = (
    (Query(), "abcde"),
    (Query(has=("balcony",)), "bda"),
    (Query(has=("balcony", "fireplace")), "d"),
    (Query(types={"room": ("kitchen",)}), "ab"),
    (Query(types={"room": ("kitchen", "bathroom")}), "b"),
    (Query(has=("balcony",), types={"room": ("kitchen",)}, where={"city": "Solna"}), "a"),
    (Query(where={"price": "3"}), "ac"),
    (Query(where={"furnished": "true"}), "e"),
    *(
        (Query(where={"listed_on": day}), "e")
        for day in ("2026-03-01", "2026-05-02", "2026-03-01T10:00:00Z", "2026-03-01T11:00+01:00", "2025")
    ),
    *(
        (Query(where={"listed_on": moment}), "e")
        for moment in ("2024-02-03T04:05:06.000Z", "2024-02-03T05:05:06.0+01:00", "2026-03-01T10:00:00.000Z")
    ),
    *((Query(where={"listed_on": day}), "") for day in ("2026-03-01T10:00:00+01:00", "2026-05", "2026")),
    *(  # a day is its first moment, and of a fraction the milliseconds count
        (Query(where={"listed_on": moment}), "e")
        for moment in (
            *("2026-05-02T00:00:00Z", "2026-05-02T02:00+02:00", "2026-05-02T00:00:00.000Z"),
            *("9999-12-31", "9999-12-31T00:00:00.000Z", "2023-06-07T08", "2023-06-07T08:09:10.5Z"),
            *("2022-06-08T08:09:10.123Z", "2022-06-08T10:09:10.123999+02:00", "2022-06-08T08:09:10"),
        )
    ),
    *(
        (Query(where={"listed_on": moment}), "")
        for moment in (
            *(
                "2026-05-02T01Z",
                "2026-05-02T00:00:01Z",
                "2026-05-02T00:00:00.001Z",
                "2023-06-07T08:09:10.000Z",
            ),
            *("2022-06-08T08:09:10.1Z", "2022-06-08T08:09:10.12Z", "2024-02-03T04:05:06.001Z"),
        )
    ),
    (Query(where={"tags": "y"}), "e"),
    (Query(where={"listing_id": "c"}), "c"),
    (Query(lacks=("balcony",)), "c"),
    (Query(unknown=("balcony",)), "e"),
    (Query(unknown=("fireplace",), has=("balcony",)), "ba"),
    (Query(between={"price": (4, None)}), "b"),
    (Query(between={"price": (None, 3)}), "ac"),
    (Query(between={"price": (3, 4)}, where={"city": "Solna"}), "ac"),
    (Query(sort="balcony"), "bdaec"),
    (Query(has=("fireplace",), sort="balcony"), "d"),
    (Query(where={"city": "Nowhere"}), ""),
    (Query(where={"city": "x' OR true --"}), ""),
)
"""What is asked of `HOMES`, and the ids of the hits in their order, in every index."""
FACETS = (
    (
        Query(),
        Facets(
            {"balcony": {True: 3, False: 1, None: 1}, "fireplace": {True: 1, False: 0, None: 4}},
            {"room": {"kitchen": 2, "bathroom": 1}},
            {
                "city": Column("keyword", {"Solna": 2}),
                "price": Column("number", {}, 3, 4),
                "furnished": Column("boolean", {"true": 1}),
                "tags": Column("keyword", {"x": 1, "y": 1}),
            },
        ),
    ),
    (  # each filter's own choice does not count against its other choices; types add up
        Query(has=("balcony",), types={"room": ("kitchen",)}, between={"price": (None, 3)}),
        Facets(
            {"balcony": {True: 1, False: 0, None: 0}, "fireplace": {True: 0, False: 0, None: 1}},
            {"room": {"kitchen": 1}},
            {
                "city": Column("keyword", {"Solna": 1}),
                "price": Column("number", {}, 3, 4),
                "furnished": Column("boolean"),
                "tags": Column("keyword"),
            },
        ),
    ),
)
"""The same for the counts of each filter."""
