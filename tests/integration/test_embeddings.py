"""Kept features: saved with the scores they belong to, and read back in chunks for other heads."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from enrich.model.features import pack, unpack
from enrich.records import Claim, PhotoResult, Scores
from enrich.state import embeddings, rescoring
from enrich.state.backfills import Selection
from enrich.state.database import Database
from enrich.state.embeddings import Packed
from enrich.state.listings import Listings
from enrich.state.rescoring import Rescoring
from tests.support.enriched import BUNDLE, MODEL, add, claim_one, enriched, ok, photo, result, sha
from tests.support.postgres import Portal

FEATURES, OTHER = "f" * 64, "n" * 64


def scored(name: str, value: float, kind: Any = "float16") -> PhotoResult:
    """A photo just scored, whose two features are (value, 1)."""
    packed = pack(np.array([value, 1], np.float32), kind)
    assert packed is not None
    made = ok(photo(name), sha(name))
    assert made.score is not None
    return replace(made, score=replace(made.score, embeddings={FEATURES: packed}))


def kept(portal: Portal) -> list[tuple[str, str, int]]:
    rows = portal.execute(
        "SELECT sha256, kind, length(bytes) FROM enrichment.photo_embedding ORDER BY sha256"
    )
    return [tuple(row) for row in rows]


def heads(packed: Packed) -> Sequence[Scores]:
    features = unpack(packed.kind, np.array(packed.scales), packed.data)
    return [{"first": (float(row[0]),)} for row in features]


def opened(database: Database, **selection: Any) -> Rescoring:
    return Rescoring(database, Selection(stale_bundle="bundle-2", **selection), {(FEATURES, OTHER): heads})


def scores_of_other(portal: Portal) -> dict[str, float]:
    rows = portal.execute(
        "SELECT sha256, scores FROM enrichment.photo_score WHERE model_id = :model", model=OTHER
    )
    return {row.sha256: row.scores["first"][0] for row in rows}


def no() -> bool:
    return False


def test_they_are_saved_with_their_scores_or_not_at_all(migrated: Portal, state: Listings) -> None:
    add(migrated, "a", "b")
    claim = claim_one(state, "b")
    stale = Claim(claim.id, "0" * 8 + "-0000-4000-8000-" + "0" * 12, claim.requested, False)
    assert not state.complete([result(stale, [scored("x", 1.0)])])
    assert kept(migrated) == []
    enriched(state, "a", scored("1", 0.5), scored("2", 0.25, "int8"))
    assert kept(migrated) == [(sha("1"), "float16", 4), (sha("2"), "int8", 2)]


def test_what_is_on_record_stays(migrated: Portal, state: Listings) -> None:
    add(migrated, "a", "b")
    enriched(state, "a", scored("1", 0.5))
    enriched(state, "b", scored("1", 7.0, "int8"), ok(photo("2"), sha("2")))
    assert kept(migrated) == [(sha("1"), "float16", 4)]


def test_other_heads_score_what_has_features(
    migrated: Portal, state: Listings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of two photos and slices of two listings; some features are kept one way, some the other."""
    monkeypatch.setattr(rescoring, "CHUNK", 2)
    monkeypatch.setattr(rescoring, "SLICE", 2)
    add(migrated, "a", "b", "c")
    enriched(state, "a", *[scored(f"a{n}", n, ("float16", "int8")[n % 2]) for n in range(5)])
    enriched(state, "b", scored("a1", 1, "int8"), ok(photo("bare"), sha("bare")))
    enriched(state, "c", scored("c", 9))
    found = opened(database)
    (page,) = found.pages()
    assert page == ["a", "b", "c"]
    assert found.score(page, no) == 6
    expected = {sha("c"): 9.0} | {sha(f"a{n}"): float(n) for n in range(5)}
    assert scores_of_other(migrated) == pytest.approx(expected, abs=0.02)
    assert found.mark(page) == ["a", "c"], "a photo of b has no features"
    assert opened(database).score(page, no) == 0, "nothing is scored twice"
    hashes = migrated.execute("SELECT DISTINCT dhash FROM enrichment.photo_score")
    assert [row.dhash for row in hashes] == [-5], "near-duplicates stay near-duplicates"


def test_a_chunk_is_all_that_is_read_at_once(migrated: Portal, state: Listings, database: Database) -> None:
    add(migrated, "a")
    enriched(state, "a", *[scored(str(n), n) for n in range(7)])
    read = database.run(lambda connection: embeddings.unscored(connection, ["a"], FEATURES, OTHER, 3))
    assert [len(packed.shas) for packed in read] == [3]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE enrichment.listing SET photo_fp = 'fp-2', status = 'pending'",
        "UPDATE enrichment.listing SET revalidate = true",
        "UPDATE enrichment.listing SET status = 'quarantined'",
        "UPDATE enrichment.listing SET status = 'pending', attempts = 1",
        "UPDATE enrichment.listing SET bundle_id = 'bundle-2'",
        "UPDATE enrichment.photo SET status = 'timeout', next_try = now()",
    ],
)
def test_listings_that_need_more_than_scores_are_not_marked(
    migrated: Portal, state: Listings, database: Database, change: str
) -> None:
    add(migrated, "a")
    enriched(state, "a", scored("1", 1))
    migrated.execute(change)
    found = opened(database)
    found.score(["a"], no)
    assert found.mark(["a"]) == []


def test_a_listing_marked_before_a_kill_is_marked_again(
    migrated: Portal, state: Listings, database: Database
) -> None:
    add(migrated, "a")
    enriched(state, "a", scored("1", 1))
    first = opened(database)
    first.score(["a"], no)
    assert first.mark(["a"]) == ["a"] == opened(database).mark(["a"])
    assert migrated.state("a").status == "pending"


def test_pages_and_what_is_left(
    migrated: Portal, state: Listings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescoring, "PAGE", 2)
    add(migrated, "a", "b", "c", "d", "new")
    for id in ("a", "b", "c", "d"):
        enriched(state, id, scored(id, 1))
    migrated.execute("UPDATE enrichment.listing SET status = 'gone' WHERE id = 'b'")
    found = opened(database)
    pages, left = [], []
    for page in found.pages():
        pages.append(page)
        left.append(found.left())
    assert (pages, left, found.left(everything=True)) == ([["a", "c"], ["d"]], [3, 1], 3)
    assert [*opened(database, ids=["c", "new"]).pages()] == [["c"]]
    assert [*Rescoring(database, Selection(stale_bundle=BUNDLE), {}).pages()] == []
    assert MODEL != OTHER
