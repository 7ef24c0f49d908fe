"""The document of one listing, and the mapping of its fields: both follow from the heads of the bundle."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

Mode = Literal["own", "merge"]

KEPT = {"type": "object", "enabled": False}  # in the document, but not searchable
KEYWORD_BYTES = 1024  # longer copied texts are kept, but not searchable


class ClassSpec(Protocol):
    """What a document needs to know of a class of a multiclass head."""

    @property
    def name(self) -> str: ...
    @property
    def publish(self) -> bool: ...


class HeadSpec(Protocol):
    """What a document needs to know of a head; `enrich.model.bundle.Head` is one."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Literal["binary", "multiclass"]: ...
    @property
    def classes(self) -> Sequence[ClassSpec]: ...


class Row(Protocol):
    """What a document is made from; `enrich.state.outbox.OutboxRow` is one."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def attributes(self) -> Mapping[str, Any] | None: ...
    @property
    def columns(self) -> Mapping[str, Any]: ...
    @property
    def bundle_id(self) -> str | None: ...
    @property
    def enriched_at(self) -> datetime | None: ...


def build(row: Row, heads: Sequence[HeadSpec], mode: Mode) -> dict[str, Any]:
    """The document of a listing.

    `own`: the whole document with the copied columns; what is unknown is absent. `merge`: all of our fields
    and nothing else; what is unknown is null. Only the fields of `heads` are written, whatever bundle the
    listing was made with.
    """
    attributes = row.attributes or {}
    fields = attributes.get("fields", {})
    evidence = attributes.get("evidence", {})
    counts = attributes.get("counts", {})
    document: dict[str, Any] = {
        "listing_id": row.id,
        **{name: fields.get(name) for name in head_fields(heads)},
        "photo_count": attributes.get("photo_count"),
        "enrichment": {
            "bundle": row.bundle_id,
            "revision": row.revision,
            "enriched_at": None if row.enriched_at is None else _utc(row.enriched_at),
            "photos_seen": attributes.get("photos_seen"),
            "photos_failed": attributes.get("photos_failed"),
        },
        "evidence": {head.name: evidence.get(head.name) for head in heads},
        **{name: counts.get(name) for name in count_fields(heads)},
    }
    if mode == "merge":
        return document
    document["evidence"] = _known(document["evidence"])
    document["enrichment"] = _known(document["enrichment"])
    return _known({**row.columns, **document})


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def head_fields(heads: Sequence[HeadSpec]) -> dict[str, str]:
    """The searchable fields of the heads, each with its Elasticsearch type."""
    return {name: es_type for head in heads for name, es_type in _fields_of(head)}


def _fields_of(head: HeadSpec) -> Iterator[tuple[str, str]]:
    if head.kind == "binary":
        yield f"has_{head.name}", "boolean"
        yield f"{head.name}_confidence", "float"
    else:
        yield f"{head.name}_types", "keyword"


def count_fields(heads: Sequence[HeadSpec]) -> list[str]:
    """The fields that hold photos per class: in the document, not searchable."""
    return [f"{head.name}_counts" for head in heads if head.kind == "multiclass"]


def reserved(heads: Sequence[HeadSpec]) -> frozenset[str]:
    """Names of our own fields, which no copied column may have."""
    return frozenset(properties(heads))


def properties(heads: Sequence[HeadSpec]) -> dict[str, Any]:
    """The mapping of our fields."""
    return {
        "listing_id": {"type": "keyword"},
        **{name: {"type": es_type} for name, es_type in head_fields(heads).items()},
        "photo_count": {"type": "integer"},
        "enrichment": {
            "properties": {
                "bundle": {"type": "keyword"},
                "revision": {"type": "long"},
                "enriched_at": {"type": "date"},
                "photos_seen": {"type": "integer"},
                "photos_failed": {"type": "integer"},
            }
        },
        "evidence": KEPT,
        **dict.fromkeys(count_fields(heads), KEPT),
    }


def mapping(heads: Sequence[HeadSpec], copied: Mapping[str, str]) -> dict[str, Any]:
    """The mapping of an index of our own; `copied` are the copied columns with their Elasticsearch types."""
    columns = {
        name: {"type": es_type, "ignore_above": KEYWORD_BYTES} if es_type == "keyword" else {"type": es_type}
        for name, es_type in copied.items()
    }
    return {"dynamic": "strict", "properties": {**columns, **properties(heads)}}


def encode(document: Mapping[str, Any]) -> bytes:
    """The document as JSON.

    Raises:
        ValueError: it holds something that JSON cannot, such as NaN.
    """
    try:
        return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except TypeError as error:
        raise ValueError(str(error)) from None
