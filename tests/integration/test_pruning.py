"""What nothing uses any more is counted and deleted; what anything uses stays. On a real Postgres."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from enrich.state.database import Database
from enrich.state.labels import Label, Labels
from enrich.state.listings import Listings
from enrich.state.overrides import Overrides
from enrich.state.pruning import UNUSED, Pruning
from tests.support.enriched import BUNDLE, MODEL, add, claim_one, ok, photo, result, sha
from tests.support.postgres import Portal

OLD = "now() - interval '100 days'"
BY = {unused.what: unused for unused in UNUSED}


@pytest.fixture
def pruning(database: Database) -> Callable[[], Pruning]:
    return lambda: Pruning(database, 90, BUNDLE, [MODEL], ["feature"])


def counts(pruning: Pruning) -> dict[str, int]:
    """What there is to delete, by what it is; nothing of a kind is left out."""
    return {unused.what: count for unused in UNUSED if (count := pruning.count(unused))}


def delete_all(pruning: Pruning) -> dict[str, int]:
    """Delete in the order in which the command does, so that what hangs on a listing goes after it."""
    found = {unused.what: pruning.delete(unused, lambda: False) for unused in UNUSED}
    return {what: count for what, count in found.items() if count}


def enriched(portal: Portal, state: Listings, id: str, *names: str) -> None:
    add(portal, id)
    shown = [ok(photo(name, n), sha(name)) for n, name in enumerate(names)]
    state.complete([result(claim_one(state, id), shown)])


def gone(portal: Portal, id: str, when: str = OLD) -> None:
    """Gone and out of all indices since `when`."""
    portal.execute(
        f"UPDATE enrichment.listing SET status = 'gone', revision = extract(epoch FROM {when}) * 1000000"
        " WHERE id = :id",
        id=id,
    )


def table(portal: Portal, name: str) -> set[Any]:
    column = {"listing": "id", "listing_photo": "listing_id", "photo": "key", "publication": "listing_id"}
    rows = portal.execute(f"SELECT {column.get(name, 'sha256')} FROM enrichment.{name}")
    return {value for (value,) in rows}


def test_where_everything_is_in_use_nothing_goes(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    enriched(migrated, state, "a", "one", "two")
    migrated.execute(f"UPDATE enrichment.photo SET checked_at = {OLD}")
    assert counts(pruning()) == {} and delete_all(pruning()) == {}


def test_a_listing_long_gone_takes_along_what_only_it_had(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    enriched(migrated, state, "a", "own", "shared")
    enriched(migrated, state, "b", "shared")
    gone(migrated, "a")
    migrated.execute(f"UPDATE enrichment.photo SET checked_at = {OLD}")
    assert counts(pruning()) == {"listings that are gone": 1}, "the rest hangs on it"
    assert delete_all(pruning()) == {
        "listings that are gone": 1,
        "photos of listings that are gone": 2,
        "photos that no listing shows": 1,
        "scores of photos that are gone": 1,
        "changes of answers of listings that are gone": 2,
    }
    assert table(migrated, "listing") == {"b"} and table(migrated, "listing_photo") == {"b"}
    assert table(migrated, "photo") == {photo("shared").key}
    assert table(migrated, "photo_score") == {sha("shared")}


@pytest.mark.parametrize("why", ["just now", "still published", "overridden", "labelled"])
def test_a_gone_listing_stays(
    migrated: Portal, state: Listings, database: Database, pruning: Callable[[], Pruning], why: str
) -> None:
    enriched(migrated, state, "a", "one")
    if why == "overridden":
        Overrides(database).set_override("a", "has_balcony", True, None, "ann")
    if why == "labelled":
        Labels(database).put([Label(sha("one"), "balcony", True)])
    gone(migrated, "a", "now()" if why == "just now" else OLD)
    if why == "still published":
        migrated.execute(
            "INSERT INTO enrichment.target (name, mode, uuid) VALUES ('homes', 'own', 'u');"
            "INSERT INTO enrichment.publication (target, listing_id, status) SELECT id, 'a', 'waiting'"
            " FROM enrichment.target"
        )
    assert delete_all(pruning()) == {} and table(migrated, "listing") == {"a"}


def test_a_listing_that_comes_back_after_it_was_deleted_has_a_later_revision(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    enriched(migrated, state, "a", "one")
    gone(migrated, "a")
    before = migrated.state("a").revision
    delete_all(pruning())
    enriched(migrated, state, "a", "one")
    assert migrated.state("a").revision > before


def test_scores_and_features_of_earlier_models_go_once_no_listing_stands_on_them(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    enriched(migrated, state, "a", "one")
    migrated.execute(
        "INSERT INTO enrichment.photo_score SELECT sha256, 'old', dhash, scores FROM enrichment.photo_score;"
        "INSERT INTO enrichment.photo_embedding SELECT sha256, f, 'int8', 1, '' FROM enrichment.photo_score,"
        " unnest(ARRAY['feature', 'earlier']) AS f WHERE model_id = 'old';"
        "UPDATE enrichment.listing SET bundle_id = 'bundle-0', model_ids = '[\"old\"]'"
    )
    assert delete_all(pruning()) == {}, "a listing is made with it"
    migrated.execute(f"UPDATE enrichment.listing SET bundle_id = '{BUNDLE}', model_ids = '[\"{MODEL}\"]'")
    assert delete_all(pruning()) == {
        "scores by models that made no listing's attributes": 1,
        "features by backbones of earlier bundles": 1,
    }
    assert migrated.execute("SELECT model_id FROM enrichment.photo_score") == [(MODEL,)]
    assert migrated.execute("SELECT feature_id FROM enrichment.photo_embedding") == [("feature",)]


def test_what_a_person_labelled_keeps_its_scores(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    enriched(migrated, state, "a", "one")
    migrated.execute(
        "INSERT INTO enrichment.label (sha256, head, value) VALUES (:sha, 'balcony', 'true')", sha=sha("one")
    )
    migrated.execute("DELETE FROM enrichment.photo")
    assert delete_all(pruning()) == {}


def test_the_last_thirty_runs_of_a_kind_stay(migrated: Portal, pruning: Callable[[], Pruning]) -> None:
    for kind, runs in (("run", 40), ("backfill", 5)):
        migrated.execute(
            f"INSERT INTO enrichment.run (kind, started_at) SELECT '{kind}', {OLD}"
            f" FROM generate_series(1, {runs})"
        )
    assert delete_all(pruning()) == {"runs": 10}


def test_a_row_that_is_being_worked_on_is_left(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    enriched(migrated, state, "a", "one")
    gone(migrated, "a")
    with migrated.engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM enrichment.listing WHERE id = 'a' FOR UPDATE")
        assert delete_all(pruning()) == {}
    assert delete_all(pruning())["listings that are gone"] == 1


def test_a_row_that_came_to_be_used_since_it_was_found_is_left(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    enriched(migrated, state, "a", "one")
    gone(migrated, "a")

    def back_in_time() -> bool:  # asked between finding rows and deleting them
        migrated.execute("UPDATE enrichment.listing SET status = 'pending'")
        return False

    assert pruning().delete(BY["listings that are gone"], back_in_time) == 0


def test_it_goes_in_small_transactions_and_stops_when_told(
    migrated: Portal, pruning: Callable[[], Pruning], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.state.pruning.BATCH", 7)
    migrated.execute(f"INSERT INTO enrichment.backfill (done_at) SELECT {OLD} FROM generate_series(1, 20)")
    asked = iter([False, False, True])
    assert pruning().delete(BY["backfills that are done"], lambda: next(asked)) == 14
    assert pruning().delete(BY["backfills that are done"], lambda: False) == 6


def test_where_its_connection_breaks_it_goes_on_and_counts_all(
    migrated: Portal, pruning: Callable[[], Pruning], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.state.pruning.BATCH", 7)
    migrated.execute(f"INSERT INTO enrichment.backfill (done_at) SELECT {OLD} FROM generate_series(1, 20)")
    asked = itertools.count()

    def stopping() -> bool:
        if next(asked) == 1:  # a batch is deleted, and the rows are still being read
            migrated.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )
        return False

    assert pruning().delete(BY["backfills that are done"], stopping) == 20


def test_the_last_twenty_changes_of_a_listing_stay(
    migrated: Portal, state: Listings, pruning: Callable[[], Pruning]
) -> None:
    for id in ("a", "b"):
        enriched(migrated, state, id, "one")
        migrated.execute(
            "INSERT INTO enrichment.history (listing_id, at, field, after, cause)"
            f" SELECT '{id}', {OLD if id == 'a' else 'now()'}, 'has_balcony', 'true', 'model'"
            " FROM generate_series(1, 25)"
        )
    assert delete_all(pruning()) == {"changes of answers beyond a listing's last twenty": 5}
    left = "SELECT listing_id, count(*) FROM enrichment.history GROUP BY 1 ORDER BY 1"
    assert migrated.execute(left) == [("a", 22), ("b", 27)], "two changes of each are the enrichment's own"
