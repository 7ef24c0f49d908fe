"""Flips: filters that change where a new bundle is rolled out, and the bound that people set on them.

They are counted in the transaction that saves a listing, so the bound holds whatever process does it, and for
all of them together.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from enrich.model.kind import WORDS, overridable
from enrich.setting_values import parse_number_or_share, share_of
from enrich.state.schema import BACKFILL
from enrich.state.settle import NEXT_TRY, RETRY_HOURS

Counts = dict[str, dict[str, int]]
"""Field -> change -> listings; the change "" counts the listings with any change of the field."""

_BOUNDED = text("""
    SELECT id, max_flips, marked, flips, held FROM backfill
    WHERE id = ANY(:ids) AND max_flips IS NOT NULL
    ORDER BY id FOR NO KEY UPDATE
""")

_RECORD = text("UPDATE backfill SET flips = CAST(:flips AS jsonb) WHERE id = :id")

_HOLD = text("""
    UPDATE backfill SET done_at = now(), marked_at = coalesce(marked_at, now()), held = :why
    WHERE id = :id AND done_at IS NULL
""")

# What waits for nothing else stays as the old bundle made it, and its photos are tried again when they were
# to be; what was in quarantine has its reason still. A claim of it is stale from now on. The locked row says
# which: somebody may have asked for it while the lock was waited for.
_UNMARK = text(f"""
    WITH theirs AS (
        SELECT l.id, {NEXT_TRY} AS due, l.priority = :priority AND l.photo_fp = l.photo_fp_done
               AND l.bundle_id IS NOT NULL
               AND (NOT l.revalidate OR (SELECT b.revalidate FROM backfill AS b WHERE b.id = :id)) AS rests
        FROM listing AS l
        WHERE l.backfill = :id AND l.status IN ('pending', 'leased', 'retry')
        ORDER BY l.id FOR NO KEY UPDATE OF l
    )
    UPDATE listing AS l SET
        backfill = NULL,
        status = CASE WHEN NOT rests THEN l.status
                      WHEN l.transient_rounds > 0 OR (l.error IS NOT NULL AND due IS NOT NULL) THEN 'retry'
                      WHEN l.error IS NOT NULL THEN 'quarantined' ELSE 'done' END,
        revalidate = l.revalidate AND NOT rests,
        priority = CASE WHEN rests THEN 0 ELSE l.priority END,
        pending_since = CASE WHEN rests THEN NULL ELSE l.pending_since END,
        not_before = CASE WHEN NOT rests THEN l.not_before
                          WHEN l.transient_rounds > 0 OR l.error IS NOT NULL THEN
            least(due, l.enriched_at + interval '1 hour'
                * (CAST(:hours AS int[]))[least(l.transient_rounds, cardinality(CAST(:hours AS int[])))]) END,
        lease_token = CASE WHEN rests THEN NULL ELSE l.lease_token END,
        lease_worker = CASE WHEN rests THEN NULL ELSE l.lease_worker END,
        attempts = CASE WHEN rests THEN 0 ELSE l.attempts END
    FROM theirs WHERE l.id = theirs.id
""")  # noqa: S608 (our own expression)


class FlipsExceededError(Exception):
    """More filters would change than people allowed the backfill: rolls back what would change them."""

    def __init__(self, backfill: int, why: str) -> None:
        super().__init__(why)
        self.backfill, self.why = backfill, why


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, what changed) of a listing's published attributes (JSON).

    A field that only one of them has, since a bundle lacks its head, is unknown or empty in the other.
    """
    old, new = before["fields"], after["fields"]
    for field in dict.fromkeys([*old, *new]):
        nothing: list[str] | None = [] if isinstance(old.get(field, new.get(field)), list) else None
        was, now = old.get(field, nothing), new.get(field, nothing)
        if overridable(field) is None or was == now:
            continue  # a confidence, or no change
        if isinstance(was, list) and isinstance(now, list):
            yield from ((field, f"gains {one}") for one in sorted(set(now) - set(was)))
            yield from ((field, f"loses {one}") for one in sorted(set(was) - set(now)))
        else:
            yield field, f"{_said(was)} → {_said(now)}"


def tally(counts: Counts, found: Sequence[tuple[str, str]]) -> None:
    """Add the changes of one listing."""
    for field, change in [*{(field, "") for field, _ in found}, *found]:
        of_field = counts.setdefault(field, {})
        of_field[change] = of_field.get(change, 0) + 1


def count(connection: Connection, saved: Sequence[tuple[int, Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Count the flips of listings that are being saved: (backfill, attributes before, attributes after).

    Raises:
        FlipsExceededError: a backfill's bound would be passed.
    """
    if not saved:
        return
    for backfill in connection.execute(_BOUNDED, {"ids": sorted({id for id, _, _ in saved})}):
        if backfill.held is not None:  # by another process, just now
            raise FlipsExceededError(backfill.id, backfill.held)
        flips: Counts = backfill.flips
        for id, before, after in saved:
            if id == backfill.id:
                # What a head adds takes nothing off.
                tally(flips, [one for one in changes(before, after) if one[0] in before["fields"]])
        share, number = parse_number_or_share(backfill.max_flips)
        most = share_of(share, backfill.marked) if number is None else number
        for field, by_change in flips.items():
            if by_change[""] > most:
                raise FlipsExceededError(
                    backfill.id,
                    f"{field} would change for more than {most:,} of the {backfill.marked:,} listings "
                    f"(--max-flips {backfill.max_flips})",
                )
        connection.execute(_RECORD, {"id": backfill.id, "flips": json.dumps(flips)})


def hold(connection: Connection, backfill: int, why: str) -> None:
    """End a backfill where it is: its listings that still wait stay as they are."""
    connection.execute(_HOLD, {"id": backfill, "why": why})
    connection.execute(_UNMARK, {"id": backfill, "priority": BACKFILL, "hours": list(RETRY_HOURS)})


def _said(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else WORDS[value]
