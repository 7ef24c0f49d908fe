"""Runs and status on a real Postgres."""

import pytest

from enrich.errors import UsageError
from enrich.records import PhotoStatus, WriteResult, WriteStatus
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.locks import Locks
from enrich.state.outbox import Outbox, OutboxCounts, Refusal
from enrich.state.overrides import Overrides
from enrich.state.runs import Runs, lock_of
from enrich.state.summary import details, summary
from tests.support.enriched import add, failed, ok, photo, result, sha
from tests.support.postgres import Portal


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


class TestRuns:
    def test_a_run_is_kept_with_how_it_ended(self, migrated: Portal, runs: Runs) -> None:
        first = runs.start_run("nightly", "bundle-1")
        second = runs.start_run("backfill", None)
        runs.finish_run(first, 3, {"photos": 12, "seconds": 1.5}, "too many\0 failures")
        newest, oldest = runs.runs(10)
        assert (newest.id, newest.kind, newest.finished_at, newest.exit_code) == (
            second, "backfill", None, None,
        )  # fmt: skip
        assert (oldest.id, oldest.bundle_id, oldest.exit_code) == (first, "bundle-1", 3)
        assert (oldest.figures, oldest.error) == ({"photos": 12, "seconds": 1.5}, "too many� failures")
        assert oldest.finished_at is not None
        assert oldest.finished_at >= oldest.started_at
        assert [run.id for run in runs.runs(1)] == [second]

    def test_a_run_is_under_way_while_its_process_shows_life(
        self, migrated: Portal, database: Database, runs: Runs, state: Listings
    ) -> None:
        def under_way() -> list[int]:
            return [run.id for run in runs.runs(10) if run.under_way]

        killed, number = runs.start_run("run", None), runs.start_run("run", None)
        assert under_way() == [], "no process shows that it lives"
        with Locks(database).hold("discover"):
            assert under_way() == [number], f"and run {killed} is an earlier one of this process"
            migrated.execute("UPDATE enrichment.lock SET expires = now() - interval '1 second'")
            assert under_way() == []
        add(migrated, "a")
        state.claim(1)
        assert under_way() == [number]
        migrated.execute("UPDATE enrichment.run SET host = 'elsewhere:1' WHERE id = :id", id=number)
        assert under_way() == [killed]
        runs.finish_run(killed, 0, {})
        assert under_way() == []

    def test_the_lock_of_a_killed_run_goes_with_a_later_run(
        self, migrated: Portal, database: Database, runs: Runs
    ) -> None:
        locks = Locks(database)
        for days, number in enumerate((7, 8)):
            locks.acquire(lock_of(number), "killed:1", -1.5 * 86400 * days)
        locks.acquire("publish", "killed:1", -9 * 86400)
        runs.start_run("run", None)
        left = migrated.execute("SELECT name FROM enrichment.lock ORDER BY name")
        assert [name for (name,) in left] == ["publish", "run 7"]


class TestStatus:
    def test_an_empty_state_has_a_summary(self, migrated: Portal, database: Database) -> None:
        told = summary(database)
        assert (told.listings, told.quarantine_reasons, told.lag_seconds, told.bundles) == ({}, (), None, {})
        assert told.outbox == OutboxCounts(0, 0, 0)

    def test_a_summary_counts_everything(self, migrated: Portal, database: Database, state: Listings) -> None:
        add(migrated, "a", "b", "c", "d", "e", "f")
        for id, bundle in (("a", "old"), ("b", "new")):
            state.complete([result(state.claim(1, [id])[0], bundle_id=bundle)])
        for id, reason in (("c", "rare"), ("d", "often"), ("e", "often")):
            state.fail(state.claim(1, [id])[0], reason)
        outbox = Outbox(database)
        outbox.set_target("homes", "own", "uuid-1")
        refused, published = outbox.unpublished(None, 10)
        outbox.record(
            [
                WriteResult(refused.id, refused.revision, WriteStatus.REFUSED, "no"),
                WriteResult(published.id, published.revision, WriteStatus.DONE),
            ]
        )
        migrated.execute("UPDATE enrichment.listing SET pending_since = now() - interval '1 hour'")
        told = summary(database)
        assert told.listings == {"done": 2, "quarantined": 3, "pending": 1}
        assert told.quarantine_reasons == (("often", 2), ("rare", 1))
        assert summary(database, reasons=1).quarantine_reasons == (("often", 2),)
        assert told.outbox == OutboxCounts(unpublished=1, awaiting=0, refused=1)
        assert told.refusals == (Refusal("no", 1, "a"),)
        assert told.bundles == {"new": 1, "old": 1}
        assert told.stale("new") == 1
        assert told.lag_seconds is not None
        assert 3600 <= told.lag_seconds < 4000

    def test_what_is_not_due_yet_does_not_lag(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        add(migrated, "a")
        state.complete([result(state.claim(1)[0], [failed(photo("x"), PhotoStatus.DNS)])])
        assert summary(database).lag_seconds is None
        migrated.execute("UPDATE enrichment.listing SET not_before = now() - interval '2 hours'")
        lag = summary(database).lag_seconds
        assert lag is not None
        assert 7200 <= lag < 7600

    def test_details_tell_everything_of_a_listing(
        self, migrated: Portal, database: Database, state: Listings
    ) -> None:
        add(migrated, "a")
        shown, broken = photo("x"), photo("y", 1)
        state.complete(
            [result(state.claim(1)[0], [ok(shown, sha("1")), failed(broken, PhotoStatus.TIMEOUT)])]
        )
        Overrides(database).set_override("a", "has_balcony", False, None, "ann")
        told = details(database, "a")
        assert told.listing["status"] == "retry"
        assert [p["status"] for p in told.listing["photos"]] == ["ok", "timeout"]
        assert told.photos[shown.key]["status"] == "ok"
        assert told.photos[broken.key]["next_try"] is not None
        assert [o.field for o in told.overrides] == ["has_balcony"]

    def test_a_listing_that_is_not_there_is_said(self, migrated: Portal, database: Database) -> None:
        with pytest.raises(UsageError, match="no listing 'nobody'"):
            details(database, "nobody")
