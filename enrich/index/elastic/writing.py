"""What both modes need beside the server: results of single documents, mappings compared, bulks."""

from collections.abc import Mapping, Sequence
from typing import Any

from enrich.errors import IndexSetupError
from enrich.index.elastic.server import PASSING, Refused, Server, reason
from enrich.index.protocol import IndexLost, ended
from enrich.records import DocumentWrite, WriteResult, WriteStatus

BULK_BYTES = 8_000_000  # of a request: hosted clusters like 10 MB at most, and refuse 100 MB
LONGEST_ID = 512  # bytes

# What a field of a common type keeps of what it was made with, and what that is where a mapping says nothing.
_MADE_WITH = {
    "doc_values": True,
    "format": "strict_date_optional_time||epoch_millis",
    "index": True,
    "normalizer": None,
    "similarity": None,
    "store": False,
}
_INTEGERS = frozenset({"byte", "short", "integer", "long"})
_FLOATS = frozenset({"half_float", "float", "double"})
_COMMON = _INTEGERS | _FLOATS | {"boolean", "date", "keyword", "text"}


def failure(write: DocumentWrite, status: int, error: Mapping[str, Any]) -> WriteResult:
    """How a write ended whose item of a bulk failed, for what both modes treat alike.

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
    passing = status == 429 or status >= 500 or kind in PASSING
    return ended(write, WriteStatus.RETRY if passing else WriteStatus.REFUSED, text)


def compare(
    expected: Mapping[str, Any], actual: Mapping[str, Any], path: str = "", *, any_width: bool
) -> tuple[dict[str, Any], list[str]]:
    """What a mapping's `properties` lack of `expected`, and where they contradict it (one line each).

    `any_width`: integers and floats of any width pass for each other, so that a portal may map our fields in
    its own way. No narrower one holds what is `long`, though.
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
        if want_type != have_type and not (any_width and alike and want_type != "long"):
            conflicts.append(f"field {path}{name} is of type {have_type}, {want_type} is needed")
        elif (want := spec.get("analyzer")) != (analyzer := have.get("analyzer")):
            conflicts.append(f"field {path}{name} has the analyzer {analyzer}, {want} is needed")
        elif "properties" in spec:
            within = (spec["properties"], have.get("properties", {}), f"{path}{name}.")
            inner, more = compare(*within, any_width=any_width)
            conflicts += more
            if inner:
                missing[name] = {"properties": inner}
    return missing, conflicts


def made_otherwise(wanted: Mapping[str, Any], actual: Mapping[str, Any], path: str = "") -> list[str]:
    """Where fields that are there were made otherwise than `wanted`, and stay so (one line each).

    Their types and analyzers are `compare`'s to tell.
    """
    conflicts: list[str] = []
    for name, spec in wanted.items():
        have, field = actual.get(name, spec), f"{path}{name}"
        for parameter, default in _MADE_WITH.items() if have.get("type") in _COMMON else ():
            made, want = have.get(parameter, default), spec.get(parameter, default)
            if str(made).lower() != str(want).lower():  # Elasticsearch takes "true" for true
                conflicts.append(f"field {field} was made with {parameter} {made}, {want} is needed")
        fields, others = spec.get("fields", {}), have.get("fields", {})
        conflicts += compare(fields, others, f"{field}.", any_width=False)[1]
        conflicts += made_otherwise(fields, others, f"{field}.")
        inner = (spec.get("properties", {}), have.get("properties", {}))
        conflicts += made_otherwise(*inner, f"{field}.")
    return conflicts


def takes_id(id: str) -> bool:
    """Whether a document can have this id. One that cannot would fail the whole request, not itself alone."""
    return 0 < len(id.encode()) <= LONGEST_ID


def bulk(
    server: Server, operations: Sequence[bytes], index: str, require_alias: bool
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
            items += _send(server, operations[start:end], index, require_alias)
            start, size = end, 0
        size += len(operation)
    if start < len(operations):
        items += _send(server, operations[start:], index, require_alias)
    return items


def _send(
    server: Server, operations: Sequence[bytes], index: str, require_alias: bool
) -> list[dict[str, Any]]:
    try:
        return server.bulk(b"\n".join(operations), index, require_alias=require_alias)
    except Refused as error:
        if error.status != 413:
            raise
        if len(operations) == 1:
            size = f"the document is too large for the index ({len(operations[0])} bytes)"
            return [{"status": 413, "error": {"type": "too_large", "reason": size}}]
        middle = len(operations) // 2
        return _send(server, operations[:middle], index, require_alias) + _send(
            server, operations[middle:], index, require_alias
        )
