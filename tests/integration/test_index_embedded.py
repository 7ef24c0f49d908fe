"""The embedded index keeps the promises of mode own: versions with tombstones, and the same search."""

import random
from threading import Thread
from typing import Any

import pytest

from enrich.errors import UsageError
from enrich.index.document import build
from enrich.index.elastic.merge import MergeIndex
from enrich.index.elastic.own import OwnIndex
from enrich.index.embedded import EmbeddedIndex
from enrich.index.open import connect, open_index
from enrich.index.protocol import Column, Facets, Query
from enrich.records import DocumentWrite, WriteResult, WriteStatus
from enrich.settings import load_settings
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.outbox import Outbox
from enrich.state.overrides import Overrides
from tests.support.enriched import add, enriched
from tests.support.index import COPIED, FACETS, FILTERS, HEADS, HOMES, put, statuses, take
from tests.support.postgres import Portal

DONE, OUTDATED = WriteStatus.DONE, WriteStatus.OUTDATED


@pytest.fixture
def index(database: Database) -> EmbeddedIndex:
    index = EmbeddedIndex(database, "homes", HEADS, COPIED)
    index.prepare()
    return index


def ids(index: EmbeddedIndex, query: Query) -> str:
    hits = index.search(query)
    assert hits.total == len(hits.documents)
    return "".join(document["listing_id"] for document in hits.documents)


def test_the_higher_revision_wins_and_a_repeated_write_is_done(index: EmbeddedIndex) -> None:
    assert statuses(index.write([put("1", 5, price=1), put("2", 5), take("3", 5)])) == [DONE] * 3
    assert statuses(index.write([put("1", 5, price=1), put("2", 6), take("3", 5)])) == [DONE] * 3
    late, ahead = index.write([put("1", 4, price=9), take("2", 5)])
    assert (late.status, late.index_revision) == (OUTDATED, 5)
    assert (ahead.status, ahead.index_revision) == (OUTDATED, 6)
    assert index.search(Query(where={"listing_id": "1"})).documents == ({"listing_id": "1", "price": 1},)


def test_values_of_before_a_column_changed_its_type_are_no_numbers(index: EmbeddedIndex) -> None:
    """Those that no discovery has read anew, or whose removal is withheld."""
    index.write([put("1", 5, price="about 7"), put("2", 5, price=["8", 9, [10.5]]), put("3", 5)])
    assert index.facets(Query()).columns["price"] == Column("number", {}, 9, 10.5)
    assert ids(index, Query(between={"price": (1, None)})) == "2"
    assert ids(index, Query(between={"price": (None, 99)}, where={"price": "9"})) == "2"
    index.write([put("2", 6, price="8", furnished="yes", listed_on=5, city=7)])
    columns = index.facets(Query()).columns
    for name, kind in {"price": "number", "furnished": "boolean", "city": "keyword"}.items():
        assert columns[name] == Column(kind)
    assert (
        ids(index, Query(where={"listed_on": "2026"})) == ids(index, Query(where={"furnished": "true"})) == ""
    )


def test_a_removed_document_comes_back_only_at_a_higher_revision(index: EmbeddedIndex) -> None:
    index.write([put("1", 5)])
    taken = index.write([take("1", 8), take("2", 8)])
    assert [(result.status, result.absent) for result in taken] == [(DONE, False), (DONE, True)]
    assert ids(index, Query()) == ""
    (late,) = index.write([put("1", 7)])
    assert (late.status, late.index_revision) == (OUTDATED, 8)
    assert statuses(index.write([put("1", 9)])) == [DONE]
    assert ids(index, Query()) == "1"


def test_what_json_cannot_hold_is_refused_and_does_not_hold_up_the_others(index: EmbeddedIndex) -> None:
    results = index.write([put("1", 5, price=float("nan")), put("2", 5)])
    assert statuses(results) == [WriteStatus.REFUSED, DONE]


def test_aliases_are_apart(database: Database, index: EmbeddedIndex) -> None:
    other = EmbeddedIndex(database, "other", HEADS, COPIED)
    assert other.prepare() != index.prepare()
    index.write([put("1", 5)])
    assert other.search(Query()).total == 0
    assert statuses(other.write([put("1", 3)])) == [DONE]
    assert "homes with 1 documents" in index.check()[0]


def test_writers_side_by_side_end_with_the_last_revision(index: EmbeddedIndex) -> None:
    results: list[WriteResult] = []

    def work(seed: int) -> None:
        shuffled = random.Random(seed)
        for revision in shuffled.sample(range(1, 31), 30):
            names = shuffled.sample("abcdef", 6)
            results.extend(index.write([put(name, revision, price=revision) for name in names]))

    threads = [Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 * 30 * 6
    assert {document["price"] for document in index.search(Query()).documents} == {30}


@pytest.fixture
def homes(index: EmbeddedIndex) -> EmbeddedIndex:
    index.write(HOMES)
    return index


@pytest.mark.parametrize(
    ("query", "found"),
    [
        *FILTERS,
        *((Query(where={"city": none}), "") for none in ("Sol\0na", "Solna\udcff")),  # Postgres holds neither
        (Query(where={"price": "9" * 400}), ""),
    ],
)
def test_search_answers_a_buyer_s_filter_most_confident_first(
    homes: EmbeddedIndex, query: Query, found: str
) -> None:
    assert ids(homes, query) == found


@pytest.mark.parametrize(("query", "expected"), FACETS)
def test_facets_count_what_each_filter_would_leave(
    homes: EmbeddedIndex, query: Query, expected: Facets
) -> None:
    found = homes.facets(query)
    assert found == expected
    assert [list(counts) for counts in found.types.values()] == [list(c) for c in expected.types.values()]


def test_arrays_of_arrays_are_counted_by_what_they_hold(index: EmbeddedIndex) -> None:
    index.write([put("1", 5, price=[[3, 4], [5, 3]], tags=[["x"], ["y"]])])
    columns = index.facets(Query()).columns
    assert columns["price"] == Column("number", {}, 3, 5)
    assert columns["tags"] == Column("keyword", {"x": 1, "y": 1})
    assert ids(index, Query(where={"price": "4", "tags": "y"})) == "1"


def test_a_page_of_hits_goes_on_where_the_last_one_ended(homes: EmbeddedIndex) -> None:
    pages = [homes.search(Query(sort="balcony", limit=2, offset=offset)).documents for offset in (0, 2, 4)]
    assert ["".join(str(one["listing_id"]) for one in page) for page in pages] == ["bd", "ae", "c"]


def test_search_counts_beyond_what_it_shows(homes: EmbeddedIndex) -> None:
    hits = homes.search(Query(has=("balcony",), limit=1))
    assert hits.total == 3
    assert [document["listing_id"] for document in hits.documents] == ["b"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(has=("sauna",)), "no attribute 'sauna'"),
        (Query(where={"town": "Solna"}), "no field 'town'; there is: city, furnished"),
        (Query(between={"city": (1, 2)}), "city is no number"),
        (Query(where={"price": "cheap"}), "price is of type long: 'cheap' is not"),
        (Query(where={"price": "NaN"}), "price is of type long: 'NaN' is not"),
        (Query(where={"price": "true"}), "price is of type long: 'true' is not"),
        (Query(where={"furnished": "1"}), "furnished is of type boolean: '1' is not"),
        *(
            (Query(where={"listed_on": none}), f"listed_on is of type date: '{none}' is not")
            for none in ("%", "", "202", "2026-03-0", "2026-02-30", "2026-03-01T10:00:00-99:00")
        ),
    ],
)
def test_search_by_what_is_not_there_is_a_usage_error(homes: EmbeddedIndex, query: Query, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        homes.search(query)


def test_settings_choose_the_index(database: Database, elasticsearch_url: str, index_name: str) -> None:
    def opened(**settings: Any) -> object:
        values = load_settings(_env_file=None, index=index_name, **settings)
        index = open_index(values, database, HEADS, COPIED)
        index.close()
        return type(index)

    assert opened(elasticsearch_url=None) is EmbeddedIndex
    assert opened(elasticsearch_url=elasticsearch_url) is OwnIndex
    assert opened(elasticsearch_url=elasticsearch_url, index_mode="merge") is MergeIndex
    connect(load_settings(_env_file=None, elasticsearch_url=elasticsearch_url)).close()


def test_what_a_person_denied_is_not_found_by_a_stricter_confidence(
    index: EmbeddedIndex, migrated: Portal, database: Database, state: Listings
) -> None:
    for id in ("a", "b"):
        add(migrated, id)
        enriched(state, id, has_balcony=True, balcony_confidence=0.99)
    Overrides(database).set_override("a", "has_balcony", False, None, "ann")
    outbox = Outbox(database)
    outbox.set_target("homes", "own", index.prepare())
    rows = outbox.unpublished(None, 9)
    index.write([DocumentWrite(row.id, row.revision, build(row, HEADS, "own")) for row in rows])
    sure = "SELECT id FROM enrichment.document WHERE (document ->> 'balcony_confidence')::float >= 0.99"
    assert migrated.execute(sure) == [("b",)]
    assert ids(index, Query(("balcony",))) == "b"
