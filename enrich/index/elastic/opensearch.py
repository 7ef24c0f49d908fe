"""A server that is OpenSearch, asked through its own client."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from opensearchpy import ConnectionError as NoConnection
from opensearchpy import OpenSearch, SerializationError, SSLError, TransportError

from enrich.errors import IndexSetupError
from enrich.index.elastic.server import KEEP_ALIVE, Refused, Server, address, unusable
from enrich.settings import Settings

_JSON, _LINES = "application/json", "application/x-ndjson"


class OpenSearchServer(Server):
    """See `Server`."""

    name = "OpenSearch"
    credentials = "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD"

    def __init__(self, settings: Settings) -> None:
        """Raises:
        IndexSetupError: the URL or the CA file cannot be read.
        """
        found = address(settings)
        host: dict[str, Any] = {"host": found.url.hostname, "use_ssl": found.url.scheme == "https"}
        host["port"] = found.url.port or (443 if host["use_ssl"] else 80)
        if prefix := found.url.path.strip("/"):
            host["url_prefix"] = prefix
        options: dict[str, Any] = {"ca_certs": found.ca} if found.ca else {}
        if user := found.user or _in_url(found.url.username, found.url.password):
            options["http_auth"] = user
        try:
            self._client = OpenSearch(
                [host], timeout=found.seconds, max_retries=0, retry_on_timeout=False, **options
            )
        except (ValueError, OSError):
            raise unusable() from None
        address_only = found.url._replace(netloc=found.url.netloc.rpartition("@")[2], query="", fragment="")
        self.where = address_only.geturl().rstrip("/")
        self._known = False

    def call(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        if not self._known:
            self._recognise()
        return self._ask(method, path, params, body)

    def _recognise(self) -> None:
        """Its client takes any server for OpenSearch, so what it is is asked once."""
        try:
            version = self._ask("GET", "/", None, None).get("version")
        except Refused:
            raise self.another() from None
        if not isinstance(version, dict) or version.get("distribution") != "opensearch":
            raise self.another()
        self._known = True

    def _ask(self, method: str, path: str, params: Mapping[str, str] | None, body: Any) -> dict[str, Any]:
        headers = {"content-type": _LINES if isinstance(body, bytes) else _JSON}
        try:
            answer = self._client.transport.perform_request(
                method, path, params=dict(params or {}), body=body, headers=headers
            )
        except SerializationError:  # an answer in no format of its own
            raise self.another() from None
        except NoConnection as error:
            raise self.unreachable(error.error, tls=isinstance(error, SSLError)) from None
        except TransportError as error:
            info, status = error.info, int(error.status_code)
            raise self.refused(status, info or error.error, genuine=_genuine(info)) from None
        if not isinstance(answer, dict):
            raise self.another()
        return answer

    def another(self) -> IndexSetupError:
        return IndexSetupError(
            f"what answers at {self.where} is not OpenSearch (2.19 or later): check ELASTICSEARCH_URL; "
            "for Elasticsearch set ENRICH_INDEX_BACKEND=elasticsearch"
        )

    def pages(self, index: str, query: Mapping[str, Any], size: int) -> Iterator[Sequence[str]]:
        """A scroll: the point in time of OpenSearch 2 knows no order by which every document comes once."""
        asked = {"query": query, "sort": ["_doc"], "size": size, "_source": False}
        answer = self.call("POST", f"/{index}/_search", {"scroll": KEEP_ALIVE}, asked)
        try:
            while hits := self.whole(answer)["hits"]["hits"]:
                yield [hit["_id"] for hit in hits]
                body = {"scroll": KEEP_ALIVE, "scroll_id": answer["_scroll_id"]}
                answer = self.call("POST", "/_search/scroll", body=body)
        finally:
            with suppress(Exception):
                self.call("DELETE", "/_search/scroll", body={"scroll_id": [answer["_scroll_id"]]})

    def lacking(self, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
        """OpenSearch does not tell: what is forbidden shows when it is asked for."""
        return []

    def close(self) -> None:
        self._client.close()


def _in_url(user: str | None, password: str | None) -> tuple[str, str] | None:
    return (unquote(user), unquote(password or "")) if user else None


def _genuine(info: Any) -> bool:
    """Whether an error is written as OpenSearch writes it."""
    return isinstance(info, dict) and "error" in info and "status" in info
