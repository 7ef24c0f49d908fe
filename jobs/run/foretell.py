"""`enrich backfill --stale-bundle --dry-run`: which filters the current bundle would change, on a sample.

The sample goes through the pipeline as in a backfill: photos with kept features or scores are not fetched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Row, text

from enrich.errors import UsageError
from enrich.records import Claim, ListingResult
from enrich.settings import Settings
from enrich.state.flips import Counts, changes, tally
from jobs.run.backfill import BackfillOptions, selection
from jobs.run.looking import LookingQueue, chosen
from jobs.run.services import Services, open_services
from jobs.run.session import pipeline_on
from jobs.run.stop import Stop

SAMPLE = 1_000  # listings gone through, unless --sample says otherwise
EXAMPLES = 3  # of each change

_STALE = """
    FROM listing
    WHERE status NOT IN ('gone', 'quarantined')
      AND bundle_id IS DISTINCT FROM :stale_bundle AND attributes IS NOT NULL
      AND (CAST(:ids AS text[]) IS NULL OR id = ANY(:ids))
      AND (CAST(:since AS timestamptz) IS NULL OR updated_at >= :since)
"""
_COUNT = text(f"SELECT count(*) {_STALE}")
_DRAW = text(f"SELECT id {_STALE} ORDER BY md5(id) LIMIT :sample")


@dataclass(frozen=True, slots=True)
class Example:
    """A listing whose filter would change. `evidence` is the photo that decides, if one does."""

    listing_id: str
    confidence_before: float | None
    confidence: float | None
    evidence: str | None


@dataclass(slots=True)
class Foretold:
    """What a roll-out would change, as far as the sample tells."""

    stale: int
    """Listings made with another bundle."""
    sampled: int = 0
    """Of them, those that were gone through."""
    failed: int = 0
    """Of them, those of which nothing can be said: gone from the portal, or not to be worked on now."""
    flips: Counts = field(default_factory=dict)
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)
    """(field, change) -> the first few."""
    lacking: set[str] = field(default_factory=set)
    """Fields of `flips` whose heads the current bundle has no more."""
    new: set[str] = field(default_factory=set)
    """Those whose heads it adds, which no bound counts."""


def foretell(settings: Settings, options: BackfillOptions, sample: int, stop: Stop) -> Foretold:
    """Go through a random sample of the listings made with another bundle, and write nothing.

    The same listings are drawn every time.

    Raises:
        EnrichError: with the exit code of the command; see `enrich.errors`.
    """
    if not options.stale_bundle:
        raise UsageError("backfill --dry-run shows what a new bundle changes: say --stale-bundle, too")
    told = {
        "--max-flips": options.max_flips is not None,
        "--revalidate": options.revalidate,
        "--ray": options.ray is not None,
    }
    if without := [option for option, said in told.items() if said]:
        raise UsageError(
            f"backfill --dry-run only tells what would change: leave out {' and '.join(without)}"
        )
    with open_services(settings, stop=stop) as services:
        options = replace(options, ids=services.spelled(options.ids))
        given = selection(services, options).as_row() | {"sample": sample}

        def draw(connection: Connection) -> tuple[int, list[str]]:
            drawn = connection.execute(_DRAW, given).scalars()
            return int(connection.execute(_COUNT, given).scalar_one()), list(drawn)

        stale, ids = services.database.run(draw)
        foretold = Foretold(stale)
        queue = SampleQueue(services, foretold, ids)
        if ids:
            pipeline_on(services, queue, stop.is_set).run()
    return foretold


class SampleQueue(LookingQueue):
    """A `WorkQueue` that hands out the listings of a sample, and counts what would change."""

    def __init__(self, services: Services, foretold: Foretold, ids: Sequence[str]) -> None:
        super().__init__(services, map(chosen, ids))
        self._foretold = foretold
        self._lock = Lock()

    def release(self, claims: Sequence[Claim], forgive: bool = True, later: float = 0.0) -> None:
        with self._lock:
            self._foretold.failed += len(claims)

    def _completed(self, result: ListingResult, row: Row[Any] | None, attributes: dict[str, Any]) -> None:
        with self._lock:
            self._foretold.sampled += 1
            if row is not None and row.attributes:
                self._compare(result.claim.id, row.attributes, attributes)

    def _compare(self, id: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        found = list(changes(before, after))
        tally(self._foretold.flips, found)
        for field_, change in found:
            if field_ not in after["fields"]:
                self._foretold.lacking.add(field_)
            if field_ not in before["fields"]:
                self._foretold.new.add(field_)
            examples = self._foretold.examples.setdefault((field_, change), [])
            if len(examples) < EXAMPLES:
                head = field_.removeprefix("has_")
                was, now = (of["fields"].get(f"{head}_confidence") for of in (before, after))
                decided = after["evidence"].get(head) or before["evidence"].get(head) or {}
                examples.append(Example(id, was, now, decided.get("url")))
