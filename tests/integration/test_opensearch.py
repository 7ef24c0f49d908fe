"""What is OpenSearch's own: how it is recognised, reached and walked through, and how it fails.

What it has in common with Elasticsearch is tested on every server, in `test_index_own.py` and others.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enrich.errors import IndexSetupError, SettingsError
from enrich.index.elastic.own import OwnIndex
from enrich.index.open import connect
from enrich.index.protocol import Facets, IndexUnavailable, Query
from enrich.settings import load_settings
from tests.support.elasticsearch import client_of, reached
from tests.support.index import COPIED, FACETS, FILTERS, HEADS, HOMES, put
from tests.support.proxy import Answer, Proxy
from tests.support.search_server import OPENSEARCH


@pytest.fixture
def url(search_servers: Callable[[str], str]) -> str:
    return search_servers(OPENSEARCH[0])


@pytest.fixture(params=OPENSEARCH)
def each_url(request: pytest.FixtureRequest, search_servers: Callable[[str], str]) -> str:
    return search_servers(request.param)


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    proxy = Proxy(url)
    yield proxy
    proxy.close()


def opened(url: str, alias: str = "homes", **more: Any) -> OwnIndex:
    more = {"index_backend": "opensearch", "elasticsearch_url": url, **more}
    return OwnIndex(connect(load_settings(_env_file=None, **more)), alias, HEADS, COPIED)


def test_neither_is_taken_for_the_other(url: str, elasticsearch_url: str) -> None:
    with pytest.raises(IndexSetupError, match=r"not OpenSearch.*set ENRICH_INDEX_BACKEND=elasticsearch"):
        opened(elasticsearch_url).check()
    with pytest.raises(IndexSetupError, match=r"not Elasticsearch.*set ENRICH_INDEX_BACKEND=opensearch"):
        opened(url, index_backend="elasticsearch").check()


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/plain"])
def test_something_else_is_named_so(proxy: Proxy, status: int, kind: str) -> None:
    proxy.always(status, {"hello": "world"}, headers={"Content-Type": kind})
    index = opened(proxy.url)
    for step in (index.check, index.prepare, lambda: index.search(Query())):
        with pytest.raises(IndexSetupError, match="is not OpenSearch"):
            step()


@pytest.mark.parametrize(
    ("status", "words"), [(401, "does not accept the credentials"), (403, "docs/index.md for the privileges")]
)
def test_refused_credentials_are_one_clear_line(proxy: Proxy, status: int, words: str) -> None:
    proxy.always(status)
    with pytest.raises(IndexSetupError, match=words) as failed:
        opened(proxy.url, elasticsearch_username="ann", elasticsearch_password="s3cret").check()
    assert "s3cret" not in str(failed.value) and "API_KEY" not in str(failed.value)


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://localhost:9200", "http://u:s3cret@localhost:99999"])
def test_a_wrong_url_is_one_clear_line_without_the_password(url: str) -> None:
    with pytest.raises(IndexSetupError, match="write https://host:9200") as failed:
        opened(url)
    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://ann:s3cret@127.0.0.1:9"])
def test_a_server_that_is_not_there_may_come(url: str) -> None:
    with pytest.raises(
        IndexUnavailable, match=r"no connection to https?://127\.0\.0\.1:9: Connection refused"
    ):
        opened(url).check()


def test_https_to_a_server_without_it_says_so(url: str) -> None:
    with pytest.raises(IndexSetupError, match="TLS connection fails"):
        opened(url.replace("http:", "https:")).check()


def test_a_busy_server_is_unavailable_and_asked_once(proxy: Proxy) -> None:
    index = opened(proxy.url)
    assert proxy.requests == [], "it connects when it is used first"
    proxy.always(503)
    with pytest.raises(IndexUnavailable, match="503"):
        index.check()
    assert len(proxy.requests) == 1


def test_what_it_is_is_asked_once(proxy: Proxy) -> None:
    index = opened(proxy.url)
    for _ in range(3):
        index.check()
    assert [request.path for request in proxy.requests].count("/") == 1


def test_credentials_go_along_from_the_settings_and_from_the_url(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    forward = Proxy._forward

    def spying(self: Proxy, handler: Any, request: Any) -> Any:
        seen.append(handler.headers.get("Authorization"))
        return forward(self, handler, request)

    monkeypatch.setattr(Proxy, "_forward", spying)
    opened(proxy.url, elasticsearch_username="ann", elasticsearch_password="p:w").check()
    opened(proxy.url.replace("//", "//ann:p%3Aw@")).check()
    assert set(seen) == {"Basic YW5uOnA6dw=="}


def test_all_ids_come_once_in_pages_and_nothing_is_left_open(
    each_url: str, index_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.index.elastic.reading.PAGE", 10)
    with client_of(each_url) as client:
        client.indices.create(index=f"{index_name}-0", settings={"number_of_shards": 3})
        client.indices.put_alias(index=f"{index_name}-0", name=index_name)
        index = OwnIndex(reached(each_url), index_name, HEADS, COPIED)
        monkeypatch.setattr(index, "_settings", {})
        index.prepare()
        index.write([put(f"h{n}", 5) for n in range(35)])
        pages = iter(index.ids())
        found = list(next(pages))
        index.write([put(f"later{n}", 5) for n in range(9)])
        for page in pages:
            found += page
        assert sorted(found) == sorted(f"h{n}" for n in range(35))
        stats = client.indices.stats(index=index_name)["_all"]["total"]["search"]
        assert stats["scroll_total"] > 0 and stats["scroll_current"] == stats["open_contexts"] == 0
    assert list(OwnIndex(reached(each_url), f"{index_name}-none", HEADS, COPIED).ids()) == []


def test_a_later_page_of_ids_that_only_some_shards_answer_is_no_page(proxy: Proxy, index_name: str) -> None:
    index = opened(proxy.url, index_name)
    index.prepare()
    index.write([put("1", 5)])
    some = {"_scroll_id": "x", "_shards": {"total": 2, "successful": 1}, "hits": {"hits": []}}
    proxy.answer = lambda request: Answer(200, some) if request.path == "/_search/scroll" else None
    with pytest.raises(IndexUnavailable, match="for 1 of 2 shards"):
        list(index.ids())


@pytest.fixture(scope="module")
def homes(search_servers: Callable[[str], str]) -> OwnIndex:
    url = search_servers(OPENSEARCH[0])
    index = OwnIndex(reached(url), "test-filters", HEADS, COPIED)
    index.prepare()
    index.write(HOMES)
    with client_of(url) as client:
        client.indices.refresh(index="test-filters")
    return index


@pytest.mark.parametrize(("query", "expected"), FACETS)
def test_facets_count_as_in_every_index(homes: OwnIndex, query: Query, expected: Facets) -> None:
    assert homes.facets(query) == expected


@pytest.mark.parametrize(("query", "hits"), FILTERS)
def test_search_answers_as_every_index_does(homes: OwnIndex, query: Query, hits: str) -> None:
    found = homes.search(query)
    assert "".join(str(document["listing_id"]) for document in found.documents) == hits
    assert found.total == len(hits)


def test_without_its_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "enrich.index.elastic.opensearch", raising=False)
    monkeypatch.setitem(sys.modules, "opensearchpy", None)
    with pytest.raises(SettingsError, match=r"listing-enrichment\[opensearch\]"):
        opened("http://127.0.0.1:9200")


def test_settings_that_contradict_it_are_refused() -> None:
    with pytest.raises(SettingsError, match="needs ELASTICSEARCH_URL"):
        load_settings(_env_file=None, index_backend="opensearch")
    with pytest.raises(SettingsError, match="takes no ELASTICSEARCH_API_KEY"):
        opened("http://127.0.0.1:9200", elasticsearch_api_key="c2VjcmV0")
