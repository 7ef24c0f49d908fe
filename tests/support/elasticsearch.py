"""A real search server for the tests: `ELASTICSEARCH_URL`, or one of our own from its Maven artifact."""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from elastic_transport import HttpHeaders, Urllib3HttpNode
from elastic_transport._node import NodeApiResponse
from elasticsearch import Elasticsearch

from enrich.index.elastic.server import Server
from enrich.index.open import connect
from enrich.settings import load_settings
from tests.support.proxy import PRODUCT, Proxy
from tests.support.search_server import (
    OPENSEARCH,
    VERSIONS,
    ElasticsearchServer,
    ServerMissing,
    SharedServers,
)
from tests.support.wire import Wire

_SHARED = pytest.StashKey[SharedServers]()
_opensearches: set[str] = set()  # the URLs of those that we started


def backend_of(url: str) -> str:
    """`ENRICH_INDEX_BACKEND` for the server at this URL."""
    return "opensearch" if url in _opensearches else "elasticsearch"


def reached(url: str) -> Server:
    """The server at this URL as the job reaches it."""
    return connect(load_settings(_env_file=None, elasticsearch_url=url, index_backend=backend_of(url)))


class _Compatible(Urllib3HttpNode):
    """Has a test's own client of Elasticsearch speak to OpenSearch, which neither of the two allows."""

    def perform_request(  # type: ignore[override]
        self, method: str, target: str, body: bytes | None = None, headers: Any = None, **more: Any
    ) -> NodeApiResponse:
        plain = {
            name: re.sub("vnd.elasticsearch\\+|; *compatible-with=8", "", headers[name]) for name in headers
        }
        meta, data = super().perform_request(method, target, body=body, headers=plain, **more)
        meta.headers = HttpHeaders({**meta.headers, **PRODUCT})
        return NodeApiResponse(meta, data)


def client_of(url: str, **options: Any) -> Elasticsearch:
    """A client for what a test does and asks by itself, of whichever server."""
    if url in _opensearches:
        options["node_class"] = _Compatible
    return Elasticsearch(url, **options)


@contextmanager
def _had(version: str) -> Iterator[None]:
    """Ends the test where there is no such server."""
    try:
        yield
    except ServerMissing as error:
        message = f"no search server {version}: {error}; or set ELASTICSEARCH_URL to a running one"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def search_servers(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], str]:
    """URLs of running servers by version, which tests in other processes use, too."""
    folder = tmp_path_factory.getbasetemp()
    servers = SharedServers(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)
    request.config.stash[_SHARED] = servers
    urls: dict[str, str] = {}

    def running(version: str) -> str:
        with _had(version):
            if version not in urls:
                urls[version] = servers.url(version)
        if version in OPENSEARCH:
            _opensearches.add(urls[version])
        return urls[version]

    return running


def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last test, whose time is limited: other processes may use our servers for long."""
    if servers := session.config.stash.get(_SHARED, None):
        servers.close()


@pytest.fixture(scope="session")
def elasticsearch_url(search_servers: Callable[[str], str]) -> str:
    """A running server: `ELASTICSEARCH_URL`, or our own of the newest version that we are tested with."""
    return os.environ.get("ELASTICSEARCH_URL") or search_servers(VERSIONS[0])


@pytest.fixture(params=(*VERSIONS, OPENSEARCH[0]))
def each_server(request: pytest.FixtureRequest, search_servers: Callable[[str], str]) -> str:
    """The URL of a server of each kind and version that the job promises to work with."""
    return search_servers(request.param)


@pytest.fixture
def elasticsearch_server() -> Iterator[ElasticsearchServer]:
    """A server of this test's own, to stop and start: that takes half a minute of CPU."""
    with _had(VERSIONS[0]):
        server = ElasticsearchServer(VERSIONS[0])
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def elasticsearch_wire(elasticsearch_url: str) -> Iterator[Wire]:
    """A relay before the real server, which a test takes away and puts back."""
    real = urlsplit(elasticsearch_url)
    with Wire(real.hostname or "", real.port or 9200) as wire:
        yield wire


@pytest.fixture
def index_name() -> Iterator[str]:
    """A name for an alias or index that no other test uses."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if url := os.environ.get("ELASTICSEARCH_URL"):
        with Elasticsearch(url) as client:
            for index in client.indices.get(index=f"{name}*", expand_wildcards="all"):
                client.indices.delete(index=index, ignore_unavailable=True)


@pytest.fixture
def elasticsearch_proxy(elasticsearch_url: str) -> Iterator[Proxy]:
    """A proxy before the real server, for failures that the real one cannot be made to show."""
    proxy = Proxy(elasticsearch_url)
    yield proxy
    proxy.close()
