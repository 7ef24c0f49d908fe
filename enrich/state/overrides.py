"""Overrides: what a person says of a listing, which outranks the model now and after every later run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.errors import UsageError
from enrich.model.kind import KINDS, Overridable, overridable
from enrich.state import history
from enrich.state.database import Database
from enrich.state.lookup import unknown_listing
from enrich.state.outbox import enqueue
from enrich.state.schema import NEXT_REVISION

_PUT = text("""
    INSERT INTO override (listing_id, field, value, note, created_by, created_at)
    VALUES (:id, :field, CAST(:value AS jsonb), :note, :by, coalesce(CAST(:at AS timestamptz), now()))
    ON CONFLICT (listing_id, field) DO UPDATE
    SET value = excluded.value, note = excluded.note, created_by = excluded.created_by,
        created_at = excluded.created_at
""")

_DROP = text("DELETE FROM override WHERE listing_id = :id AND field = :field")

_OF = text("""
    SELECT listing_id, field, value, note, created_by, created_at
    FROM override WHERE listing_id = ANY(:ids) ORDER BY listing_id, field
""")

_NEXT = text("""
    SELECT DISTINCT listing_id FROM override WHERE listing_id > :after ORDER BY listing_id LIMIT :limit
""")

_LOCK = text("""
    SELECT id, model_attributes, attributes, bundle_id FROM listing WHERE id = :id FOR NO KEY UPDATE
""")

# Nothing of a gone listing is in the index; its return publishes it.
_PUBLISH = text(f"""
    UPDATE listing SET
        attributes = CAST(:attributes AS jsonb),
        revision = CASE WHEN status = 'gone' THEN revision ELSE {NEXT_REVISION} END
    WHERE id = :id
""")  # noqa: S608 (our own expression)


@dataclass(frozen=True, slots=True)
class Override:
    """One thing that a person said. `value`: True, False, None (unknown), or a tuple of classes."""

    field: str
    value: bool | tuple[str, ...] | None
    note: str | None
    by: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Said:
    """An override to be set."""

    id: str
    field: str
    value: Any
    note: str | None = None
    by: str | None = None
    at: datetime | None = None
    """When it was said; None: now."""


class Overrides:
    """Sets and clears overrides; what is published is recomputed in the same transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set_override(self, id: str, field: str, value: Any, note: str | None, by: str | None) -> None:
        """Say that `field` (such as `has_X`) of a listing is `value`, whatever a model finds: `set_all`."""
        self.set_all([Said(id, field, value, note, by)])

    def set_all(self, said: Iterable[Said]) -> None:
        """Set overrides, all of them or, where one cannot be set, none.

        A value is True, False or None (unknown) for `has_X`, and a sequence of classes for `X_types`. Whether
        a head X exists is the caller's to know. A listing not enriched yet keeps the override for later.

        Raises:
            UsageError: unknown listing; not a field that can be overridden; not a value for it.
        """
        given = [
            replace(one, value=checked(one.field, one.value)) for one in sorted(said, key=lambda one: one.id)
        ]

        def work(connection: Connection) -> None:
            for one in given:
                say(connection, one)

        self._database.run(work)

    def of(self, ids: Sequence[str]) -> dict[str, list[Override]]:
        """Id -> overrides by field, of those of these listings that have some."""
        return self._database.run(lambda connection: read(connection, ids))

    def listed(self, after: str, limit: int) -> dict[str, list[Override]]:
        """The same of the next `limit` listings behind the id `after`, by id; {} at the end."""
        given = {"after": after, "limit": limit}
        return self._database.run(
            lambda connection: read(connection, connection.execute(_NEXT, given).scalars().all())
        )

    def clear_override(self, id: str, field: str, by: str | None = None) -> bool:
        """Let the model speak again for `field`, because `by` wants so; False where nothing was set.

        Raises:
            UsageError: unknown listing.
        """
        return self._database.run(lambda connection: take_back(connection, id, field, by))

    def change(
        self, id: str, field: str, said: Said | None, by: str | None
    ) -> tuple[Override | None, Override | None]:
        """Set what is `said`, or clear it (None), because `by` wants so: what stood before, and what stands
        since.

        Raises:
            UsageError: as `set_all`.
        """
        given = said and replace(said, value=checked(field, said.value))
        before: list[Override | None] = []

        def work(connection: Connection) -> tuple[Override | None, Override | None]:
            lock(connection, id)
            if not before:  # not once more, where the answer to the commit was lost
                before.append(one(connection, id, field))
            if given is None:
                take_back(connection, id, field, by)
            else:
                say(connection, given)
            return before[0], one(connection, id, field)

        return self._database.run(work)

    def put_back(self, id: str, field: str, stands: Override | None, earlier: Override | None) -> bool:
        """Undo a change of `field`, which made `stands` of `earlier` (None: nobody has said anything); False
        where somebody has said something else since, which stands.

        Raises:
            UsageError: unknown listing.
        """

        def work(connection: Connection) -> bool:
            lock(connection, id)
            now = one(connection, id, field)
            if now == stands:
                restore(connection, id, field, earlier, by=stands.by if stands else None)
            return now in (stands, earlier)  # `earlier` where the answer to the commit was lost

        return self._database.run(work)


def say(connection: Connection, said: Said) -> None:
    """Set one override, of a field and with a value that are `checked`.

    Raises:
        UsageError: unknown listing.
    """
    row = lock(connection, said.id)
    _put(connection, said)
    _recompute(connection, row, "person", said.by)


def take_back(connection: Connection, id: str, field: str, by: str | None) -> bool:
    """As `Overrides.clear_override`."""
    row = lock(connection, id)
    dropped = connection.execute(_DROP, {"id": id, "field": field}).rowcount == 1
    _recompute(connection, row, "cleared", by)
    return dropped


def restore(connection: Connection, id: str, field: str, earlier: Override | None, by: str | None) -> None:
    """Let what a person said before stand again, with its own name and time; `by` wants so.

    Raises:
        UsageError: unknown listing.
    """
    if earlier is None:
        take_back(connection, id, field, by)
    else:
        say(connection, Said(id, **asdict(earlier)))


def stand_again(connection: Connection, id: str, field: str, earlier: Override | None) -> None:
    """As `restore`, where a `say` follows in the same transaction, which changes what is published."""
    if earlier is None:
        connection.execute(_DROP, {"id": id, "field": field})
    else:
        _put(connection, Said(id, **asdict(earlier)))


def read(connection: Connection, ids: Sequence[str]) -> dict[str, list[Override]]:
    """Id -> overrides by field, of those of these listings that have some."""
    found: dict[str, list[Override]] = {}
    for id, field, value, *told in connection.execute(_OF, {"ids": list(ids)}):
        said = tuple(value) if isinstance(value, list) else value
        found.setdefault(id, []).append(Override(field, said, *told))
    return found


def one(connection: Connection, id: str, field: str) -> Override | None:
    """What a person said of one field; None where nobody did."""
    return next((said for said in read(connection, [id]).get(id, ()) if said.field == field), None)


def published(connection: Connection, models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is published of listings: the model's attributes (JSON, by id) with the person's over them.

    The caller holds the listings' rows.
    """
    said = read(connection, list(models))
    return {id: _overruled(model, said.get(id, ())) for id, model in models.items()}


def _overruled(model: Mapping[str, Any], said: Iterable[Override]) -> dict[str, Any]:
    fields, evidence = dict(model["fields"]), dict(model["evidence"])
    for override in said:
        if (found := overridable(override.field)) is None:
            continue  # of a kind of head that is no more
        kind, head = found
        answer, beside = kind.overrule(head, override.value, model["fields"])
        fields.update(answer)
        evidence[head] = {"override": True, **beside}
    return {**model, "fields": fields, "evidence": evidence}


def lock(connection: Connection, id: str) -> Row[Any]:
    """The listing's row, which nobody else changes until the transaction ends.

    Raises:
        UsageError: unknown listing.
    """
    row = connection.execute(_LOCK, {"id": id}).one_or_none()
    if row is None:
        raise unknown_listing(connection, id)
    return row


def _put(connection: Connection, said: Said) -> None:
    connection.execute(_PUT, {**asdict(said), "value": json.dumps(said.value)})


def _recompute(connection: Connection, row: Row[Any], cause: history.Cause, by: str | None) -> None:
    if row.model_attributes is None:
        return  # the first completion applies it
    attributes = published(connection, {row.id: row.model_attributes})[row.id]
    if attributes != row.attributes:
        changed = history.Saved(row.id, row.attributes, attributes, row.bundle_id, row.bundle_id)
        history.record(connection, [changed], cause, by)
        connection.execute(_PUBLISH, {"id": row.id, "attributes": json.dumps(attributes)})
        enqueue(connection, [row.id])


def checked(field: str, value: Any) -> Any:
    """The value as it is stored (JSON).

    Raises:
        UsageError: not a field that can be overridden; not a value for it.
    """
    if (found := overridable(field)) is None:
        known = [kind.answer_field("X") for kind in KINDS.values() if isinstance(kind, Overridable)]
        raise UsageError(f"{field!r} cannot be overridden: name a field {' or '.join(known)}")
    kind, head = found
    return kind.check_override(head, value)
