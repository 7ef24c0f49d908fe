"""The outbox on a real Postgres: nothing is published twice without need, nothing is left out."""

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Connection, text

from enrich.records import WriteResult, WriteStatus
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.outbox import _UNPUBLISHED, Outbox, OutboxCounts, enqueue
from enrich.state.targets import Beside, serve
from tests.support.enriched import BUNDLE, add, result, wait_for_lock
from tests.support.postgres import Portal, enqueue_moved


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


@pytest.fixture
def published_to(outbox: Outbox) -> None:
    """The index that serves."""
    outbox.set_target("homes", "own", "uuid-0")


@pytest.fixture
def three(migrated: Portal, state: Listings) -> None:
    """Listings a, b, c, enriched and not published."""
    add(migrated, "a", "b", "c")
    for claim in state.claim(3):
        state.complete([result(claim)])


def send(outbox: Outbox, status: WriteStatus = WriteStatus.DONE, **other: Any) -> list[str]:
    """Publish everything, each write ending the same way; the ids."""
    rows = outbox.unpublished(None, 100)
    outbox.record([WriteResult(row.id, row.revision, status, **other) for row in rows])
    return [row.id for row in rows]


def move(portal: Portal, id: str, change: str = "") -> None:
    """Move a listing's revision, as whatever changes its document does."""
    portal.execute(f"UPDATE enrichment.listing SET {change} revision = revision + 1 WHERE id = :id", id=id)
    enqueue_moved(portal, id)


def waiting(outbox: Outbox) -> list[str]:
    return [row.id for row in outbox.unpublished(None, 100)]


@pytest.mark.usefixtures("published_to")
def test_a_row_carries_what_its_document_needs(migrated: Portal, outbox: Outbox, state: Listings) -> None:
    add(migrated, "a", "new", columns='{"price": 5}')
    (claim,) = state.claim(1, ["a"])
    state.complete([result(claim)])
    (row,) = outbox.unpublished(None, 10)
    kept = migrated.state("a")
    assert (row.id, row.revision, row.gone, row.columns, row.bundle_id) == (
        "a", kept.revision, False, {"price": 5}, BUNDLE,
    )  # fmt: skip
    assert (row.attributes, row.enriched_at) == (kept.attributes, kept.enriched_at)


@pytest.mark.usefixtures("published_to", "three")
class TestPublishing:
    def test_pages_walk_through_everything(self, outbox: Outbox) -> None:
        assert [row.id for row in outbox.unpublished(None, 2)] == ["a", "b"]
        assert [row.id for row in outbox.unpublished("b", 2)] == ["c"]
        assert outbox.unpublished("c", 2) == []

    def test_what_is_published_is_not_written_again(self, outbox: Outbox) -> None:
        assert send(outbox) == ["a", "b", "c"]
        assert waiting(outbox) == []
        assert outbox.counts() == OutboxCounts(0, 0, 0)

    def test_a_change_while_its_document_is_on_its_way_is_published_next(
        self, migrated: Portal, outbox: Outbox
    ) -> None:
        rows = outbox.unpublished(None, 10)
        migrated.execute("UPDATE enrichment.listing SET revision = revision + 1 WHERE id = 'b'")
        outbox.record([WriteResult(row.id, row.revision, WriteStatus.DONE) for row in rows])
        assert waiting(outbox) == ["b"]
        assert migrated.state("b").published_revision == rows[1].revision  # the one sent

    def test_what_is_recorded_late_takes_nothing_back(self, migrated: Portal, outbox: Outbox) -> None:
        rows = outbox.unpublished(None, 100)
        move(migrated, "a")
        send(outbox)  # another process, while this one stood still
        before = migrated.state("a")
        outbox.record([WriteResult(row.id, row.revision, WriteStatus.DONE) for row in rows])
        assert waiting(outbox) == []
        assert migrated.state("a") == before

    def test_a_listing_that_left_is_taken_away(self, migrated: Portal, outbox: Outbox) -> None:
        send(outbox)
        move(migrated, "b", "status = 'gone',")
        (row,) = outbox.unpublished(None, 10)
        assert (row.id, row.gone) == ("b", True)

    def test_a_refused_document_is_named_and_holds_nothing_up(self, migrated: Portal, outbox: Outbox) -> None:
        rows = outbox.unpublished(None, 10)
        outbox.record(
            [
                WriteResult("a", rows[0].revision, WriteStatus.DONE),
                WriteResult("b", rows[1].revision, WriteStatus.REFUSED, "field [x]\0 is not allowed"),
                WriteResult("c", rows[2].revision, WriteStatus.AWAITING),
            ]
        )
        assert waiting(outbox) == [], "tried once in a run"
        assert outbox.counts() == OutboxCounts(unpublished=2, awaiting=1, refused=1)
        assert migrated.state("b").publish_error == "field [x]� is not allowed"
        outbox.ask_again()
        assert waiting(outbox) == ["b", "c"]
        send(outbox)
        row = migrated.state("b")
        assert (row.publish_status, row.publish_error) == ("done", None)
        assert outbox.counts() == OutboxCounts(0, 0, 0)

    def test_a_passing_failure_leaves_no_trace(self, migrated: Portal, outbox: Outbox) -> None:
        before = migrated.state("a")
        send(outbox, WriteStatus.RETRY, error="429")
        assert migrated.state("a") == before

    def test_an_outdated_revision_is_raised_above_the_indexs(self, migrated: Portal, outbox: Outbox) -> None:
        high = migrated.state("a").revision + 1000
        send(outbox, WriteStatus.OUTDATED, index_revision=high)
        assert migrated.state("a").revision == high + 1
        assert waiting(outbox) == ["a", "b", "c"]

    def test_an_outdated_revision_that_moved_on_is_left_as_it_is(
        self, migrated: Portal, outbox: Outbox
    ) -> None:
        (row, *_) = outbox.unpublished(None, 1)
        migrated.execute("UPDATE enrichment.listing SET revision = revision + 5 WHERE id = 'a'")
        outdated = WriteResult("a", row.revision, WriteStatus.OUTDATED, index_revision=row.revision + 1000)
        outbox.record([outdated])
        assert migrated.state("a").revision == row.revision + 5

    def test_nothing_recorded_is_nothing_done(self, outbox: Outbox) -> None:
        outbox.record([])
        assert waiting(outbox) == ["a", "b", "c"]

    def test_documents_that_the_index_lost_are_written_again(self, migrated: Portal, outbox: Outbox) -> None:
        send(outbox)
        migrated.execute("UPDATE enrichment.listing SET status = 'gone' WHERE id = 'c'")
        assert outbox.mark_unpublished(["a", "c", "the portal's own", "a\0"]) == 1
        assert waiting(outbox) == ["a"]


@pytest.mark.usefixtures("three")
class TestTarget:
    def test_the_same_index_keeps_what_is_published(self, outbox: Outbox) -> None:
        assert outbox.set_target("homes", "own", "uuid-1")
        send(outbox)
        assert not outbox.set_target("homes", "own", "uuid-1")
        assert waiting(outbox) == []

    @pytest.mark.parametrize(
        "other", [("homes", "own", "uuid-2"), ("homes", "merge", "uuid-1"), ("houses", "own", "uuid-1")]
    )
    def test_another_index_has_everything_published_to_it(
        self, migrated: Portal, outbox: Outbox, other: tuple[str, str, str]
    ) -> None:
        outbox.set_target("homes", "own", "uuid-1")
        send(outbox)
        assert outbox.set_target(*other)
        assert waiting(outbox) == ["a", "b", "c"]
        assert migrated.state("a").publish_status == "waiting"

    @pytest.mark.parametrize(
        ("other", "kept"),
        [
            (("homes", "own", "uuid-3"), ["uuid-1", "uuid-3"]),
            (("homes", "merge", "uuid-3"), ["uuid-3"]),
            (("houses", "own", "uuid-3"), ["uuid-3"]),
        ],
    )
    def test_what_is_kept_for_going_back_is_so_only_under_the_name_that_serves(
        self,
        migrated: Portal,
        database: Database,
        outbox: Outbox,
        other: tuple[str, str, str],
        kept: list[str],
    ) -> None:
        """Under another one nobody goes back to it: each change would wait for it for ever."""
        outbox.set_target("homes", "own", "uuid-1")
        Beside(database).set_target("homes", "own", "uuid-2")
        serve(database, "homes", "own", "uuid-2", kept=["uuid-1"])
        outbox.set_target(*other)
        rows = migrated.execute("SELECT uuid FROM enrichment.target ORDER BY uuid")
        assert [row.uuid for row in rows] == kept

    def test_a_publisher_that_was_overtaken_records_nothing_for_the_new_index(
        self, database: Database, outbox: Outbox
    ) -> None:
        outbox.set_target("homes", "own", "uuid-1")
        rows = outbox.unpublished(None, 10)
        newer = Outbox(database)
        newer.set_target("homes", "own", "uuid-2")
        outbox.record([WriteResult(row.id, row.revision, WriteStatus.DONE) for row in rows])
        assert waiting(newer) == ["a", "b", "c"]

    def test_a_listing_that_is_saved_meanwhile_is_not_left_out_of_a_new_index(
        self, migrated: Portal, database: Database, outbox: Outbox
    ) -> None:
        started = Thread(target=lambda: outbox.set_target("homes", "own", "uuid-1"))
        add(migrated, "d")

        def save(connection: Connection) -> None:
            connection.execute(text("UPDATE listing SET revision = 7 WHERE id = 'd'"))
            enqueue(connection, ["d"])  # there is no target yet
            if not started.is_alive():
                started.start()
                wait_for_lock(migrated, started)

        database.run(save)
        started.join()
        assert waiting(outbox) == ["a", "b", "c", "d"]

    def test_an_index_that_is_filled_beside_the_one_that_serves_gets_all_changes(
        self, migrated: Portal, outbox: Outbox
    ) -> None:
        outbox.set_target("homes", "own", "uuid-1")
        send(outbox)
        migrated.execute(
            "INSERT INTO enrichment.target (name, mode, uuid, serving) VALUES ('next', 'own', 'u', false)"
        )
        move(migrated, "b")
        rows = migrated.execute(
            "SELECT t.name, p.listing_id FROM enrichment.publication p JOIN enrichment.target t"
            " ON t.id = p.target WHERE p.status = 'waiting' ORDER BY 1, 2"
        )
        assert rows == [("homes", "b"), ("next", "b")]
        assert outbox.counts() == OutboxCounts(1, 0, 0), "of the one that serves"


@pytest.mark.usefixtures("published_to", "three")
def test_a_revision_that_moves_while_its_write_is_recorded_stays_waiting(
    migrated: Portal, database: Database, outbox: Outbox
) -> None:
    rows = outbox.unpublished(None, 10)
    done = [WriteResult(row.id, row.revision, WriteStatus.DONE) for row in rows]
    recording = Thread(target=lambda: outbox.record(done))

    def change(connection: Connection) -> None:
        connection.execute(text("UPDATE listing SET revision = revision + 1 WHERE id = 'b'"))
        enqueue(connection, ["b"])
        recording.start()
        wait_for_lock(migrated, recording)

    database.run(change)
    recording.join()
    assert waiting(outbox) == ["b"]
    assert migrated.state("b").published_revision == rows[1].revision


def test_a_page_is_read_without_going_through_those_before(migrated: Portal, outbox: Outbox) -> None:
    """Of a new index, too, whose rows nobody but its own transaction has shown to the planner."""
    migrated.execute(
        "INSERT INTO enrichment.listing (id, photo_fp, doc_fp, status, revision, attributes)"
        " SELECT 'l' || n, '', '', 'done', n, '{}' FROM generate_series(1, 20000) n;"
        " ANALYZE enrichment.listing"
    )
    outbox.set_target("homes", "own", "uuid-1")
    given = {"target": 1, "after": "l5", "limit": 50}
    explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {_UNPUBLISHED.text}")
    (plan,) = outbox._database.run(lambda connection: connection.execute(explain, given).scalar_one())

    def scans(node: dict[str, Any]) -> Iterator[float]:
        if "Relation Name" in node:
            yield (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for child in node.get("Plans", ()):
            yield from scans(child)

    assert max(scans(plan["Plan"])) <= 2 * 50
