"""The history of what is published of listings: which answer changed, by which bundle or person, and when.

Written in the transaction that changes the answers, by whatever changes them: completions and overrides.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from enrich.model.kind import overridable
from enrich.state.database import Database

Cause = Literal["model", "person", "cleared"]

# Where a person's word stands on a field, it is theirs, whoever brought the listing here.
_RECORD = text("""
    INSERT INTO history (listing_id, field, before, after, confidence, bundle_id, bundle_before,
                         cause, person)
    SELECT r.id, r.field, CAST(r.before AS jsonb), CAST(r.after AS jsonb), r.confidence, r.bundle,
           r.bundle_before, CASE WHEN o.field IS NULL THEN :cause ELSE 'person' END,
           CASE WHEN o.field IS NULL THEN :person ELSE o.created_by END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id text, field text, before text, after text,
        confidence double precision, bundle text, bundle_before text)
    LEFT JOIN override AS o ON o.listing_id = r.id AND o.field = r.field
""")

_OF = text("""
    SELECT at, field, before, after, before IS NULL AS first, confidence, bundle_id, bundle_before,
           cause, person
    FROM history WHERE listing_id = :id ORDER BY id DESC LIMIT :limit
""")

Attributes = Mapping[str, Any]
"""Published attributes of a listing (JSON)."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A listing whose published attributes are being changed; `before` None: it had none."""

    id: str
    before: Attributes | None
    after: Attributes
    bundle_before: str | None
    bundle: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """An answer that changed, or whose author did."""

    at: datetime
    field: str
    before: Any
    """True, False, None (unknown) or classes."""
    after: Any
    first: bool
    """Nothing was published before."""
    confidence: float | None
    bundle_id: str | None
    bundle_before: str | None
    cause: Cause
    """Whose answer `after` is: the model's, a person's, or the model's again as theirs was taken back."""
    person: str | None
    """Who said it, or took it back; None where nobody knows, and where it was the model."""


def record(
    connection: Connection, saved: Iterable[Saved], cause: Cause = "model", person: str | None = None
) -> None:
    """Note which answers change. `cause` and `person`: of those on which no override stands now."""
    rows = [row for one in saved for row in _rows(one)]
    if rows:
        given = {"rows": json.dumps(rows, allow_nan=False), "cause": cause, "person": person}
        connection.execute(_RECORD, given)


def history(database: Database, id: str, limit: int = 100) -> list[Change]:
    """What changed of a listing, the latest first; [] of one that is unknown."""
    return [Change(*row) for row in database.rows(_OF, id=id, limit=limit)]


def _rows(saved: Saved) -> Iterator[Mapping[str, Any]]:
    fields, earlier = saved.after["fields"], {} if saved.before is None else saved.before["fields"]
    for field in dict.fromkeys([*fields, *earlier]):  # of heads that are not asked any more, too
        if (found := overridable(field)) is None:
            continue  # a confidence
        kind, head = found
        value, first = fields.get(field), field not in earlier
        theirs = _is_a_persons(saved.after, head)
        if value == earlier.get(field) and theirs == _is_a_persons(saved.before, head):
            continue
        if first and value in (None, [], ()) and not theirs:
            continue  # the first answer, and it is none
        yield {
            "id": saved.id,
            "field": field,
            "before": None if first else json.dumps(earlier[field]),
            "after": json.dumps(value),
            "confidence": fields.get(kind.ranked_by(head) or ""),
            "bundle": saved.bundle,
            "bundle_before": saved.bundle_before,
        }


def _is_a_persons(attributes: Attributes | None, head: str) -> bool:
    evidence = None if attributes is None else attributes["evidence"].get(head)
    return bool(evidence and evidence.get("override"))
