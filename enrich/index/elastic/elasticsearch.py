"""A server that is Elasticsearch, asked through its own client, which refuses every other one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from elastic_transport import TlsError
from elasticsearch import (
    ApiError,
    Elasticsearch,
    SerializationError,
    TransportError,
    UnsupportedProductError,
)

from enrich.errors import IndexSetupError
from enrich.index.elastic.server import KEEP_ALIVE, Refused, Server, address, unusable
from enrich.index.protocol import IndexUnavailable
from enrich.settings import Settings

_JSON, _LINES = "application/json", "application/x-ndjson"


class ElasticsearchServer(Server):
    """See `Server`."""

    name = "Elasticsearch"
    credentials = "ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD"

    def __init__(self, settings: Settings) -> None:
        """Raises:
        IndexSetupError: the URL or the CA file cannot be read.
        """
        found = address(settings)
        options: dict[str, Any] = {"api_key": found.api_key, "basic_auth": found.user, "ca_certs": found.ca}
        try:
            self._client = Elasticsearch(
                found.url.geturl(),
                request_timeout=found.seconds,
                max_retries=0,
                retry_on_timeout=False,
                **{name: value for name, value in options.items() if value is not None},
            )
        except (ValueError, OSError):  # OSError: the CA file is not a certificate
            raise unusable() from None
        self.where = str(next(iter(self._client.transport.node_pool.all())).base_url)

    def call(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        headers = {"accept": _JSON}
        if body is not None:
            headers["content-type"] = _LINES if isinstance(body, bytes) else _JSON
        try:
            answer = self._client.perform_request(method, path, params=params, headers=headers, body=body)
        except (UnsupportedProductError, SerializationError):  # the latter: an answer in no format of its own
            raise self.another() from None
        except ApiError as error:
            # The client itself looks at the product only where an answer is a good one.
            genuine = error.meta.headers.get("x-elastic-product") == "Elasticsearch"
            raise self.refused(error.status_code, error.body or error.message, genuine=genuine) from None
        except TransportError as error:
            raise self.unreachable(str(error.message), tls=isinstance(error, TlsError)) from None
        found: dict[str, Any] = answer.body
        return found

    def another(self) -> IndexSetupError:
        return IndexSetupError(
            f"what answers at {self.where} is not Elasticsearch (8.19 or later): check ELASTICSEARCH_URL; "
            "for OpenSearch set ENRICH_INDEX_BACKEND=opensearch"
        )

    def pages(self, index: str, query: Mapping[str, Any], size: int) -> Iterator[Sequence[str]]:
        """Keyset pages over a point in time."""
        opened = self.call("POST", f"/{index}/_pit", {"keep_alive": KEEP_ALIVE})
        asked: dict[str, Any] = {
            "pit": {"id": opened["id"], "keep_alive": KEEP_ALIVE},
            "query": query,
            "sort": ["_shard_doc"],
            "size": size,
            "_source": False,
            "track_total_hits": False,
        }
        try:
            while True:
                answer = self.whole(self.call("POST", "/_search", body=asked))
                asked["pit"]["id"] = answer["pit_id"]
                hits = answer["hits"]["hits"]
                if not hits:
                    return
                yield [hit["_id"] for hit in hits]
                asked["search_after"] = hits[-1]["sort"]
        finally:
            with suppress(Exception):
                self.call("DELETE", "/_pit", body={"id": asked["pit"]["id"]})

    def lacking(self, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
        body = {"index": [{"names": list(names), "privileges": list(wanted)}]}
        try:
            found = self.call("POST", "/_security/user/_has_privileges", body=body)
        except (Refused, IndexUnavailable):  # a server without security has no such API
            return []
        return [
            f"{privilege} on {name}"
            for name, granted in found["index"].items()
            for privilege, yes in granted.items()
            if not yes
        ]

    def close(self) -> None:
        self._client.close()
