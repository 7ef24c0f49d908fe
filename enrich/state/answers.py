"""What people answer in the review queue.

An answer is an override, and of the photo that shows it a label, too. Who was unsure is kept as well, so that
nobody is asked the same thing twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.errors import UsageError
from enrich.model.kind import overridable
from enrich.state import labels, overrides
from enrich.state.database import Database
from enrich.state.labels import Label
from enrich.state.overrides import Override, Said

_MINE = text("""
    SELECT listing_id, field, answer, sha256, before, at FROM review
    WHERE listing_id = :id AND field = :field AND person = :person
""")

_LAST = text("""
    SELECT listing_id, field FROM review
    WHERE person = :person AND field = ANY(:fields) AND at >= to_timestamp(:since)
    ORDER BY at DESC LIMIT 1
""")

_PUT = text("""
    INSERT INTO review (listing_id, field, person, answer, sha256, before, at)
    VALUES (:id, :field, :person, :value, :sha256, CAST(:before AS jsonb), now())
""")

_DROP = text("DELETE FROM review WHERE listing_id = :id AND field = :field AND person = :person")

# An answer's override and label have its own time. The photo may be another listing's, too.
_FORGET = text("""
    UPDATE review SET before = jsonb_set(before, ARRAY[CAST(:what AS text)], CAST(:earlier AS jsonb))
    WHERE field = :field AND (listing_id = :id OR sha256 = :sha256)
      AND coalesce(before -> :what ->> 'by', '') = :person
      AND CAST(before -> :what ->> 'at' AS timestamptz) = :at
""")

_DONE = text("""
    SELECT count(*) FROM review
    WHERE person = :person AND field = ANY(:fields) AND at >= to_timestamp(:since)
""")

_NOW = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")

_ANSWERS = text("""
    SELECT nullif(person, ''), answer, at FROM review
    WHERE listing_id = :id AND field = :field ORDER BY at, person
""")


@dataclass(frozen=True, slots=True)
class Answered:
    """What somebody answered before."""

    person: str | None
    value: bool | None
    """None: unsure."""
    at: datetime


class Answers:
    """What one person answers of some fields; `person` is empty where nobody knows who it is.

    `since`: when this sitting began, in seconds since 1970 by the database's clock.
    """

    def __init__(self, database: Database, person: str, fields: Sequence[str]) -> None:
        self._database = database
        self._person = person
        self._mine = {"person": person, "fields": list(fields)}

    def begin(self) -> float:
        """The time by the database's clock: `since` of a sitting that begins now."""
        return float(self._database.scalar(_NOW))

    def done(self, since: float) -> int:
        """How many answers the person gave in this sitting, unsure ones too."""
        return int(self._database.scalar(_DONE, **self._mine, since=since))

    def answers(self, id: str, field: str) -> list[Answered]:
        """What people answered of this listing in the queue, the first one first."""
        return [Answered(*row) for row in self._database.rows(_ANSWERS, id=id, field=field)]

    def answer(self, id: str, field: str, value: bool | None, sha256: str | None = None) -> None:
        """Take an answer (None: unsure) down: as override, as label of the photo `sha256` that shows it, and
        so that it is not asked again. One that this person gave before is undone first.

        Raises:
            UsageError: unknown listing.
        """
        self._database.run(lambda connection: _answer(connection, id, field, self._person, value, sha256))

    def undo(self, since: float) -> tuple[str, str] | None:
        """Take the person's last answer of this sitting back: (listing, field); None where there is none.

        What stood before stands again, unless somebody has said something else since; when they take that
        back, it is as if this answer had never been given.
        """

        # Looked up beforehand, so that one is undone, also where the answer to the commit is lost.
        last = self._database.rows(_LAST, **self._mine, since=since)
        if not last:
            return None
        id, field = last[0]
        self._database.run(lambda connection: _undo(connection, id, field, self._person))
        return id, field


def _answer(
    connection: Connection, id: str, field: str, person: str, value: bool | None, sha256: str | None
) -> None:
    _undo(connection, id, field, person, says_more=value is not None)
    before: dict[str, Any] = {"override": None, "label": None}
    if value is not None:
        if (override := overrides.one(connection, id, field)) is not None:
            before["override"] = {
                "value": override.value,
                "note": override.note,
                "by": override.by,
                "at": override.at,
            }
        overrides.say(connection, Said(id, field, value, by=person or None))
    if sha256 is not None:
        if (label := labels.one(connection, sha256, _head(field))) is not None:
            before["label"] = {"value": label.value, "by": label.by, "at": label.at}
        labels.put(connection, [Label(sha256, _head(field), True, person or None)])
    given = {"id": id, "field": field, "person": person, "value": value, "sha256": sha256}
    connection.execute(_PUT, {**given, "before": json.dumps(before, default=str)})


def _undo(connection: Connection, id: str, field: str, person: str, says_more: bool = False) -> None:
    """`says_more`: the person says something else of the field in the same transaction."""
    overrides.lock(connection, id)
    mine = {"id": id, "field": field, "person": person}
    row = connection.execute(_MINE, mine).one_or_none()
    if row is None:
        return
    connection.execute(_DROP, mine)
    for what, earlier in row.before.items():
        told = {"what": what, "earlier": json.dumps(earlier), "sha256": row.sha256, "at": row.at}
        connection.execute(_FORGET, {**mine, **told})
    _restore_override(connection, row, person, says_more)
    _restore_label(connection, row, person)


def _restore_override(connection: Connection, row: Row[Any], person: str, says_more: bool) -> None:
    stands = overrides.one(connection, row.listing_id, row.field)
    if row.answer is None or stands is None or (stands.by or "", stands.value) != (person, row.answer):
        return
    earlier = row.before["override"] and Override(row.field, **_again(row.before["override"]))
    if says_more:
        overrides.stand_again(connection, row.listing_id, row.field, earlier)
    else:
        overrides.restore(connection, row.listing_id, row.field, earlier, person or None)


def _restore_label(connection: Connection, row: Row[Any], person: str) -> None:
    head = _head(row.field)
    stands = row.sha256 and labels.one(connection, row.sha256, head)
    if not stands or (stands.by or "", stands.value) != (person, True):
        return
    if (earlier := row.before["label"]) is None:
        labels.drop(connection, row.sha256, head)
    else:
        labels.put(connection, [Label(row.sha256, head, **_again(earlier))])


def _again(earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What was said, at its own time, which earlier versions did not take down."""
    return {**earlier, "at": datetime.fromisoformat(earlier["at"]) if "at" in earlier else None}


def _head(field: str) -> str:
    """The head that answers in this field.

    Raises:
        UsageError: none does.
    """
    found = overridable(field)
    if found is None:
        raise UsageError(f"{field!r} is no answer of a head")
    return found[1]
