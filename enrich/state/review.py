"""The review queue: listings whose answer a person's look would teach most. What they say is in `answers`."""

# ruff: noqa: S608 (statements are made of our own parts)

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

from sqlalchemy import Connection, TextClause, text

from enrich.model.head import Head
from enrich.state.database import Database
from enrich.state.schema import number

NEAR = 0.25  # how far from where the answer turns a confidence may lie
IN_A_ROW = 10  # times that the same is asked, so that nobody answers another question than the one there
LAST_SAID = 1_000  # overrides that are held against the model

_NOT_ANSWERED = """
    l.status <> 'gone'
    AND NOT EXISTS (SELECT FROM override AS o WHERE o.listing_id = l.id AND o.field = :field)
    AND NOT EXISTS (SELECT FROM review AS r
                    WHERE r.listing_id = l.id AND r.field = :field AND r.person = :person)"""

_ANSWER = "l.model_attributes -> 'fields' -> :field"

# Somebody said the opposite of what the model says now: one other person is asked, and no third one.
_DISPUTED = f"""
    SELECT l.id, 'disputed' AS why, {_ANSWER} AS answer, {{number}} AS confidence,
           CAST(NULL AS float8) AS turn, said.value AS other, said.created_by AS person
    FROM (
        SELECT * FROM override AS o
        WHERE o.field = :field AND coalesce(o.created_by, '') <> :person AND o.value IN ('true', 'false')
          AND NOT EXISTS (SELECT FROM review AS r
                          WHERE r.listing_id = o.listing_id AND r.field = :field
                            AND (r.person = :person
                                 OR r.answer IS NOT NULL AND (r.person <> coalesce(o.created_by, '')
                                                              OR r.before ->> 'override' IS NOT NULL)))
        ORDER BY o.created_at DESC, o.listing_id DESC LIMIT {LAST_SAID}
    ) AS said JOIN listing AS l ON l.id = said.listing_id
    WHERE l.status <> 'gone' AND {_ANSWER} IN ('true', 'false') AND {_ANSWER} <> said.value
    ORDER BY said.created_at DESC, l.id LIMIT :limit
"""

_FLIPPED = f"""
    SELECT l.id, 'flipped', {_ANSWER}, {{number}}, CAST(NULL AS float8), h.before, CAST(NULL AS text)
    FROM history AS h JOIN listing AS l ON l.id = h.listing_id
    WHERE h.bundle_id = :bundle AND h.field = :field AND h.bundle_before <> h.bundle_id
      AND h.before IS NOT NULL AND h.cause = 'model' AND l.bundle_id = :bundle AND {_NOT_ANSWERED}
    ORDER BY h.id DESC LIMIT :limit
"""

# From where the answer turns outward, on either side: the index of the number has them in this order.
_DOUBTFUL = f"""
    SELECT l.id, 'doubtful', {_ANSWER}, {{number}}, {{turn}}, CAST(NULL AS jsonb), CAST(NULL AS text)
    FROM listing AS l
    WHERE {{number}} {{side}} {{turn}} AND {{number}} BETWEEN {{turn}} - {NEAR} AND {{turn}} + {NEAR}
      AND {_NOT_ANSWERED}
    ORDER BY {{number}} {{order}} LIMIT :limit
"""

Why = Literal["disputed", "flipped", "doubtful", "again"]
"""`again`: a person took their answer back."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of listings: whether they have what a head of the bundle looks for."""

    head: str
    field: str
    number: str
    """The field with the head's confidence."""
    turns: tuple[float, ...]
    """Where on it the answer turns."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A listing that a person should look at, and why."""

    id: str
    question: Question
    why: Why
    answer: bool | None
    """The model's."""
    confidence: float | None
    turn: float | None
    """Where the answer turns that it is near to, if `doubtful`."""
    other: bool | None
    """What a person said, if `disputed`; what was published before, if `flipped`."""
    person: str | None


def questions(heads: Sequence[Head]) -> list[Question]:
    """Those that a yes or no answers."""
    return [
        Question(head.name, head.rules.answer_field(head.name), ranked, head.rules.turns(head))
        for head in heads
        if head.rules.is_yes_or_no and (ranked := head.rules.ranked_by(head.name))
    ]


def queue(
    database: Database, bundle_id: str, person: str, asked: Sequence[Question], limit: int, done: int = 0
) -> list[Asked]:
    """The next listings that `person` should look at, who has `done` some already.

    The reasons take turns, and of each the best listings come first. One question is asked `IN_A_ROW` times
    before the next one. Those made with `bundle_id` count as flipped where it changed their answer.
    """

    def work(connection: Connection) -> list[Asked]:
        found: list[list[Asked]] = []
        for question in asked:
            given = {"field": question.field, "person": person, "bundle": bundle_id, "limit": limit}
            rows = connection.execute(finding(question), given)
            found.append(list(_in_turns([Asked(row.id, question, *row[1:]) for row in rows], done)))
        return list(chain(*_from(found, done // IN_A_ROW)))[:limit]

    return database.run(work)


def finding(question: Question) -> TextClause:
    """The statement behind `queue`, for one question."""
    ranked = number(question.number)
    parts = [_DISPUTED.format(number=ranked), _FLIPPED.format(number=ranked)]
    for turn in question.turns:
        for side, order in ((">=", "ASC"), ("<", "DESC")):
            parts.append(_DOUBTFUL.format(number=ranked, turn=repr(turn), side=side, order=order))
    return text(" UNION ALL ".join(f"({part})" for part in parts))


def _in_turns(found: Sequence[Asked], done: int) -> Iterator[Asked]:
    """One of each reason after the other; what is doubtful by its distance. Each listing once."""
    doubtful = [
        (round(abs((one.confidence or 0.0) - one.turn), 4), one) for one in found if one.turn is not None
    ]
    reasons = [[one for one in found if one.why == why] for why in ("disputed", "flipped")]
    reasons.append([one for _, one in sorted(doubtful, key=lambda each: (each[0], each[1].id))])
    seen = set()
    for one in chain(*zip_longest(*_from(reasons, done))):
        if one is not None and one.id not in seen:
            seen.add(one.id)
            yield one


def _from(lists: Sequence[list[Asked]], turn: int) -> list[list[Asked]]:
    """Those that hold something, beginning with the one whose turn it is."""
    some = [each for each in lists if each]
    first = turn % len(some) if some else 0
    return some[first:] + some[:first]
