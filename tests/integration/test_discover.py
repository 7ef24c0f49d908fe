"""Discovery on a real Postgres: what is found, what is written, and what is left alone."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from enrich.settings import Settings, load_settings
from enrich.source.discover import Discovery, discover
from enrich.source.foresee import Foresight, Prospect
from enrich.source.portal import Source
from enrich.state.database import Database
from enrich.state.targets import serving
from tests.support.postgres import LISTINGS, Portal

URLS = ["http://photos.example/a.jpg", "http://photos.example/b.jpg"]


class Night:
    """Runs discovery, each time as a new run."""

    def __init__(self, portal: Portal, database: Database) -> None:
        self.portal = portal
        self.database = database
        self.run_id = 0

    def __call__(self, *, settings: dict[str, Any] | None = None, **options: Any) -> Discovery:
        self.run_id += 1
        chosen = self.settings(**(settings or {}))
        return discover(Source(self.database, chosen), self.database, chosen, self.run_id, **options)

    def foresee(self, revalidate: bool = False) -> Discovery:
        """What the next night would find."""
        return self.foresight(revalidate).discovery(allow_removals=False)

    def ahead(self, found: Discovery, revalidate: bool = False) -> list[Prospect]:
        """What it would do."""
        return list(self.foresight(revalidate).prospects(refused=found.refusal is not None))

    def foresight(self, revalidate: bool) -> Foresight:
        source, settings = Source(self.database, self.settings()), self.settings()
        return Foresight(source, self.database, settings, None, revalidate, self.target())

    def target(self) -> int | None:
        return self.database.run(serving)

    @staticmethod
    def settings(**changes: Any) -> Settings:
        return load_settings(**{"index_columns": ("city", "price"), "page_size": 3, **changes})

    def complete(self, *ids: str, publish: bool = True) -> None:
        """What enriching and publishing leave behind."""
        self.portal.execute(
            """UPDATE enrichment.listing SET status = 'done',
                 photo_fp_done = photo_fp, updated_at_done = updated_at,
                 attributes = '{"fields": {}}', revision = 1000, revalidate = false, pending_since = NULL,
                 attempts = 0
               WHERE id = ANY(:ids)""",
            ids=list(ids),
        )
        if publish:
            self.portal.published(*ids)

    def rows(self) -> dict[str, Any]:
        return {row.id: row for row in self.portal.execute(LISTINGS)}


@pytest.fixture
def night(migrated: Portal, database: Database, monkeypatch: pytest.MonkeyPatch) -> Night:
    monkeypatch.setattr("enrich.source.pages.IDS", 5)  # pages of 3 and 2 listings, and more ids after them
    return Night(migrated, database)


def assert_refused(found: Discovery, why: str) -> None:
    """The removal guard let nothing leave."""
    assert found.refusal is not None and re.search(why, found.refusal)
    assert found.removed == 0


def counts(found: Discovery) -> dict[str, int]:
    kinds = ("new", "returned", "changed", "documents", "revalidated", "removed", "unchanged")
    return {kind: getattr(found, kind) for kind in kinds if getattr(found, kind)}


@pytest.fixture
def homes(night: Night) -> list[str]:
    """Seven homes over three pages, enriched and published."""
    ids = [f"home-{n}" for n in range(7)]
    for id in ids:
        night.portal.add(id, URLS, city="Solna", price=100)
    night()
    night.complete(*ids)
    return ids


def test_new_listings_wait_for_enrichment(night: Night) -> None:
    for id in ("b", "a", "Ö", "c-1", "c_1", "C"):
        night.portal.add(id, URLS, city="Solna", price=7)
    found = night()
    assert (counts(found), found.seen) == ({"new": 6}, 6)
    row = night.rows()["Ö"]
    assert (row.status, row.requested, row.priority) == ("pending", 1, 0)
    assert row.columns == {"city": "Solna", "price": 7}
    assert row.pending_since is not None and row.revision is None


def test_unchanged_listings_cause_no_write(night: Night, homes: list[str]) -> None:
    before = night.rows()
    found = night()
    assert counts(found) == {"unchanged": 7}
    assert night.rows() == before


def test_waiting_listings_are_not_asked_for_again(night: Night) -> None:
    night.portal.add("a", URLS)
    night()
    before = night.rows()
    assert counts(night()) == {"unchanged": 1}
    assert night.rows() == before


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO listing_images VALUES ('home-4', 2, 'http://photos.example/c.jpg')",
        "DELETE FROM listing_images WHERE listing_id = 'home-4' AND position = 1",
        "DELETE FROM listing_images WHERE listing_id = 'home-4'",
        "UPDATE listing_images SET position = 1 - position WHERE listing_id = 'home-4'",
        "UPDATE listing_images SET version = 'v2' WHERE listing_id = 'home-4' AND position = 0",
        "UPDATE listing_images SET url = url || '?size=2' WHERE listing_id = 'home-4' AND position = 0",
    ],
    ids=["added", "removed", "all removed", "reordered", "version", "url"],
)
def test_changed_photos_are_asked_for_and_nothing_else_is(
    night: Night, homes: list[str], change: str
) -> None:
    before = night.rows()
    night.portal.execute(change)
    assert counts(night()) == {"changed": 1, "unchanged": 6}
    after = night.rows()
    row, old = after.pop("home-4"), before.pop("home-4")
    assert (row.status, row.requested, row.revision) == ("pending", old.requested + 1, old.revision)
    assert row.photo_fp != old.photo_fp and row.photo_fp_done == old.photo_fp
    assert after == before


def test_a_re_signed_url_changes_nothing(night: Night, homes: list[str]) -> None:
    night.portal.execute("UPDATE listing_images SET url = url || '?Expires=17&X-Amz-Date=x#f'")
    assert counts(night()) == {"unchanged": 7}


def test_a_changed_column_is_published_without_asking_for_photos(night: Night, homes: list[str]) -> None:
    night.portal.execute("UPDATE listings SET price = 200, updated_at = now() WHERE id = 'home-2'")
    assert counts(night()) == {"documents": 1, "unchanged": 6}
    row = night.rows()["home-2"]
    assert (row.status, row.requested, row.columns["price"]) == ("done", 1, 200)
    assert row.revision > 1000 and row.published_revision == 1000
    assert counts(night()) == {"unchanged": 7}, "the moved updated_at is explained by the price"


def test_a_changed_column_before_the_first_enrichment_makes_no_revision(night: Night) -> None:
    night.portal.add("a", URLS, price=1)
    night()
    night.portal.execute("UPDATE listings SET price = 2")
    assert counts(night()) == {"documents": 1}
    row = night.rows()["a"]
    assert (row.revision, row.columns["price"], row.status) == (None, 2, "pending")


def test_photos_and_columns_changed_together_count_once(night: Night, homes: list[str]) -> None:
    night.portal.execute("UPDATE listings SET price = 200 WHERE id = 'home-2'")
    night.portal.execute("DELETE FROM listing_images WHERE listing_id = 'home-2' AND position = 0")
    assert counts(night()) == {"changed": 1, "unchanged": 6}
    row = night.rows()["home-2"]
    assert (row.status, row.columns["price"]) == ("pending", 200)
    assert row.revision > 1000, "the new price need not wait for the photos"


def test_new_photos_lift_quarantine_and_reset_attempts(night: Night, homes: list[str]) -> None:
    night.portal.execute(
        "UPDATE enrichment.listing SET status = 'quarantined', error = 'x', attempts = 5,"
        " transient_rounds = 3, not_before = now() + interval '1 day', priority = 10 WHERE id = 'home-1'"
    )
    night.portal.add_photo("home-1", 2, "http://photos.example/c.jpg")
    night()
    row = night.rows()["home-1"]
    assert (row.status, row.error, row.attempts, row.transient_rounds) == ("pending", None, 0, 0)
    assert (row.not_before, row.priority) == (None, 0)


def test_a_leased_listing_stays_leased_and_is_asked_for_again(night: Night, homes: list[str]) -> None:
    night.portal.execute(
        "UPDATE enrichment.listing SET status = 'leased', lease_token = gen_random_uuid() WHERE id = 'home-1'"
    )
    night.portal.add_photo("home-1", 2, "http://photos.example/c.jpg")
    before = night.rows()["home-1"]
    night()
    row = night.rows()["home-1"]
    assert (row.status, row.lease_token) == ("leased", before.lease_token)
    assert row.requested == before.requested + 1


def test_what_a_worker_completed_meanwhile_is_not_asked_for_again(
    night: Night, homes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker reads and completes the new photos between the comparison and the write."""
    night.portal.add_photo("home-1", 2, "http://photos.example/c.jpg")
    documents = Source.documents

    def meanwhile(self: Source, ids: list[str]) -> Any:
        if ids:
            (now,) = self.by_ids(["home-1"])
            night.portal.execute(
                "UPDATE enrichment.listing SET photo_fp = :fp, photo_fp_done = :fp WHERE id = 'home-1'",
                fp=now.photo_fp,
            )
        return documents(self, ids)

    monkeypatch.setattr(Source, "documents", meanwhile)
    before = night.rows()["home-1"]
    night()
    row = night.rows()["home-1"]
    assert (row.status, row.requested) == ("done", before.requested)


class TestMovedUpdatedAt:
    """`updated_at` moved, and nothing else that we see: the bytes may have changed behind a URL."""

    def test_photos_without_versions_are_revalidated(self, night: Night, homes: list[str]) -> None:
        night.portal.touch("home-3")
        assert counts(night()) == {"revalidated": 1, "unchanged": 6}
        row = night.rows()["home-3"]
        assert (row.status, row.revalidate, row.requested) == ("pending", True, 2)
        assert counts(night()) == {"unchanged": 7}, "asked once, until it is done"

    def test_photos_with_versions_are_not(self, night: Night) -> None:
        night.portal.add("a", URLS, version="v1")
        night()
        night.complete("a")
        night.portal.touch("a")
        assert counts(night()) == {"unchanged": 1}
        row = night.rows()["a"]
        assert (row.status, row.updated_at_done) == ("done", row.updated_at)
        before = night.rows()
        night()
        assert night.rows() == before

    def test_one_photo_without_a_version_is_enough(self, night: Night) -> None:
        night.portal.add("a", URLS, version=["v1", None])
        night()
        night.complete("a")
        night.portal.touch("a")
        assert counts(night()) == {"revalidated": 1}

    def test_at_most_once_per_period_and_not_forgotten(self, night: Night, homes: list[str]) -> None:
        night.portal.execute("UPDATE enrichment.listing SET revalidated_at = now() - interval '1 hour'")
        night.portal.touch("home-3")
        assert counts(night()) == {"unchanged": 7}
        night.portal.execute("UPDATE enrichment.listing SET revalidated_at = now() - interval '25 hours'")
        assert counts(night()) == {"revalidated": 1, "unchanged": 6}

    @pytest.mark.parametrize("seconds", ["1e12", "inf"])
    def test_a_period_may_be_as_long_as_one_likes(self, night: Night, homes: list[str], seconds: str) -> None:
        night.portal.execute(
            "UPDATE enrichment.listing SET revalidated_at = '2000-01-01' WHERE id <> 'home-4'"
        )
        night.portal.touch("home-3")
        night.portal.touch("home-4")
        found = night(settings={"revalidate_after": seconds})
        assert counts(found) == {"revalidated": 1, "unchanged": 6}
        assert night.rows()["home-4"].status == "pending", "it was never asked again before"

    def test_other_columns_to_be_copied_explain_nothing(self, night: Night, homes: list[str]) -> None:
        night.portal.touch("home-3")
        assert counts(night(settings={"index_columns": ("city",)})) == {"documents": 7}
        night.portal.touch("home-4")
        assert counts(night()) == {"documents": 7}
        assert counts(night()) == {"revalidated": 2, "unchanged": 5}

    def test_a_copied_updated_at_explains_not_itself(self, night: Night, homes: list[str]) -> None:
        copied = {"index_columns": ("city", "price", "updated_at")}
        assert counts(night(settings=copied)) == {"documents": 7}
        night.portal.touch("home-3")
        price = "UPDATE listings SET price = price + 1, updated_at = now() WHERE id = 'home-4'"
        night.portal.execute(price)
        assert counts(night(settings=copied)) == {"documents": 2, "unchanged": 5}
        assert counts(night(settings=copied)) == {"revalidated": 1, "unchanged": 6}
        rows = night.rows()
        assert (rows["home-3"].revalidate, rows["home-4"].revalidate) == (True, False)

    def test_a_copied_updated_at_that_moves_every_night_hides_nothing(
        self, night: Night, homes: list[str]
    ) -> None:
        copied = {"index_columns": ("city", "price", "updated_at")}
        night(settings=copied)
        for _ in range(2):
            assert not night.rows()["home-3"].revalidate
            night.portal.touch("home-3")
            assert counts(night(settings=copied)) == {"documents": 1, "unchanged": 6}
        assert night.rows()["home-3"].revalidate

    def test_one_that_was_put_off_is_looked_into_though_its_price_moves(
        self, night: Night, homes: list[str]
    ) -> None:
        revalidated = "UPDATE enrichment.listing SET revalidated_at = now() - CAST(:ago AS interval)"
        price = "UPDATE listings SET price = price + 1, updated_at = now() WHERE id = 'home-3'"
        night.portal.execute(revalidated, ago="1 hour")
        night.portal.touch("home-3")
        assert counts(night()) == {"unchanged": 7}
        night.portal.execute(price)
        assert counts(night()) == {"documents": 1, "unchanged": 6}
        assert night.rows()["home-3"].status == "done"
        night.portal.execute(price)
        night.portal.execute(revalidated, ago="25 hours")
        ahead = night.ahead(night.foresee())
        assert Prospect("home-3", enriched=True, revalidate=True, outcome="written") in ahead
        assert counts(night()) == {"documents": 1, "unchanged": 6}
        row = night.rows()["home-3"]
        assert (row.status, row.revalidate, row.columns["price"]) == ("pending", True, 102)

    def test_all_are_when_told_so(self, night: Night, homes: list[str]) -> None:
        assert counts(night(revalidate=True)) == {"revalidated": 7}
        assert {(row.status, row.revalidate) for row in night.rows().values()} == {("pending", True)}

    def test_all_are_when_told_so_also_one_whose_price_moved(self, night: Night, homes: list[str]) -> None:
        night.portal.execute("UPDATE listings SET price = 200 WHERE id = 'home-2'")
        ahead = night.ahead(night.foresee(revalidate=True), revalidate=True)
        assert Prospect("home-2", enriched=True, revalidate=True, outcome="written") in ahead
        assert counts(night(revalidate=True)) == {"documents": 1, "revalidated": 6}
        row = night.rows()["home-2"]
        assert (row.status, row.revalidate, row.columns["price"]) == ("pending", True, 200)

    def test_none_is_that_lost_its_photos_and_is_withheld(self, night: Night, homes: list[str]) -> None:
        night.portal.execute("DELETE FROM listing_images WHERE listing_id IN ('home-1', 'home-2')")
        night.portal.execute("UPDATE listings SET price = 200 WHERE id = 'home-2'")
        assert_refused(night(revalidate=True, settings={"max_removed": "1"}), "would lose all their photos")
        rows = night.rows()
        assert {(rows[id].status, rows[id].revalidate) for id in ("home-1", "home-2")} == {("done", False)}
        assert rows["home-2"].columns["price"] == 200


class TestRemoval:
    def test_a_deleted_listing_is_gone_and_its_document_leaves(self, night: Night, homes: list[str]) -> None:
        night.portal.remove("home-6")
        night.portal.remove("home-0")
        assert counts(night()) == {"removed": 2, "unchanged": 5}
        row = night.rows()["home-6"]
        assert row.status == "gone" and row.revision > row.published_revision
        before = night.rows()
        assert counts(night()) == {"unchanged": 5}
        assert night.rows() == before

    def test_a_deactivated_listing_is_gone(self, night: Night, homes: list[str]) -> None:
        night.portal.execute("UPDATE listings SET active = false WHERE id = 'home-3'")
        night.portal.execute("UPDATE listings SET active = true WHERE id = 'home-4'")
        assert counts(night()) == {"removed": 1, "unchanged": 6}
        assert night.rows()["home-3"].status == "gone"

    def test_a_lease_ends(self, night: Night, homes: list[str]) -> None:
        night.portal.execute(
            "UPDATE enrichment.listing SET status = 'leased', lease_token = gen_random_uuid(),"
            " lease_worker = gen_random_uuid() WHERE id = 'home-1'"
        )
        night.portal.remove("home-1")
        night()
        row = night.rows()["home-1"]
        assert (row.status, row.lease_token, row.lease_worker, row.requested) == ("gone", None, None, 2)

    def test_never_published_makes_no_revision(self, night: Night) -> None:
        night.portal.add("a", URLS)
        night.portal.add("b", URLS)
        night()
        night.portal.remove("a")
        night()
        row = night.rows()["a"]
        assert (row.status, row.revision) == ("gone", None)

    def test_back_unchanged_only_the_document_returns(self, night: Night, homes: list[str]) -> None:
        night.portal.execute("UPDATE listings SET active = false WHERE id = 'home-3'")
        night()
        gone = night.rows()["home-3"]
        night.portal.execute(
            "UPDATE listings SET active = true, price = 5, updated_at = now() WHERE id = 'home-3'"
        )
        assert counts(night()) == {"returned": 1, "unchanged": 6}
        row = night.rows()["home-3"]
        assert (row.status, row.columns["price"], row.pending_since) == ("done", 5, None)
        assert row.revision > gone.revision
        assert counts(night()) == {"unchanged": 7}

    def test_back_with_other_photos_it_is_enriched(self, night: Night, homes: list[str]) -> None:
        night.portal.remove("home-3")
        night()
        gone = night.rows()["home-3"]
        night.portal.add("home-3", ["http://photos.example/new.jpg"], city="Solna", price=100)
        assert counts(night()) == {"returned": 1, "unchanged": 6}
        row = night.rows()["home-3"]
        assert (row.status, row.requested) == ("pending", gone.requested + 1)
        assert row.revision > gone.revision, (
            "its document must return even if the attributes come out the same"
        )

    def test_back_with_failed_photos_it_is_tried_again(self, night: Night, homes: list[str]) -> None:
        night.portal.execute(
            "UPDATE enrichment.listing SET status = 'retry', transient_rounds = 2, not_before = now()"
            " WHERE id = 'home-3'"
        )
        night.portal.execute("UPDATE listings SET active = false WHERE id = 'home-3'")
        night()
        night.portal.execute("UPDATE listings SET active = true WHERE id = 'home-3'")
        night()
        assert night.rows()["home-3"].status == "pending"

    @pytest.mark.parametrize("status", ["pending", "leased", "retry"])
    @pytest.mark.parametrize("revalidate", [False, True])
    def test_back_after_it_left_while_it_waited_it_is_enriched(
        self, night: Night, homes: list[str], status: str, revalidate: bool
    ) -> None:
        night.portal.execute(  # for instance since another listing saw new bytes of its photo
            "UPDATE enrichment.listing SET status = :status, revalidate = :revalidate,"
            " requested = requested + 1, pending_since = now() WHERE id = 'home-3'",
            status=status,
            revalidate=revalidate,
        )
        night.portal.execute("UPDATE listings SET active = false WHERE id = 'home-3'")
        night()
        night.portal.execute("UPDATE listings SET active = true WHERE id = 'home-3'")
        assert counts(night()) == {"returned": 1, "unchanged": 6}
        row = night.rows()["home-3"]
        assert (row.status, row.revalidate) == ("pending", revalidate)


@pytest.fixture
def town(night: Night) -> Callable[..., None]:
    """So many published homes, of which so many vanish."""

    def build(published: int, vanish: int) -> None:
        night.portal.execute(
            "INSERT INTO listings (id, updated_at) SELECT 't' || n, now() FROM generate_series(1, :n) n",
            n=published,
        )
        night(settings={"page_size": 100})
        night.portal.execute("UPDATE enrichment.listing SET status = 'done', revision = 1")
        night.portal.published(*night.rows())
        night.portal.execute(
            "DELETE FROM listings WHERE id IN (SELECT 't' || n FROM generate_series(1, :n) n)", n=vanish
        )

    return build


class TestRemovalGuard:
    @pytest.mark.parametrize(
        ("published", "vanish", "max_removed", "trips"),
        [
            (100, 20, "5%", False),
            (100, 21, "5%", True),
            (600, 30, "5%", False),
            (600, 31, "0.05", True),
            (100, 3, "3", False),
            (100, 4, "3", True),
            (100, 1, "0", True),
        ],
    )
    def test_trips_over_the_limit(
        self,
        night: Night,
        town: Callable[..., None],
        published: int,
        vanish: int,
        max_removed: str,
        trips: bool,
    ) -> None:
        town(published, vanish)
        settings = {"max_removed": max_removed, "page_size": 70}
        if not trips:
            assert night(settings=settings).removed == vanish
            return
        assert_refused(night(settings=settings), f"{vanish} of {published}.*--allow-removals")
        assert "gone" not in {row.status for row in night.rows().values()}
        assert night(settings=settings, allow_removals=True).removed == vanish

    def test_an_emptied_table_removes_nothing(self, night: Night, homes: list[str]) -> None:
        night.portal.execute("DELETE FROM listings")
        found = night(settings={"max_removed": "100%"})
        assert_refused(found, "no active listings at all, and 7 documents")
        assert {row.status for row in night.rows().values()} == {"done"}
        assert night(allow_removals=True).removed == 7

    def test_listings_that_never_had_a_photo_with_a_url_lose_none(self, night: Night) -> None:
        night.portal.add("home-1", [None])
        night()
        night.complete("home-1")
        night.portal.execute("""UPDATE enrichment.listing SET attributes = '{"photos_seen": 0}'""")
        night.portal.add_photo("home-1", 2, None)
        assert night().refusal is None and night.rows()["home-1"].status == "pending"

    def test_an_empty_source_with_nothing_published_is_fine(self, night: Night) -> None:
        assert counts(night()) == {}

    def test_what_was_found_besides_stays_recorded(self, night: Night, town: Callable[..., None]) -> None:
        town(100, 50)
        night.portal.add("new", URLS)
        assert_refused(night(), "50 of 100")
        assert night.rows()["new"].status == "pending"

    def test_a_listing_back_before_removals_are_allowed_stays(
        self, night: Night, town: Callable[..., None]
    ) -> None:
        """Staged by a run that stopped, and there again: even under the same run id it is not removed."""
        town(100, 50)
        assert_refused(night(), "50 of 100")
        night.portal.execute("INSERT INTO listings (id, updated_at) VALUES ('t1', now())")
        night.run_id -= 1
        assert night(allow_removals=True).removed == 49
        assert night.rows()["t1"].status != "gone"

    def test_unpublished_listings_do_not_count(self, night: Night, town: Callable[..., None]) -> None:
        town(100, 50)
        night.portal.execute("UPDATE enrichment.listing SET revision = NULL WHERE id <> 't100'")
        assert night().removed == 50

    @pytest.mark.parametrize("table", ["listings", "listing_images"])
    def test_a_table_emptied_while_an_index_is_filled_removes_nothing(
        self, night: Night, homes: list[str], table: str
    ) -> None:
        night.portal.execute("UPDATE enrichment.publication SET revision = NULL, status = 'waiting'")
        night.portal.execute(f"DELETE FROM {table}")
        for found in (night.foresee(), night()):
            assert_refused(found, "no active listings at all|no photos at all")
        assert {row.status for row in night.rows().values()} == {"done"}

    def test_photos_lost_by_listings_that_came_back_and_wait_are_counted(
        self, night: Night, homes: list[str]
    ) -> None:
        """They left while they waited, so nothing says any more what they were enriched from."""
        night.portal.execute("UPDATE enrichment.listing SET status = 'retry'")
        night.portal.execute("UPDATE listings SET active = false")
        assert night(allow_removals=True).removed == len(homes)
        night.portal.execute("UPDATE listings SET active = true")
        assert night().returned == len(homes)
        night.portal.execute("DELETE FROM listing_images")
        for found in (night.foresee(), night()):
            assert_refused(found, "no photos at all")

    def test_a_share_is_of_all_documents_while_an_index_is_filled(
        self, night: Night, town: Callable[..., None]
    ) -> None:
        town(100, 21)
        night.portal.execute("UPDATE enrichment.publication SET revision = NULL, status = 'waiting'")
        for found in (night.foresee(), night()):
            assert_refused(found, "21 of 100")


class TestNamedIds:
    def test_only_those_are_compared(self, night: Night, homes: list[str]) -> None:
        night.portal.execute("DELETE FROM listing_images")
        night.portal.remove("home-5")
        night.portal.remove("home-6")
        night.portal.add("other", URLS)
        found = night(ids=["home-1", "home-5", "nowhere", "other", "a\0b"])
        assert (counts(found), found.seen) == ({"new": 1, "changed": 1, "removed": 1}, 2)
        rows = night.rows()
        assert rows["home-6"].status == "done" and rows["home-5"].status == "gone"
        assert rows["home-2"].status == "done"

    def test_none_of_them_there_is_no_emptied_table(self, night: Night, homes: list[str]) -> None:
        night.portal.remove("home-5")
        assert counts(night(ids=["home-5"])) == {"removed": 1}


class TestDryRun:
    def test_it_says_all_and_writes_nothing(self, night: Night, homes: list[str]) -> None:
        night.portal.add("new", URLS)
        night.portal.remove("home-0")
        night.portal.add_photo("home-1", 2, "http://photos.example/c.jpg")
        night.portal.execute("UPDATE listings SET price = 200 WHERE id = 'home-2'")
        night.portal.touch("home-3")
        before = night.rows()
        dry = night.foresee()
        assert night.rows() == before
        assert night.ahead(dry) == [
            Prospect("home-0", outcome="removed"),
            Prospect("home-1", enriched=True),
            Prospect("home-2", outcome="written"),
            Prospect("home-3", enriched=True, revalidate=True),
            Prospect("new", enriched=True),
        ]
        assert counts(night()) == counts(dry)

    def test_the_guard_trips_as_it_would(self, night: Night, town: Callable[..., None]) -> None:
        town(100, 21)
        before = night.rows()
        assert_refused(night.foresee(), "21 of 100")
        assert night.rows() == before


def test_pages_of_any_size_find_the_same(night: Night) -> None:
    """Many ids around every byte order there is, in pages of one to all."""
    ids = [f"{chr(c)}{n}" for c in (45, 48, 65, 95, 97, 228, 9731, 128512) for n in range(3)]
    for id in ids:
        night.portal.add(id, URLS)
    for size in (1, 2, 7, 24, 100):
        found = night(settings={"page_size": size})
        assert found.seen == len(ids) and found.removed == 0
    assert sorted(night.rows()) == sorted(ids)
    for id in ids[::2]:
        night.portal.remove(id)
    assert night(settings={"page_size": 5}).removed == len(ids[::2])


def test_a_source_in_another_database_works(
    night: Night, database_url: str, database: Database, homes: list[str]
) -> None:
    """A read replica holds the portal's tables; our schema is elsewhere."""
    elsewhere = Portal(database_url)
    elsewhere.execute("CREATE TABLE listings (id int, updated_at date)")
    elsewhere.execute("CREATE TABLE listing_images (listing_id int, position int, url text)")
    elsewhere.execute("INSERT INTO listings SELECT n, now() FROM generate_series(1, 10) n")
    replica = Database(database_url)
    settings = load_settings(page_size=4)
    found = discover(Source(replica, settings), database, settings, 99, allow_removals=True)
    assert counts(found) == {"new": 10, "removed": 7}
    replica.close()
    elsewhere.engine.dispose()


def test_updated_at_is_kept_to_the_microsecond(night: Night) -> None:
    moment = datetime.fromisoformat("2025-03-30T02:30:00.123457+01:00")
    night.portal.add("a", URLS, updated_at=moment)
    night()
    assert night.rows()["a"].updated_at == moment
