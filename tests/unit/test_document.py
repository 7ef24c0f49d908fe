"""The document follows from the row and the heads, in both modes, and so does the mapping."""

import pytest

from enrich.errors import UsageError
from enrich.index.document import build, encode, mapping, reserved
from enrich.index.elastic.merge import covering
from enrich.index.elastic.writing import compare, failure
from enrich.index.protocol import Query
from enrich.index.query import conditions
from enrich.model.head import Head
from enrich.records import WriteStatus
from tests.support.index import BALCONY, heads_with, row, take

HEADS = heads_with("kitchen")


def test_own_document_is_whole_and_leaves_out_what_is_unknown() -> None:
    assert build(row(), HEADS, "own") == {
        "listing_id": "17",
        "has_balcony": True,
        "balcony_confidence": 0.98,
        "fireplace_confidence": 0.1,
        "room_types": ["kitchen"],
        "photo_count": 4,
        "enrichment": {
            "bundle": "b1",
            "revision": 5,
            "enriched_at": "2026-03-01T02:30:00.123Z",
            "photos_seen": 3,
            "photos_failed": 1,
        },
        "evidence": {"balcony": BALCONY},
        "room_counts": {"kitchen": 2},
        "city": "Solna",
        "price": 3_500_000,
        "tags": ["new"],
    }


def test_merge_document_names_all_of_our_fields_and_none_of_the_portal_s() -> None:
    document = build(row(), HEADS, "merge")
    assert set(document) == reserved(HEADS)
    assert document["has_fireplace"] is None
    assert document["evidence"] == {"balcony": BALCONY, "fireplace": None, "room": None}


def test_processed_with_nothing_found_is_told_from_not_seen() -> None:
    nothing = {"fields": {"has_balcony": False, "room_types": []}, "photo_count": 9, "photos_seen": 9}
    document = build(row(attributes=nothing), HEADS, "own")
    assert document["room_types"] == []
    assert document["has_balcony"] is False
    assert document["enrichment"]["photos_seen"] == 9
    assert "room_types" not in build(row(attributes={"photo_count": 0, "photos_seen": 0}), HEADS, "own")


def test_fields_of_heads_that_the_bundle_no_longer_has_are_left_out() -> None:
    document = build(row(), HEADS[1:], "own")
    assert "has_balcony" not in document
    assert document["evidence"] == {}


def test_mapping_follows_from_heads_and_copied_columns() -> None:
    found = mapping((*HEADS, Head("pool", "binary")), {"city": "keyword", "price": "long"})
    fields = found["properties"]
    assert found["dynamic"] == "strict"
    assert fields["has_pool"] == {"type": "boolean"}
    assert fields["pool_confidence"] == {"type": "float"}
    assert fields["room_types"] == {"type": "keyword"}
    assert fields["room_counts"] == fields["evidence"] == {"type": "object", "enabled": False}
    assert fields["city"] == {"type": "keyword", "ignore_above": 1024}
    assert fields["price"] == {"type": "long"}
    assert fields["enrichment"]["properties"]["revision"] == {"type": "long"}


def test_every_field_of_a_document_is_mapped() -> None:
    copied = {"city": "keyword", "price": "long", "tags": "keyword", "floor": "long"}
    assert set(build(row(), HEADS, "own")) <= set(mapping(HEADS, copied)["properties"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_refused_and_not_sent(value: object) -> None:
    with pytest.raises(ValueError):
        encode({"price": value})


def test_compare_finds_what_is_missing_and_what_contradicts() -> None:
    expected = mapping(HEADS, {})["properties"]
    actual = {
        "photo_count": {"type": "long"},  # wider: fine
        "has_balcony": {"type": "keyword"},
        "enrichment": {"properties": {"revision": {"type": "long"}, "bundle": {"type": "text"}}},
        "title": {"type": "text"},
    }
    missing, conflicts = compare(expected, actual, any_width=True)
    assert "photo_count" not in missing
    assert "title" not in missing
    assert set(missing["enrichment"]["properties"]) == {"enriched_at", "photos_seen", "photos_failed"}
    assert conflicts == [
        "field has_balcony is of type keyword, boolean is needed",
        "field enrichment.bundle is of type text, keyword is needed",
    ]


def test_covering_nulls_what_a_partial_update_would_leave_standing() -> None:
    old = {"balcony": BALCONY, "pool": {"override": True}}
    assert covering({"balcony": {"override": True}}, old) == {
        "pool": None,
        "balcony": {"override": True, "url": None, "position": None, "confidence": None},
    }
    assert covering(None, old) is None
    assert covering(old, None) == old


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (429, "es_rejected_execution_exception", WriteStatus.RETRY),
        (503, "unavailable_shards_exception", WriteStatus.RETRY),
        (403, "cluster_block_exception", WriteStatus.RETRY),
        (400, "document_parsing_exception", WriteStatus.REFUSED),
    ],
)
def test_a_failed_item_is_passing_or_refused(status: int, kind: str, expected: WriteStatus) -> None:
    assert failure(take("1", 5), status, {"type": kind, "reason": "why"}).status is expected


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(has=("sauna",)), "no attribute 'sauna'; there is: balcony, fireplace"),
        (Query(has=("room",)), "no attribute 'room'"),
        (Query(types={"garden": ("big",)}), "no kind of type 'garden'; there is: room"),
        (Query(types={"room": ("kitchenn",)}), "no room type 'kitchenn'; there is: kitchen"),
        (Query(types={"room": ("other",)}), "no room type 'other'"),
        (Query(where={"town": "Solna"}), "no field 'town'; there is: city, price"),
        (Query(limit=10_001), "between 0 and 10000"),
    ],
)
def test_a_filter_by_an_unknown_name_says_which_names_there_are(query: Query, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        conditions(query, HEADS, ["price", "city"])
