"""What `enrich status` and `enrich show` tell: read from state, changing nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from enrich.state import backfills, outbox, overrides, workers
from enrich.state.backfills import Backfill
from enrich.state.database import Database
from enrich.state.lookup import unknown_listing
from enrich.state.outbox import OutboxCounts, Refusal
from enrich.state.overrides import Override
from enrich.state.schema import SERVED
from enrich.state.workers import Worker

_STATUSES = text("SELECT status, count(*) AS listings FROM listing GROUP BY status")

_REASONS = text("""
    SELECT left(coalesce(error, 'unknown'), 200) AS reason, count(*) AS listings
    FROM listing WHERE status = 'quarantined'
    GROUP BY reason ORDER BY count(*) DESC, reason LIMIT :most
""")

_QUARANTINED = text("""
    SELECT id, left(coalesce(error, 'unknown'), 500) AS reason, attempts
    FROM listing WHERE status = 'quarantined' ORDER BY id LIMIT :most
""")

_LAG = text("""
    SELECT extract(epoch FROM clock_timestamp() - min(CASE status WHEN 'retry' THEN not_before
                                                                  ELSE pending_since END))
    FROM listing
    WHERE status IN ('pending', 'leased') OR (status = 'retry' AND not_before <= clock_timestamp())
""")

_BUNDLES = text("""
    SELECT bundle_id, count(*) AS listings FROM listing
    WHERE status <> 'gone' AND bundle_id IS NOT NULL
    GROUP BY bundle_id ORDER BY count(*) DESC, bundle_id
""")

_LISTING = text(f"""
    SELECT listing.*, worker.host || ':' || worker.pid AS worker, worker.expires AS lease_expires,
           p.revision AS published_revision, p.status AS publish_status, p.error AS publish_error
    FROM listing LEFT JOIN worker ON worker.id = lease_worker
    LEFT JOIN ({SERVED})
        ON p.listing_id = listing.id
    WHERE listing.id = :id
""")  # noqa: S608 (our own constant)

_PHOTOS = text("""
    SELECT key, status, sha256, failures, next_try, error, checked_at FROM photo WHERE key = ANY(:keys)
""")


_PHOTOS_OF = text("SELECT id, photos FROM listing WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class Summary:
    """The state as a whole."""

    listings: Mapping[str, int]
    """Status -> listings; statuses that none has are absent."""
    quarantine_reasons: tuple[tuple[str, int], ...]
    """The most frequent reasons with their counts."""
    outbox: OutboxCounts
    refusals: tuple[Refusal, ...]
    """The most frequent reasons why the index refuses documents."""
    lag_seconds: float | None
    """How long the listing that waits longest has waited; None where none waits."""
    bundles: Mapping[str, int]
    """Bundle id -> listings made with it, most first."""
    workers: tuple[Worker, ...]
    """Processes that enrich now."""
    backfills: tuple[Backfill, ...]
    """The unfinished ones and the last few, newest first."""

    def stale(self, bundle_id: str) -> int:
        """Listings made with another bundle."""
        return sum(self.bundles.values()) - self.bundles.get(bundle_id, 0)


@dataclass(frozen=True, slots=True)
class ListingDetails:
    """All that is known of one listing."""

    listing: Mapping[str, Any]
    """Its row of table `listing`, `photos` among it; `worker` (host:pid) and `lease_expires` where leased;
    and `published_revision`, `publish_status` and `publish_error` of the index that serves."""
    photos: Mapping[str, Mapping[str, Any]]
    """URL key -> status, sha256, failures, next_try, error, checked_at."""
    overrides: tuple[Override, ...]


def summary(database: Database, reasons: int = 5) -> Summary:
    """Count everything; at most `reasons` reasons of quarantine and of refusals."""

    def work(connection: Connection) -> Summary:
        lag = connection.scalar(_LAG)
        return Summary(
            listings={row.status: row.listings for row in connection.execute(_STATUSES)},
            quarantine_reasons=tuple(
                (row.reason, row.listings) for row in connection.execute(_REASONS, {"most": reasons})
            ),
            outbox=outbox.counts(connection),
            refusals=outbox.refusals(connection, reasons),
            lag_seconds=None if lag is None else max(float(lag), 0.0),
            bundles={row.bundle_id: row.listings for row in connection.execute(_BUNDLES)},
            workers=workers.live(connection),
            backfills=backfills.progress(connection),
        )

    return database.run(work)


def quarantined(database: Database, most: int) -> list[tuple[str, str, int]]:
    """The first listings in quarantine, by id: (id, why, how many workers died on it)."""
    return [tuple(row) for row in database.rows(_QUARANTINED, most=most)]


def details(database: Database, id: str) -> ListingDetails:
    """All that is known of one listing.

    Raises:
        UsageError: no such listing.
    """

    def work(connection: Connection) -> ListingDetails:
        row = connection.execute(_LISTING, {"id": id}).mappings().one_or_none()
        if row is None:
            raise unknown_listing(connection, id)
        keys = [photo["key"] for photo in row["photos"]]
        found = connection.execute(_PHOTOS, {"keys": keys}).mappings()
        return ListingDetails(
            dict(row),
            {photo["key"]: dict(photo) for photo in found},
            tuple(overrides.read(connection, [id]).get(id, ())),
        )

    return database.run(work)


def photos_of(database: Database, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Id -> the photos of those of these listings that are known, as of their last completion, by position.

    A photo has `key`, `position`, `url` (without what signs it), `status` and `sha256`, None where no bytes
    were seen.
    """
    rows = database.rows(_PHOTOS_OF, ids=list(ids))
    return {row.id: sorted(row.photos, key=lambda photo: photo["position"]) for row in rows}
