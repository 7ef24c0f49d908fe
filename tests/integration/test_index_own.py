"""Mode own on real servers: our index behind the alias, external versions, and what fails how."""

import random
from collections.abc import Iterator, Sequence
from threading import Barrier, Thread
from typing import Any

import pytest
from elasticsearch import Elasticsearch

import enrich.index.elastic.writing as shared
from enrich.errors import IndexSetupError, UsageError
from enrich.index.elastic.own import OwnIndex
from enrich.index.mapping import Extras
from enrich.index.open import connect
from enrich.index.protocol import Column, Facets, IndexLost, IndexUnavailable, Query
from enrich.model.head import Head
from enrich.records import DocumentWrite, WriteStatus
from enrich.settings import Settings, load_settings
from tests.support.elasticsearch import client_of, reached
from tests.support.index import COPIED, FACETS, FILTERS, HEADS, HOMES, heads_with, put, statuses, take
from tests.support.proxy import Answer, Proxy, Request
from tests.support.search_server import ElasticsearchServer

DONE, OUTDATED, REFUSED, RETRY = (
    WriteStatus.DONE,
    WriteStatus.OUTDATED,
    WriteStatus.REFUSED,
    WriteStatus.RETRY,
)


def own(url: str, alias: str, heads: Sequence[Head] = HEADS, copied: dict[str, str] = COPIED) -> OwnIndex:
    return OwnIndex(reached(url), alias, heads, copied)


@pytest.fixture
def client(elasticsearch_url: str) -> Iterator[Elasticsearch]:
    with client_of(elasticsearch_url) as client:
        yield client


@pytest.fixture
def index(elasticsearch_url: str, index_name: str) -> Iterator[OwnIndex]:
    index = own(elasticsearch_url, index_name)
    index.prepare()
    yield index
    index.close()


# What holds on every server version


def test_prepare_makes_a_strict_index_behind_the_alias(each_server: str, index_name: str) -> None:
    index = own(each_server, index_name)
    with client_of(each_server) as client:
        assert "will be created" in index.check()[0]
        assert not client.indices.exists(index=index_name)
        identity = index.prepare()
        ((name, found),) = client.indices.get(index=index_name).items()
        assert name.startswith(f"{index_name}-")
        assert found["mappings"]["dynamic"] == "strict"
        assert found["settings"]["index"]["gc_deletes"] == "1d"
        assert found["settings"]["index"]["uuid"] == identity == index.prepare()
        client.indices.delete(index=name)
        assert index.prepare() != identity


def test_an_index_as_it_was_made_contradicts_nothing(each_server: str, index_name: str) -> None:
    types = ("keyword", "long", "double", "boolean", "date", "geo_point")
    index = own(each_server, index_name, copied={f"of_{es_type}": es_type for es_type in types})
    identity = index.prepare()
    assert len(index.check()) == 1 and index.prepare() == identity


def test_the_higher_revision_wins_and_a_repeated_write_is_done(each_server: str, index_name: str) -> None:
    index = own(each_server, index_name)
    index.prepare()
    assert statuses(index.write([put("1", 5, price=1), put("2", 5), take("3", 5)])) == [DONE] * 3
    with client_of(each_server) as client:
        written = client.get(index=index_name, id="1").body
        assert statuses(index.write([put("1", 5, price=1), put("2", 6), take("3", 5)])) == [DONE] * 3
        assert client.get(index=index_name, id="1").body == written
    late, ahead = index.write([put("1", 4, price=9), take("2", 5)])
    assert (late.status, late.index_revision) == (OUTDATED, 5)
    assert (ahead.status, ahead.index_revision) == (OUTDATED, 6)
    with client_of(each_server) as client:
        assert client.get(index=index_name, id="1")["_source"]["price"] == 1
        assert client.get(index=index_name, id="1")["_version"] == 5


def test_a_removed_document_comes_back_only_at_a_higher_revision(each_server: str, index_name: str) -> None:
    index = own(each_server, index_name)
    index.prepare()
    index.write([put("1", 5)])
    assert statuses(index.write([take("1", 8)])) == [DONE]
    (late,) = index.write([put("1", 7)])
    assert (late.status, late.index_revision) == (OUTDATED, 8)
    assert statuses(index.write([take("1", 8)])) == [DONE]  # its answer was lost, say
    assert statuses(index.write([put("1", 9)])) == [DONE]


def test_one_refused_document_does_not_hold_up_the_others(each_server: str, index_name: str) -> None:
    index = own(each_server, index_name)
    index.prepare()
    results = index.write(
        [put("1", 5), put("2", 5, price="dear"), put("3", 5, sauna=True), put("4", 5, price=float("nan"))]
    )
    assert statuses(results) == [DONE, REFUSED, REFUSED, REFUSED]
    assert "price" in (results[1].error or "")
    assert "sauna" in (results[2].error or "")
    assert "JSON" in (results[3].error or "")


@pytest.mark.parametrize("write", [put("1", 5), take("1", 5)])
def test_without_its_alias_nothing_is_written_and_no_index_appears(
    each_server: str, index_name: str, write: DocumentWrite
) -> None:
    index = own(each_server, index_name)
    index.prepare()
    with client_of(each_server) as client:
        (name,) = client.indices.get(index=index_name)
        client.indices.delete(index=name)
        with pytest.raises(IndexLost):
            index.write([write])
        assert not client.indices.exists(index=index_name)
    index.prepare()
    assert statuses(index.write([write])) == [DONE]


def test_an_alias_that_goes_while_a_delete_is_under_way_is_not_blocked(
    elasticsearch_proxy: Proxy, client: Elasticsearch, index_name: str
) -> None:
    index = own(elasticsearch_proxy.url, index_name)
    identity = index.prepare()
    (name,) = client.indices.get(index=index_name)
    elasticsearch_proxy.before("_bulk", lambda: client.indices.delete(index=name))
    index.write([take("1", 5)])
    elasticsearch_proxy.clear()
    assert not client.indices.exists(index=index_name)
    assert index.prepare() != identity


def test_processes_that_start_at_once_make_one_index(each_server: str, index_name: str) -> None:
    barrier = Barrier(6)
    identities: list[str] = []

    def start() -> None:
        index = own(each_server, index_name)
        barrier.wait()
        identities.append(index.prepare())

    threads = [Thread(target=start) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(identities) == barrier.parties
    assert len(set(identities)) == 1
    with client_of(each_server) as client:
        assert len(client.indices.get(index=f"{index_name}*")) == 1


def test_what_only_some_shards_answer_is_no_answer(each_server: str, index_name: str) -> None:
    index, most = own(each_server, index_name), "index.routing.allocation.total_shards_per_node"
    asked = (index.check, lambda: index.search(Query()), lambda: index.facets(Query()))
    with client_of(each_server) as client:
        client.indices.create(
            index=f"{index_name}-0",
            aliases={index_name: {}},
            settings={"number_of_shards": 2, "number_of_replicas": 0, most: 1},
            wait_for_active_shards=0,
        )
        index.prepare()
        client.cluster.health(index=index_name, wait_for_active_shards=1)
        for ask in asked:
            with pytest.raises(IndexUnavailable):
                ask()
        client.indices.put_settings(index=index_name, settings={most: None})
        client.cluster.health(index=index_name, wait_for_active_shards=2)
        index.write([put(str(number), 5) for number in range(9)])
        client.indices.refresh(index=index_name)
    assert index.search(Query()).total == 9 and "with 9 documents" in index.check()[0]


def test_a_page_of_ids_that_only_some_shards_answer_is_no_page(
    elasticsearch_proxy: Proxy, index_name: str
) -> None:
    index = own(elasticsearch_proxy.url, index_name)
    index.prepare()
    some = {"pit_id": "x", "_shards": {"total": 2, "successful": 1}, "hits": {"hits": []}}
    elasticsearch_proxy.answer = lambda request: Answer(200, some) if request.path == "/_search" else None
    with pytest.raises(IndexUnavailable, match="for 1 of 2 shards"):
        list(index.ids())


# Setting up


def test_a_concrete_index_of_the_alias_s_name_is_refused(
    elasticsearch_url: str, client: Elasticsearch, index_name: str
) -> None:
    client.indices.create(index=index_name)
    index = own(elasticsearch_url, index_name)
    for step in (index.prepare, index.check):
        with pytest.raises(
            IndexSetupError, match=f"{index_name} is an index, but ENRICH_INDEX names an alias"
        ):
            step()


def test_an_alias_of_several_indices_is_refused(
    index: OwnIndex, client: Elasticsearch, index_name: str
) -> None:
    client.indices.create(index=f"{index_name}-2", aliases={index_name: {}})
    for step in (index.prepare, index.check):
        with pytest.raises(IndexSetupError, match="several indices"):
            step()
    client.indices.delete(index=f"{index_name}-2")
    index.prepare()


def test_the_portal_s_own_index_behind_the_alias_is_never_written_to(
    elasticsearch_url: str, client: Elasticsearch, index_name: str
) -> None:
    mappings = {"properties": {"title": {"type": "text"}}}
    client.indices.create(index=f"{index_name}-2024", aliases={index_name: {}}, mappings=mappings)
    index = own(elasticsearch_url, index_name)
    for step in (index.prepare, index.check):
        with pytest.raises(IndexSetupError, match="ENRICH_INDEX_MODE=merge"):
            step()
    assert client.indices.get_mapping(index=index_name)[f"{index_name}-2024"]["mappings"] == mappings


def test_an_empty_index_behind_the_alias_is_taken_over(
    elasticsearch_url: str, client: Elasticsearch, index_name: str
) -> None:
    client.indices.create(index=f"{index_name}-restored", aliases={index_name: {}})
    index = own(elasticsearch_url, index_name)
    index.prepare()
    found = client.indices.get(index=index_name)[f"{index_name}-restored"]
    assert found["mappings"]["dynamic"] == "strict"
    assert found["settings"]["index"]["gc_deletes"] == "1d"
    index.prepare()
    assert statuses(index.write([put("1", 5, price=1)])) == [DONE]


def test_a_new_head_and_a_new_column_add_their_fields(
    index: OwnIndex, elasticsearch_url: str, client: Elasticsearch, index_name: str
) -> None:
    wider = own(elasticsearch_url, index_name, (*HEADS, Head("pool", "binary")), {**COPIED, "floor": "long"})
    assert "floor, has_pool, pool_confidence" in wider.check()[-1]
    assert statuses(index.write([put("1", 5, has_pool=True)])) == [REFUSED]
    assert wider.prepare() == index.prepare()
    assert statuses(wider.write([put("1", 6, has_pool=True, floor=3)])) == [DONE]
    (found,) = client.indices.get_mapping(index=index_name).values()
    assert found["mappings"]["dynamic"] == "strict"


def test_a_column_that_changed_its_type_is_refused_with_what_to_do(
    index: OwnIndex, elasticsearch_url: str, index_name: str
) -> None:
    other = own(elasticsearch_url, index_name, copied={**COPIED, "price": "keyword"})
    for step in (other.prepare, other.check):
        with pytest.raises(
            IndexSetupError, match=r"price is of type long, keyword is needed.*enrich reindex"
        ):
            step()


def test_check_writes_nothing(elasticsearch_proxy: Proxy, index: OwnIndex, index_name: str) -> None:
    own(elasticsearch_proxy.url, index_name, (*HEADS, Head("pool", "binary"))).check()
    own(elasticsearch_proxy.url, f"{index_name}x").check()
    for request in elasticsearch_proxy.requests:
        assert request.method == "GET" or request.path.endswith(("_count", "_has_privileges"))


# Failing


def test_a_blocked_or_closed_index_is_tried_again(
    index: OwnIndex, client: Elasticsearch, index_name: str
) -> None:
    client.indices.put_settings(index=index_name, settings={"index.blocks.write": True})
    assert statuses(index.write([put("1", 5), take("2", 5)])) == [RETRY, RETRY]
    client.indices.put_settings(index=index_name, settings={"index.blocks.write": None})
    client.indices.close(index=index_name)
    assert statuses(index.write([put("1", 5)])) == [RETRY]
    client.indices.open(index=index_name)
    client.cluster.health(index=index_name, wait_for_status="yellow")
    assert statuses(index.write([put("1", 5), take("2", 5)])) == [DONE, DONE]


def test_whatever_the_order_of_arrival_the_last_revision_stays(
    index: OwnIndex, client: Elasticsearch, index_name: str
) -> None:
    order = random.Random(7).sample(range(1, 21), 20)
    for revision in order:
        (result,) = index.write(
            [take("1", revision) if revision % 3 == 0 else put("1", revision, price=revision)]
        )
        assert result.status in (DONE, OUTDATED)
    assert client.get(index=index_name, id="1")["_source"]["price"] == 20


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_server_is_unavailable_and_nothing_is_lost(
    elasticsearch_proxy: Proxy, index_name: str, status: int
) -> None:
    index = own(elasticsearch_proxy.url, index_name)
    index.prepare()
    elasticsearch_proxy.always(status)
    before = len(elasticsearch_proxy.requests)
    for call in (index.prepare, lambda: index.write([put("1", 5)]), lambda: index.search(Query())):
        with pytest.raises(IndexUnavailable, match=str(status)):
            call()
    assert len(elasticsearch_proxy.requests) == before + 3  # the client repeats nothing behind our back
    elasticsearch_proxy.clear()
    assert statuses(index.write([put("1", 5)])) == [DONE]


def test_an_item_that_is_put_off_is_told_from_the_others(elasticsearch_proxy: Proxy, index_name: str) -> None:
    index = own(elasticsearch_proxy.url, index_name)
    index.prepare()
    full = {"type": "es_rejected_execution_exception", "reason": "queue full"}
    items = [{"index": {"status": 201}}, {"index": {"status": 429, "error": full}}]
    elasticsearch_proxy.always(200, {"errors": True, "items": items})
    results = index.write([put("1", 5), put("2", 5)])
    assert statuses(results) == [DONE, RETRY]
    assert results[1].error == "queue full"


def test_a_stopped_server_is_unavailable_and_keeps_what_was_written(
    elasticsearch_server: ElasticsearchServer, index_name: str
) -> None:
    index = own(elasticsearch_server.url, index_name)
    identity = index.prepare()
    index.write([put("1", 5)])
    elasticsearch_server.stop()
    with pytest.raises(IndexUnavailable, match="no connection"):
        index.write([put("2", 5)])
    with pytest.raises(IndexUnavailable):
        index.prepare()
    elasticsearch_server.start()
    assert index.prepare() == identity
    assert statuses(index.write([put("1", 5), put("2", 5)])) == [DONE, DONE]


def test_requests_stay_below_their_size(
    elasticsearch_proxy: Proxy, index_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "BULK_BYTES", 10_000)
    index = own(elasticsearch_proxy.url, index_name)
    index.prepare()
    assert statuses(index.write([put(str(n), 5, city="x" * 900) for n in range(40)])) == [DONE] * 40
    sizes = [len(request.body) for request in elasticsearch_proxy.sent("_bulk")]
    assert 4 <= len(sizes) <= 6
    assert max(sizes) <= 10_100


def test_a_request_that_a_proxy_finds_too_large_is_halved(
    elasticsearch_proxy: Proxy, index_name: str
) -> None:
    index = own(elasticsearch_proxy.url, index_name)
    index.prepare()

    def limited(request: Request) -> Answer | None:
        return Answer(413, headers={"Content-Type": "text/html"}) if len(request.body) > 3_000 else None

    elasticsearch_proxy.answer = limited
    results = index.write([put("1", 5), put("2", 5, city="x" * 4_000), *(put(f"n{n}", 5) for n in range(60))])
    assert [result.id for result in results if result.status is not DONE] == ["2"]
    assert "too large" in (results[1].error or "")


# Connecting


def settings(url: str, **more: Any) -> Settings:
    return load_settings(elasticsearch_url=url, _env_file=None, **more)


def opened(url: str, **more: Any) -> OwnIndex:
    return OwnIndex(connect(settings(url, **more)), "homes", HEADS, COPIED)


def test_connect_works_with_every_version(each_server: str, index_name: str) -> None:
    assert OwnIndex(reached(each_server), index_name, HEADS, COPIED).check()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:9200", "write https://host:9200"),
        ("ftp://localhost:9200", "write https://host:9200"),
        ("http://user:s3cret@localhost:99999", "write https://host:9200"),
        ("nonsense", "write https://host:9200"),
        ("https://user:s3cret@search..example:9200", "write https://host:9200"),
    ],
)
def test_a_wrong_url_is_one_clear_line_without_the_password(url: str, words: str) -> None:
    with pytest.raises(IndexSetupError) as failed:
        connect(settings(url))
    message = str(failed.value)
    assert words in message
    assert "\n" not in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", "no connection to http://127.0.0.1:9: Connection refused"),
        ("https://user:s3cret@127.0.0.1:9", "no connection to https://127.0.0.1:9: Connection refused"),
        ("http://no-such-host.invalid:9200", "no connection to http://no-such-host.invalid:9200: "),
    ],
)
def test_a_server_that_is_not_there_may_come_and_is_no_wrong_setting(url: str, words: str) -> None:
    index = opened(url)
    for step in (index.check, index.prepare, lambda: index.search(Query())):
        with pytest.raises(IndexUnavailable, match=words) as failed:
            step()
        assert "s3cret" not in str(failed.value) and "\n" not in str(failed.value)
    index.close()


@pytest.mark.parametrize("status", [200, 404])
def test_something_else_than_elasticsearch_is_named_so(elasticsearch_proxy: Proxy, status: int) -> None:
    elasticsearch_proxy.always(status, {"hello": "world"}, headers={"Content-Type": "application/json"})
    index = opened(elasticsearch_proxy.url)
    for step in (index.check, index.prepare, lambda: index.search(Query())):
        with pytest.raises(IndexSetupError, match="is not Elasticsearch"):
            step()


def test_https_to_a_server_without_it_says_so(elasticsearch_proxy: Proxy) -> None:
    with pytest.raises(IndexSetupError, match="TLS connection fails"):
        opened(elasticsearch_proxy.url.replace("http:", "https:")).check()


@pytest.mark.parametrize(
    ("status", "words"), [(401, "does not accept the credentials"), (403, "docs/index.md for the privileges")]
)
def test_refused_credentials_are_one_clear_line(elasticsearch_proxy: Proxy, status: int, words: str) -> None:
    elasticsearch_proxy.always(status)
    with pytest.raises(IndexSetupError, match=words) as failed:
        opened(elasticsearch_proxy.url, elasticsearch_api_key="c2VjcmV0OnNlY3JldA==").check()
    assert "c2VjcmV0" not in str(failed.value)


def test_a_busy_server_is_no_setup_error(elasticsearch_proxy: Proxy) -> None:
    elasticsearch_proxy.always(503)
    index = opened(elasticsearch_proxy.url)
    assert elasticsearch_proxy.requests == [], "it connects when it is used first"
    with pytest.raises(IndexUnavailable, match="503"):
        index.check()
    assert len(elasticsearch_proxy.requests) == 1  # waiting and repeating is the caller's


def test_a_missing_ca_file_is_named() -> None:
    with pytest.raises(IndexSetupError, match=r"/no/such/ca\.pem cannot be read: No such file"):
        connect(settings("https://localhost:9200", elasticsearch_ca="/no/such/ca.pem"))


def test_check_names_the_privileges_that_are_lacking(
    elasticsearch_proxy: Proxy, index: OwnIndex, index_name: str
) -> None:
    granted = {index_name: {"read": True, "write": False, "manage": True}}

    def secured(request: Request) -> Answer | None:
        return Answer(200, {"index": granted}) if "_has_privileges" in request.path else None

    elasticsearch_proxy.answer = secured
    with pytest.raises(IndexSetupError, match=f"lack write on {index_name}: grant read, write and manage"):
        own(elasticsearch_proxy.url, index_name).check()


def test_forbidden_writing_is_a_setup_error_and_not_a_refused_document(
    elasticsearch_proxy: Proxy, index_name: str
) -> None:
    index = own(elasticsearch_proxy.url, index_name)
    index.prepare()
    denied = {"type": "security_exception", "reason": "action [indices:data/write] is unauthorized"}
    item = {"index": {"status": 403, "error": denied}}
    elasticsearch_proxy.always(200, {"errors": True, "items": [item]})
    with pytest.raises(IndexSetupError, match="unauthorized"):
        index.write([put("1", 5)])


# Searching


@pytest.fixture
def homes(index: OwnIndex, client: Elasticsearch, index_name: str) -> OwnIndex:
    index.write(HOMES)
    client.indices.refresh(index=index_name)
    return index


@pytest.mark.parametrize(("query", "ids"), FILTERS)
def test_search_answers_a_buyer_s_filter_most_confident_first(
    homes: OwnIndex, query: Query, ids: str
) -> None:
    hits = homes.search(query)
    assert "".join(document["listing_id"] for document in hits.documents) == ids
    assert hits.total == len(ids)


@pytest.mark.parametrize(("query", "expected"), FACETS)
def test_facets_count_what_each_filter_would_leave(homes: OwnIndex, query: Query, expected: Facets) -> None:
    found = homes.facets(query)
    assert found == expected
    assert [list(counts) for counts in found.types.values()] == [list(c) for c in expected.types.values()]


def test_all_classes_of_a_head_are_counted_and_columns_on_all_shards(
    elasticsearch_url: str, index_name: str
) -> None:
    rooms, shards = [f"room{number:02}" for number in range(40)], Extras(settings={"number_of_shards": "5"})
    index = OwnIndex(reached(elasticsearch_url), index_name, heads_with(*rooms), COPIED, shards)
    index.prepare()
    index.write([put(str(n), 5, room_types=rooms, city=f"c{n % 200:03}") for n in range(600)])
    with client_of(elasticsearch_url) as client:
        client.indices.refresh(index=index_name)
    found = index.facets(Query())
    assert found.types["room"] == dict.fromkeys(rooms, 600)
    assert found.columns["city"].counts == {f"c{n:03}": 3 for n in range(30)}


def test_columns_whatever_they_are_called_are_counted(elasticsearch_url: str, index_name: str) -> None:
    index = own(elasticsearch_url, index_name, copied={"area [m2]": "long", "near>far": "keyword"})
    index.prepare()
    index.write([put("1", 5, **{"area [m2]": 70, "near>far": "north"})])
    with client_of(elasticsearch_url) as client:
        client.indices.refresh(index=index_name)
    assert index.facets(Query(where={"area [m2]": "70"})).columns == {
        "area [m2]": Column("number", {}, 70, 70),
        "near>far": Column("keyword", {"north": 1}),
    }


def test_a_page_of_hits_goes_on_where_the_last_one_ended(homes: OwnIndex) -> None:
    pages = [homes.search(Query(sort="balcony", limit=2, offset=offset)).documents for offset in (0, 2, 4)]
    assert ["".join(str(one["listing_id"]) for one in page) for page in pages] == ["bd", "ae", "c"]


def test_the_body_that_a_search_tells_finds_the_same_at_elasticsearch(
    homes: OwnIndex, client: Elasticsearch, index_name: str
) -> None:
    query = Query(has=("balcony",), between={"price": (3, None)}, limit=1, offset=1)
    hits = homes.search(query)
    answer = client.perform_request(
        "POST",
        f"/{index_name}/_search",
        headers={"content-type": "application/json", "accept": "application/json"},
        body=hits.body,
    ).body
    assert answer["hits"]["total"]["value"] == hits.total == 2
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == [one["listing_id"] for one in hits.documents]


def test_search_counts_beyond_what_it_shows_and_shows_whole_documents(homes: OwnIndex) -> None:
    hits = homes.search(Query(has=("balcony",), limit=1))
    assert hits.total == 3
    assert hits.documents == (
        {
            "listing_id": "b",
            "has_balcony": True,
            "balcony_confidence": 0.9,
            "room_types": ["kitchen", "bathroom"],
            "price": 4,
        },
    )


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(has=("sauna",)), "no attribute 'sauna'"),
        (Query(where={"town": "Solna"}), "no field 'town'; there is: balcony_confidence, city"),
        (Query(where={"evidence": "x"}), "no field 'evidence'"),
        (Query(where={"price": "cheap"}), "the index cannot answer this"),
        (Query(lacks=("sauna",)), "no attribute 'sauna'"),
        (Query(between={"town": (1, 2)}), "no field 'town'"),
        (Query(sort="room"), "nothing is sorted by 'room'; there is: balcony, fireplace"),
        (Query(offset=9_990), "between 0 and 10000 hits can be shown, not 20 after 9990"),
    ],
)
def test_search_by_what_is_not_there_is_a_usage_error(homes: OwnIndex, query: Query, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        homes.search(query)


def test_search_without_an_index_says_how_to_make_one(elasticsearch_url: str, index_name: str) -> None:
    with pytest.raises(IndexSetupError, match="enrich run"):
        own(elasticsearch_url, index_name).search(Query())
