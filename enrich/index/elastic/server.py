"""The search server, as both modes ask for it: one object with every call that is made of it.

What fails comes as one of three: `IndexUnavailable` passes, `IndexSetupError` is for people to put right, and
`Refused` is the server's own answer to this very call. A second kind of server is one more file with `call`,
`pages` and `lacking`.
"""

import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import SplitResult, quote, urlsplit

from enrich.atomic import reading
from enrich.errors import IndexSetupError
from enrich.index.protocol import IndexUnavailable
from enrich.settings import Settings

REQUEST_SECONDS = 60.0
KEEP_ALIVE = "5m"  # between two pages of a walk
PASSING = frozenset(
    {
        "cluster_block_exception",
        "index_closed_exception",
        "search_context_missing_exception",
        "snapshot_in_progress_exception",
    }
)
_ANSWER = "items.*.status,items.*.error"  # of a bulk: an item for each operation, without what nobody reads


class Refused(Exception):
    """The server answered a call with an error that concerns what was asked."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    @property
    def absent(self) -> bool:
        """Whether it says that what was named is not there."""
        return self.status == 404


@dataclass(frozen=True, slots=True)
class Found:
    """An index as the server has it."""

    name: str
    uuid: str
    """Another index of the same name has another."""
    aliases: Mapping[str, Any]
    settings: Mapping[str, Any]
    mapping: Mapping[str, Any]
    fields: Mapping[str, Any]
    """The mapping of each field."""
    meta: Mapping[str, Any]
    """What whoever made it wrote into its mapping."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and how to get in; nothing was asked of it yet."""

    url: SplitResult
    api_key: str | None
    user: tuple[str, str] | None
    ca: str | None
    seconds: float


def address(settings: Settings) -> Address:
    """Read `ELASTICSEARCH_URL` and what belongs to it.

    Raises:
        IndexSetupError: the URL is none, or there is no such CA file.
    """
    assert settings.elasticsearch_url is not None
    key, user, password = (
        settings.elasticsearch_api_key,
        settings.elasticsearch_username,
        settings.elasticsearch_password,
    )
    ca = settings.elasticsearch_ca
    with reading(f"ELASTICSEARCH_CA: {ca}", IndexSetupError):
        if ca is not None and not stat.S_ISREG(ca.stat().st_mode):
            raise IndexSetupError(f"ELASTICSEARCH_CA: {ca} is no file")
    try:
        url = urlsplit(settings.elasticsearch_url.get_secret_value().strip())
        if url.scheme not in ("http", "https") or not url.hostname or url.port == 0:
            raise ValueError
        url.hostname.encode("idna")  # as clients do when they connect, and end in errors of their own
    except ValueError:
        raise unusable() from None
    return Address(
        url,
        key.get_secret_value() if key else None,
        (user, password.get_secret_value()) if user and password and not key else None,
        str(ca) if ca else None,
        REQUEST_SECONDS,
    )


def unusable() -> IndexSetupError:
    return IndexSetupError(
        "ELASTICSEARCH_URL (or ELASTICSEARCH_CA) cannot be used: write https://host:9200, with special "
        "characters in user and password percent-encoded; the CA file is PEM"
    )


class Server(ABC):
    """A search server; it is connected to when it is asked first, and nothing is repeated by itself."""

    name: ClassVar[str]
    """What people call it."""
    credentials: ClassVar[str]
    """The settings with which people get in."""
    where: str
    """Its address without credentials."""

    @abstractmethod
    def call(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        """One request; `body` is an object, or bytes with an object on each line.

        Raises:
            IndexUnavailable, IndexSetupError, Refused: see the module.
        """

    @abstractmethod
    def pages(self, index: str, query: Mapping[str, Any], size: int) -> Iterator[Sequence[str]]:
        """The ids of the documents that match when it is called, `size` at a time, whatever is written
        meanwhile."""

    @abstractmethod
    def lacking(self, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
        """Which of the privileges on these indices the credentials lack, as far as the server tells."""

    @abstractmethod
    def close(self) -> None:
        """Release connections."""

    # Indices

    def indices(self, names: str) -> dict[str, Found]:
        """The indices of a name, an alias or a pattern, by name; also those that are closed or hidden."""
        answer = self.call("GET", f"/{_part(names)}", {"expand_wildcards": "open,closed,hidden"})
        return {name: _found(name, told) for name, told in answer.items()}

    def one(self, name: str, remedy: str) -> Found | None:
        """The index of this name, or behind this alias; None where there is none.

        Raises:
            IndexSetupError: there are several; `remedy` says what to do about it.
        """
        try:
            found = self.indices(name)
        except Refused as error:
            if error.absent:
                return None
            raise
        if len(found) > 1:
            raise IndexSetupError(f"{name} leads to several indices ({', '.join(sorted(found))}): {remedy}")
        return next(iter(found.values()))

    def mappings(self, name: str) -> dict[str, dict[str, Any]]:
        return self.call("GET", f"/{_part(name)}/_mapping")

    def create(self, name: str, **body: Any) -> None:
        self.call("PUT", f"/{_part(name)}", body=body)

    def delete(self, names: Sequence[str]) -> None:
        """Those that somebody else removed first are no failure."""
        self.call("DELETE", f"/{_part(','.join(names))}", {"ignore_unavailable": "true"})

    def put_mapping(self, name: str, **body: Any) -> None:
        self.call("PUT", f"/{_part(name)}/_mapping", body=body)

    def put_settings(self, name: str, settings: Mapping[str, Any]) -> None:
        self.call("PUT", f"/{_part(name)}/_settings", body=settings)

    def move_aliases(self, actions: Sequence[Mapping[str, Any]]) -> None:
        """All of it or nothing."""
        self.call("POST", "/_aliases", body={"actions": actions})

    def refresh(self, name: str) -> None:
        self.call("POST", f"/{_part(name)}/_refresh")

    # Documents

    def count(self, name: str) -> int:
        return int(self.whole(self.call("GET", f"/{_part(name)}/_count"))["count"])

    def bulk(self, lines: bytes, index: str, *, require_alias: bool) -> list[dict[str, Any]]:
        """An item for each operation.

        `require_alias` goes with the request: inside an action it is ignored by some.
        """
        params = {"require_alias": str(require_alias).lower(), "filter_path": _ANSWER}
        answer = self.call("PUT", f"/{_part(index)}/_bulk", params, lines + b"\n")
        return [next(iter(item.values())) for item in answer["items"]]

    def mget(
        self, index: str, ids: Sequence[str], fields: Sequence[str] | None = None, *, source: bool = True
    ) -> list[dict[str, Any]]:
        """What is known of each id, in order; with these fields (patterns), with all, or with none."""
        params = {"_source_includes": ",".join(fields)} if fields else {}
        if not source:
            params = {"_source": "false"}
        docs: list[dict[str, Any]] = self.call("POST", f"/{_part(index)}/_mget", params, {"ids": list(ids)})[
            "docs"
        ]
        return docs

    def search(self, index: str, **body: Any) -> dict[str, Any]:
        return self.whole(self.call("POST", f"/{_part(index)}/_search", body=body))

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer of all shards: by one of some there would be fewer documents than there are."""
        total, answered = (answer["_shards"][which] for which in ("total", "successful"))
        if answered < total:  # OpenSearch does not count one that is nowhere among those that failed
            raise IndexUnavailable(f"{self.name} answered for {answered} of {total} shards")
        return answer

    # What fails, told apart

    def refused(self, status: int, body: Any, *, genuine: bool = True) -> Exception:
        """What an answer of 400 or more means. `genuine`: it is known to come from such a server, and not
        from any web server, which answers 404 to everything."""
        detail = body.get("error") if isinstance(body, dict) else None
        told = reason(detail or body)
        if status == 401:
            return IndexSetupError(
                f"{self.name} at {self.where} does not accept the credentials: check {self.credentials}"
            )
        if status == 429 or status >= 500 or _first_cause(detail) in PASSING:
            return IndexUnavailable(f"{self.name} answered {status}: {told}")
        if status == 403:
            return IndexSetupError(
                f"{self.name} at {self.where} forbids it: {told}. See docs/index.md for the privileges needed"
            )
        if status == 404 and not genuine:
            return self.another()
        return Refused(status, told)

    @abstractmethod
    def another(self) -> IndexSetupError:
        """What answers is not such a server."""

    def unreachable(self, message: str, *, tls: bool) -> Exception:
        """What no answer at all means."""
        message = " ".join(message.split())[:400]
        if tls and "EOF" not in message:  # cut off, as by a restart: passing
            return IndexSetupError(
                f"{self.name} at {self.where}: the TLS connection fails ({message[:200]}). Check https or "
                "http in ELASTICSEARCH_URL, and set ELASTICSEARCH_CA to its authority's certificate"
            )
        cause = re.search(r"\[Errno -?\d+\] ([^)]+)", message)
        return IndexUnavailable(f"no connection to {self.where}: {cause[1] if cause else message[:200]}")


def _found(name: str, told: Mapping[str, Any]) -> Found:
    settings, mapping = told["settings"]["index"], told["mappings"]
    fields, meta = mapping.get("properties", {}), mapping.get("_meta", {})
    return Found(name, settings["uuid"], told["aliases"], settings, mapping, fields, meta)


def _part(name: str) -> str:
    return quote(name, safe=",*")


def _first_cause(detail: Any) -> str:
    """The name of the first cause of an error; empty where it is not told."""
    causes = detail.get("root_cause") if isinstance(detail, dict) else None
    return str(causes[0].get("type", "")) if causes else ""


def reason(detail: Any) -> str:
    """The server's explanation with its innermost cause, short and on one line."""
    parts: list[str] = []
    while isinstance(detail, dict):
        text = str(detail.get("reason") or detail.get("type") or "")
        if text and not any(text in part for part in parts):
            parts.append(text)
        detail = detail.get("caused_by") or next(iter(detail.get("root_cause") or ()), None)
    told = " ".join(": ".join(parts or [str(detail)]).split())
    return re.sub(r"^\[\d+:\d+\] ", "", told)[:300]  # line and column of a request that nobody sees
