"""The document of one listing, and the mapping of its fields: both follow from the heads of the bundle."""

import json
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from enrich.model.head import Head
from enrich.state.outbox import OutboxRow

Mode = Literal["own", "merge"]

KEPT = {"type": "object", "enabled": False}  # in the document, but not searchable
KEYWORD_BYTES = 1024  # longer copied texts are kept, but not searchable


def build(
    row: OutboxRow, heads: Sequence[Head], mode: Mode, without: Set[str] = frozenset()
) -> dict[str, Any]:
    """The document of a listing.

    `own`: the whole document with the copied columns, but those of `without`; what is unknown is absent.
    `merge`: all of our fields and nothing else; what is unknown is null. Only the fields of `heads` are
    written, whatever bundle the listing was made with.
    """
    attributes = row.attributes or {}
    fields = attributes.get("fields", {})
    evidence = attributes.get("evidence", {})
    counts = attributes.get("counts", {})
    document: dict[str, Any] = {
        "listing_id": row.id,
        **{name: fields.get(name) for head in heads for name in head.rules.fields(head.name)},
        "photo_count": attributes.get("photo_count"),
        "enrichment": {
            "bundle": row.bundle_id,
            "revision": row.revision,
            "enriched_at": None if row.enriched_at is None else _utc(row.enriched_at),
            "photos_seen": attributes.get("photos_seen"),
            "photos_failed": attributes.get("photos_failed"),
        },
        "evidence": {head.name: evidence.get(head.name) for head in heads},
        **{name: counts.get(name) for head in heads for name in head.rules.kept(head.name)},
    }
    if mode == "merge":
        return document
    document["evidence"] = _known(document["evidence"])
    document["enrichment"] = _known(document["enrichment"])
    copied = {name: value for name, value in row.columns.items() if name not in without}
    return _known({**copied, **document})


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two documents say the same: what is null is as good as absent, and so is an empty object.

    When it was enriched is no part of what a document says: where a listing comes out as before, it is not
    written again.
    """
    return bool(_told(one) == _told(other))


def _told(document: Mapping[str, Any]) -> Any:
    enrichment = document.get("enrichment")
    if isinstance(enrichment, Mapping):
        enrichment = {**enrichment, "enriched_at": None}
    return _said({**document, "enrichment": enrichment})


def _said(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: said for name, inner in value.items() if (said := _said(inner)) not in (None, {})}


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reserved(heads: Sequence[Head]) -> frozenset[str]:
    """Names of our own fields, which no copied column may have."""
    return frozenset(properties(heads))


def properties(heads: Sequence[Head]) -> dict[str, Any]:
    """The mapping of our fields."""
    return {
        "listing_id": {"type": "keyword"},
        **{
            name: {"type": es_type}
            for head in heads
            for name, es_type in head.rules.fields(head.name).items()
        },
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
        **{name: KEPT for head in heads for name in head.rules.kept(head.name)},
    }


def mapping(heads: Sequence[Head], copied: Mapping[str, str]) -> dict[str, Any]:
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
        encoded = orjson.dumps(document)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if b"null" in encoded:  # which orjson writes for NaN, too
        json.dumps(document, allow_nan=False)
    return encoded
