"""Kept features: saved with the scores they belong to, and read back for other heads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrich.model.features import LinearHeads, feature_id, pack
from enrich.pipeline import known
from enrich.pipeline.figures import Figures
from enrich.pipeline.known import KnownScores
from enrich.records import Claim, PhotoResult
from enrich.state import rescoring
from enrich.state.backfills import Selection
from enrich.state.database import Database
from enrich.state.listings import Listings
from enrich.state.rescoring import Rescoring
from tests.support.bundles import make_bundle
from tests.support.enriched import (
    BUNDLE,
    MODEL,
    add,
    claim_one,
    enriched,
    expire,
    ok,
    photo,
    result,
    sha,
    statuses,
)
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


def opened(database: Database, **selection: Any) -> Rescoring:
    return Rescoring(database, Selection(stale_bundle="bundle-2", **selection), {OTHER: FEATURES})


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


def test_other_heads_are_applied_to_kept_features(
    migrated: Portal, state: Listings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two photos at a time; some features are kept one way, some the other, and some not at all."""
    monkeypatch.setattr(known, "CHUNK", 2)
    bundle = make_bundle(tmp_path / "tiny")
    (member,) = bundle.members
    features = np.random.default_rng(1).random((5, 96), np.float32)
    expected = LinearHeads(bundle, member).scores(features)
    kept = [pack(row, ("float16", "int8")[n % 2]) for n, row in enumerate(features)]
    made = [ok(photo(f"{n}"), sha(f"{n}")) for n in range(5)]
    for n, one in enumerate(kept):
        assert made[n].score is not None and one is not None
        made[n] = replace(made[n], score=replace(made[n].score, embeddings={feature_id(member): one}))
    add(migrated, "a", "b")
    enriched(state, "a", *made, ok(photo("bare"), sha("bare")))
    figures = Figures()
    asked = [*(sha(f"{n}") for n in range(5)), sha("bare"), sha("new")]
    found = KnownScores(state, bundle, figures).of(asked)
    assert list(found) == asked[:5] and figures.rescored == 5
    for n in range(5):
        score = found[sha(f"{n}")]
        assert score.dhash == -5, "near-duplicates stay near-duplicates"
        for head, logits in score.by_model[member.model_id].items():
            assert logits == pytest.approx(expected[n][head], rel=0.05)

    enriched(state, "b", *[replace(one, score=found[one.sha256 or ""]) for one in made])
    again = KnownScores(state, bundle, figures).of(asked)
    assert again == found and figures.rescored == 5, "what was saved is on record, and not made again"


def test_listings_are_marked_whose_photos_all_have_features_or_scores(
    migrated: Portal, state: Listings, database: Database
) -> None:
    add(migrated, "a", "b", "c", "d")
    enriched(state, "a", scored("1", 1))
    enriched(state, "b", scored("2", 1), ok(photo("bare"), sha("bare")))
    enriched(state, "c", ok(photo("3"), sha("3")))
    enriched(state, "d", scored("4", 1))
    migrated.execute(
        "INSERT INTO enrichment.photo_score VALUES (:sha, :model, -5, '{}')", sha=sha("3"), model=OTHER
    )
    migrated.execute("DELETE FROM enrichment.photo_score WHERE sha256 = :sha", sha=sha("4"))
    assert opened(database).mark(["a", "b", "c", "d"]) == ["a", "c"]


def test_a_listing_in_whose_hands_a_worker_died_is_waited_for(
    migrated: Portal, state: Listings, database: Database
) -> None:
    add(migrated, "a")
    enriched(state, "a", scored("1", 1))
    assert opened(database).mark(["a"]) == ["a"]
    claim_one(state, "a")
    assert opened(database).mark(["a"]) == ["a"] and statuses(migrated) == {"a": "leased"}
    expire(migrated)
    assert opened(database).mark(["a"]) == ["a"] and claim_one(state, "a").id == "a"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE enrichment.listing SET photo_fp = 'fp-2', status = 'pending'",
        "UPDATE enrichment.listing SET revalidate = true",
        "UPDATE enrichment.listing SET status = 'quarantined'",
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
    assert opened(database).mark(["a"]) == []


@pytest.mark.parametrize(
    ("kept", "scores", "ready"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_the_scores_of_a_photo_that_fails_for_now_are_needed_too(
    migrated: Portal, state: Listings, database: Database, kept: bool, scores: bool, ready: bool
) -> None:
    """They stand in for it in the listing's document, where there are some."""
    add(migrated, "a")
    enriched(state, "a", scored("1", 1))
    migrated.execute("UPDATE enrichment.photo SET status = 'timeout', next_try = now() + interval '1 hour'")
    if not kept:
        migrated.execute("DELETE FROM enrichment.photo_embedding")
    if not scores:
        migrated.execute("DELETE FROM enrichment.photo_score")
    assert opened(database).mark(["a"]) == (["a"] if ready else [])


def test_a_listing_marked_before_a_kill_is_marked_again(
    migrated: Portal, state: Listings, database: Database
) -> None:
    add(migrated, "a")
    enriched(state, "a", scored("1", 1))
    assert opened(database).mark(["a"]) == ["a"] == opened(database).mark(["a"])
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
