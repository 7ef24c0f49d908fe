"""What both modes need of Elasticsearch: connecting, errors told apart, mappings compared, bulks, search."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from elastic_transport import TlsError
from elasticsearch import (
    ApiError,
    Elasticsearch,
    SerializationError,
    TransportError,
    UnsupportedProductError,
)

from enrich.errors import IndexSetupError
from enrich.index.protocol import IndexLost, IndexUnavailable
from enrich.records import WriteResult, WriteStatus
from enrich.settings import Settings

REQUEST_SECONDS = 60.0
BULK_BYTES = (
    8_000_000  # of a request, well below the 10 MB that hosted clusters like and the 100 MB they refuse
)
LONGEST_ID = 512  # bytes

_ANSWER = "items.*.status,items.*.error"  # of a bulk: an item for each operation, without what nobody reads
_PASSING = frozenset(
    {"cluster_block_exception", "index_closed_exception", "search_context_missing_exception"}
)
_INTEGERS = frozenset({"byte", "short", "integer", "long"})
_FLOATS = frozenset({"half_float", "float", "double"})


def connect(settings: Settings) -> Elasticsearch:
    """A client for `ELASTICSEARCH_URL`, which connects when it is used first.

    It repeats nothing by itself: callers decide on waiting.

    Raises:
        IndexSetupError: the URL or the CA file cannot be read.
    """
    assert settings.elasticsearch_url is not None
    url = settings.elasticsearch_url.get_secret_value().strip()
    options: dict[str, Any] = {}
    if settings.elasticsearch_api_key is not None:
        options["api_key"] = settings.elasticsearch_api_key.get_secret_value()
    elif settings.elasticsearch_username and settings.elasticsearch_password is not None:
        password = settings.elasticsearch_password.get_secret_value()
        options["basic_auth"] = (settings.elasticsearch_username, password)
    if settings.elasticsearch_ca is not None:
        if not settings.elasticsearch_ca.is_file():
            raise IndexSetupError(f"ELASTICSEARCH_CA: there is no file {settings.elasticsearch_ca}")
        options["ca_certs"] = str(settings.elasticsearch_ca)
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError
        return Elasticsearch(
            url, request_timeout=REQUEST_SECONDS, max_retries=0, retry_on_timeout=False, **options
        )
    except (ValueError, OSError):  # OSError: the CA file is not a certificate
        raise IndexSetupError(
            "ELASTICSEARCH_URL (or ELASTICSEARCH_CA) cannot be used: write https://host:9200, with special "
            "characters in user and password percent-encoded; the CA file is PEM"
        ) from None


def _not_elasticsearch(where: str) -> IndexSetupError:
    return IndexSetupError(
        f"what answers at {where} is not Elasticsearch (8.19 or later): check ELASTICSEARCH_URL"
    )


@contextmanager
def answers(client: Elasticsearch) -> Iterator[None]:
    """Turn what a whole call fails with into `IndexUnavailable` (passing) or `IndexSetupError`."""
    where = address(client)
    try:
        yield
    except (UnsupportedProductError, SerializationError):  # the latter: an answer in no format of its own
        raise _not_elasticsearch(where) from None
    except ApiError as error:
        reason = reason_of(error)
        if error.status_code == 401:
            raise IndexSetupError(
                f"Elasticsearch at {where} does not accept the credentials: check ELASTICSEARCH_API_KEY, or "
                "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD"
            ) from None
        if error.status_code == 429 or error.status_code >= 500 or error_type(error) in _PASSING:
            raise IndexUnavailable(f"Elasticsearch answered {error.status_code}: {reason}") from error
        if error.status_code == 403:
            raise IndexSetupError(
                f"Elasticsearch at {where} forbids it: {reason}. See docs/index.md for the privileges needed"
            ) from None
        if error.status_code == 404 and not absent(error):
            raise _not_elasticsearch(where) from None
        raise
    except TransportError as error:
        message = " ".join(str(error.message).split())[:200]
        if isinstance(error, TlsError) and "EOF" not in message:  # cut off, as by a restart: passing
            raise IndexSetupError(
                f"Elasticsearch at {where}: the TLS connection fails ({message}). Check https or http in "
                "ELASTICSEARCH_URL, and set ELASTICSEARCH_CA to its authority's certificate"
            ) from None
        cause = re.search(r"\[Errno -?\d+\] ([^)]+)", message)
        raise IndexUnavailable(f"no connection to {where}: {cause[1] if cause else message}") from error


def absent(error: ApiError) -> bool:
    """Whether Elasticsearch says that something is not there: any web server answers 404.

    The client itself looks at the product only where an answer is a good one.
    """
    return error.status_code == 404 and error.meta.headers.get("x-elastic-product") == "Elasticsearch"


def address(client: Elasticsearch) -> str:
    """Where the server is, without credentials."""
    return str(next(iter(client.transport.node_pool.all())).base_url)


def error_type(error: ApiError) -> str:
    """Elasticsearch's name of the first cause of an error; empty where the body does not say."""
    body = error.body if isinstance(error.body, dict) else {}
    detail = body.get("error")
    causes = detail.get("root_cause") if isinstance(detail, dict) else None
    return str(causes[0].get("type", "")) if causes else ""


def reason_of(error: ApiError) -> str:
    """Why a call failed, short and on one line."""
    body = error.body if isinstance(error.body, dict) else {}
    return reason(body.get("error") or error.body or error.message)


def reason(detail: Any) -> str:
    """Elasticsearch's explanation with its innermost cause, short and on one line."""
    parts: list[str] = []
    while isinstance(detail, dict):
        text = str(detail.get("reason") or detail.get("type") or "")
        if text and not any(text in part for part in parts):
            parts.append(text)
        detail = detail.get("caused_by") or next(iter(detail.get("root_cause") or ()), None)
    told = " ".join(": ".join(parts or [str(detail)]).split())
    return re.sub(r"^\[\d+:\d+\] ", "", told)[:300]  # line and column of a request that nobody sees


def failure(id: str, revision: int, status: int, error: Mapping[str, Any]) -> WriteResult:
    """How a failed item of a bulk ended, for what both modes treat alike.

    Raises:
        IndexLost: the index or alias is not there, or cannot be written to.
        IndexSetupError: the credentials do not allow writing.
    """
    kind, text = str(error.get("type", "")), reason(error)
    if kind == "security_exception":
        raise IndexSetupError(
            f"the index forbids writing: {text}. See docs/index.md for the privileges needed"
        )
    if kind == "index_not_found_exception" or (kind == "illegal_argument_exception" and "alias [" in text):
        raise IndexLost(text)
    passing = status == 429 or status >= 500 or kind in _PASSING
    return WriteResult(id, revision, WriteStatus.RETRY if passing else WriteStatus.REFUSED, text)


def compare(
    expected: Mapping[str, Any], actual: Mapping[str, Any], path: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """What a mapping's `properties` lack of `expected`, and where they contradict it (one line each).

    Integers and floats of any width pass for each other, so that a portal may map our fields in its own way.
    """
    missing: dict[str, Any] = {}
    conflicts: list[str] = []
    for name, spec in expected.items():
        have = actual.get(name)
        if have is None:
            missing[name] = spec
            continue
        want_type, have_type = spec.get("type", "object"), have.get("type", "object")
        alike = any({want_type, have_type} <= family for family in (_INTEGERS, _FLOATS))
        if want_type != have_type and not alike:
            conflicts.append(f"field {path}{name} is of type {have_type}, {want_type} is needed")
        elif (want := spec.get("analyzer")) != (analyzer := have.get("analyzer")):
            conflicts.append(f"field {path}{name} has the analyzer {analyzer}, {want} is needed")
        elif "properties" in spec:
            inner, more = compare(spec["properties"], have.get("properties", {}), f"{path}{name}.")
            conflicts += more
            if inner:
                missing[name] = {"properties": inner}
    return missing, conflicts


def takes_id(id: str) -> bool:
    """Whether a document can have this id. One that cannot would fail the whole request, not itself alone."""
    return 0 < len(id.encode()) <= LONGEST_ID


def bulk(
    client: Elasticsearch, operations: Sequence[bytes], index: str, require_alias: bool
) -> list[dict[str, Any]]:
    """Send bulk operations (each: action line, and source line where it has one); return an item for each.

    Requests stay below `BULK_BYTES`; one that a proxy finds too large is halved. An operation too large by
    itself gets an item of status 413.

    Raises:
        IndexUnavailable: no usable answer; some operations may have been carried out.
    """
    items: list[dict[str, Any]] = []
    start = size = 0
    for end, operation in enumerate(operations):
        if end > start and size + len(operation) > BULK_BYTES:
            items += _send(client, operations[start:end], index, require_alias)
            start, size = end, 0
        size += len(operation)
    if start < len(operations):
        items += _send(client, operations[start:], index, require_alias)
    return items


def _send(
    client: Elasticsearch, operations: Sequence[bytes], index: str, require_alias: bool
) -> list[dict[str, Any]]:
    try:
        with answers(client):
            # As a parameter of the request: Elasticsearch ignores require_alias in some actions.
            lines: Any = b"\n".join(operations)  # typed as mappings; bytes are sent as they are
            answer = client.bulk(
                operations=lines, index=index, require_alias=require_alias, filter_path=_ANSWER
            )
    except ApiError as error:
        if error.status_code != 413:
            raise
        if len(operations) == 1:
            size = f"the document is too large for the index ({len(operations[0])} bytes)"
            return [{"status": 413, "error": {"type": "too_large", "reason": size}}]
        middle = len(operations) // 2
        return _send(client, operations[:middle], index, require_alias) + _send(
            client, operations[middle:], index, require_alias
        )
    return [next(iter(item.values())) for item in answer["items"]]


def privileges(client: Elasticsearch, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Which of the privileges on these indices the credentials lack; none where security is off."""
    try:
        with answers(client):
            found = client.security.has_privileges(index=[{"names": list(names), "privileges": list(wanted)}])
    except (ApiError, IndexUnavailable):  # a server without security has no such API
        return []
    return [
        f"{privilege} on {name}"
        for name, granted in found["index"].items()
        for privilege, yes in granted.items()
        if not yes
    ]
