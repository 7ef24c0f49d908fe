"""Other heads on the same backbone: rolled out from kept features, without asking for a photo."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from enrich.model.arithmetic import cpu_has
from enrich.model.bundle import Bundle
from enrich.model.writing import write_bundle
from enrich.settings import STARTER_BUNDLE
from jobs.run.record import RunReport
from jobs.run.rescore import rescore
from jobs.run.stop import Stop
from tests.support.bundles import binary_head, make_bundle, preprocessing, room_head, tiny_tensors
from tests.support.fitting import draw_homes, fitted, seaview
from tests.support.harness import World, assert_same

LISTINGS = 12


def other_heads(folder: Path) -> Bundle:
    """The tiny bundle's backbone, with a balcony head that is less sure, a new head and no fireplace."""
    tensors = {
        name: tensor for name, tensor in tiny_tensors().items() if not name.startswith("head.fireplace.")
    }
    tensors |= {
        "head.balcony.weight": tensors["head.balcony.weight"] * 0.6,
        "head.balcony.bias": tensors["head.balcony.bias"] * 0.6,
        "head.stove.weight": tiny_tensors()["head.fireplace.weight"],
        "head.stove.bias": tiny_tensors()["head.fireplace.bias"],
    }
    member = {
        "backbone": "timm:test_resnet",
        "weights": "other.safetensors",
        "preprocessing": preprocessing(),
        "heads": [binary_head("balcony"), binary_head("stove"), room_head()],
    }
    return write_bundle(folder, {"name": "other", "members": [member]}, {"other.safetensors": tensors})


@pytest.fixture
def enriched(world: World) -> World:
    """Listings with two photos each, one of them of another listing's, made with the tiny bundle."""
    for number in range(LISTINGS):
        world.listing(f"{number:02}", "kitchen", ("balcony", "fireplace", "bedroom")[number % 3])
    shared = world.photos.url("/00/1.jpg")
    world.portal.add_photo("01", 2, shared)
    assert world.run().figures.scored == 2 * LISTINGS
    world.photos.forget()
    return world


def rescored(world: World, **settings: Any) -> RunReport:
    return rescore(world.settings(**settings), None, Stop())


def test_the_documents_are_those_of_a_full_run_and_no_photo_is_asked_for(
    enriched: World, tmp_path: Path
) -> None:
    enriched.fixed["bundle"] = other_heads(tmp_path / "other").folder
    report = rescored(enriched)
    assert report.rescored is not None
    assert (report.rescored.photos, report.rescored.left) == (2 * LISTINGS, 0)
    assert (enriched.requests(), report.figures.scored, report.figures.listings) == (0, 0, LISTINGS)
    assert report.published.written == LISTINGS and report.exit_code == 0
    found = enriched.documents()
    assert found["01"]["has_stove"] is True and "has_stove" not in found["02"]
    assert "fireplace_confidence" not in found["00"]

    again = rescored(enriched)
    assert again.rescored is not None and again.rescored.photos == again.figures.listings == 0

    enriched.portal.execute("DELETE FROM enrichment.photo_score; DELETE FROM enrichment.photo_embedding")
    whole = enriched.backfill()
    assert whole.figures.scored == enriched.requests() == 2 * LISTINGS
    assert_same(found, enriched.documents())


def test_another_precision_of_homes_is_rolled_out_without_asking_for_a_photo(
    enriched: World, tmp_path: Path
) -> None:
    heads = [binary_head("balcony"), binary_head("fireplace"), room_head()]
    for head in heads[:2]:
        head["thresholds"] |= {"true_at": {"0.9": head["thresholds"]["true"], "0.99": 1.0}}
    enriched.fixed["bundle"] = make_bundle(tmp_path / "bundle", heads=heads).folder
    rescored(enriched, precision_target=0.9)
    assert enriched.documents()["00"]["has_balcony"] is True
    report = rescored(enriched, precision_target=0.99)
    assert report.figures.listings == LISTINGS
    assert (report.figures.scored, enriched.requests()) == (0, 0)
    found = enriched.documents()
    assert not any(document.get("has_balcony") for document in found.values())
    assert found["00"]["balcony_confidence"] > 0.5
    again = rescored(enriched, precision_target=0.99)
    assert again.figures.listings == 0


@pytest.mark.timeout(900)  # it learns heads: minutes where cores are few and busy
@pytest.mark.skipif(
    not (cpu_has("bf16") and cpu_has("int8")), reason="needs a CPU with bf16 and int8 instructions"
)
def test_a_head_fitted_on_the_bundle_in_use_is_rolled_out_where_nights_run_in_int8(
    enriched: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enriched.fixed |= {"bundle": STARTER_BUNDLE, "precision": "int8"}
    assert enriched.backfill().figures.scored == 2 * LISTINGS
    enriched.photos.forget()
    monkeypatch.setattr("training.models.heads.STRENGTHS", (1e-3,))  # one penalty will do
    photos = draw_homes(tmp_path / "photos")
    head = ("--head", f"seaview={seaview(photos, tmp_path / 'seaview.csv')}", "--view", "whole")
    enriched.fixed["bundle"] = fitted(photos, tmp_path, "--frozen-on", STARTER_BUNDLE, *head)[0].folder
    report = rescored(enriched)
    assert report.rescored is not None
    assert (report.rescored.photos, report.rescored.left) == (2 * LISTINGS, 0)
    assert (enriched.requests(), report.figures.scored) == (0, 0)
    found = enriched.documents()
    assert all("seaview_confidence" in document for document in found.values())

    enriched.portal.execute("DELETE FROM enrichment.photo_score; DELETE FROM enrichment.photo_embedding")
    assert enriched.backfill().figures.scored == enriched.requests() == 2 * LISTINGS
    assert_same(found, enriched.documents())


def test_a_backfill_of_another_bundle_fetches_only_photos_without_features(
    enriched: World, tmp_path: Path
) -> None:
    enriched.portal.execute(
        "DELETE FROM enrichment.photo_embedding USING enrichment.photo"
        " WHERE photo.sha256 = photo_embedding.sha256 AND key IN"
        " (SELECT key FROM enrichment.listing_photo WHERE listing_id = '05')"
    )
    enriched.fixed["bundle"] = other_heads(tmp_path / "other").folder
    before = rescored(enriched)
    assert before.rescored is not None and before.rescored.left == 1 and enriched.requests() == 0
    assert "stove_confidence" not in enriched.documents()["05"], "left as it was"
    report = enriched.backfill(stale_bundle=True)
    assert enriched.requests() == report.figures.scored == 2 and report.marked == 1
    assert "stove_confidence" in enriched.documents()["05"]


def test_a_backfill_of_another_bundle_begins_with_the_features(enriched: World, tmp_path: Path) -> None:
    enriched.fixed["bundle"] = other_heads(tmp_path / "other").folder
    ended = enriched.enrich_here("backfill", "--stale-bundle")
    assert ended.returncode == 0, ended.stderr
    assert enriched.requests() == 0
    assert f"rescored   {2 * LISTINGS} photos from kept features" in ended.stdout
    assert all("stove_confidence" in document for document in enriched.documents().values())


@pytest.mark.parametrize("kind", ["int8", "none"])
def test_features_are_kept_as_the_setting_says(world: World, tmp_path: Path, kind: str) -> None:
    world.listing("a", "kitchen", "balcony")
    world.run(settings={"keep_embeddings": kind})
    kept = world.portal.execute("SELECT kind, length(bytes) FROM enrichment.photo_embedding")
    assert {tuple(row) for row in kept} == ({("int8", 96)} if kind == "int8" else set())
    world.photos.forget()
    world.fixed["bundle"] = other_heads(tmp_path / "other").folder
    report = rescored(world)
    assert report.rescored is not None and world.requests() == 0
    assert report.rescored.photos == (2 if kind == "int8" else 0)
    assert (
        world.backfill(stale_bundle=True).figures.scored == world.requests() == (0 if kind == "int8" else 2)
    )
    assert world.documents()["a"]["has_balcony"] is True


def test_another_backbone_is_fetched(enriched: World, tmp_path: Path) -> None:
    pooled = make_bundle(
        tmp_path / "pooled", pool="avg"
    )  # the same way, but stated: not known to be the same
    enriched.fixed["bundle"] = pooled.folder
    report = rescored(enriched)
    assert report.rescored is not None and (report.rescored.photos, report.rescored.left) == (0, LISTINGS)
    assert enriched.backfill(stale_bundle=True).figures.scored == 2 * LISTINGS == enriched.requests()


KILLED = """
import os, signal
from enrich.state import rescoring
from enrich.state.listings import Listings
from jobs.cli.commands import main
rescoring.PAGE = 5
turns = []
def dying(original, boundary):
    def step(self, *args):
        turns.append(boundary)
        if turns.count(BOUNDARY) == 2 and boundary == BOUNDARY:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args)
    return step
pages = rescoring.Rescoring
for name, part in {"_page": pages, "mark": pages, "features": Listings, "complete": Listings}.items():
    setattr(part, name, dying(getattr(part, name), name))
main()
"""


@pytest.mark.parametrize("boundary", ["_page", "mark", "features", "complete"])
def test_killed_it_goes_on_when_it_is_started_again(
    enriched: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boundary: str
) -> None:
    enriched.fixed |= {"bundle": other_heads(tmp_path / "other").folder, "lease_seconds": 3}
    with monkeypatch.context() as patch:
        code = KILLED.replace("BOUNDARY", repr(boundary))
        patch.setattr("tests.support.harness.ENRICH", [sys.executable, "-c", code])
        assert enriched.enrich("rescore").returncode == -signal.SIGKILL
    scored = enriched.portal.execute("SELECT count(*) FROM enrichment.photo_score WHERE scores ? 'stove'")[
        0
    ].count
    assert 0 < scored < 2 * LISTINGS
    report = rescored(enriched)
    assert report.rescored is not None and report.rescored.photos == 2 * LISTINGS - scored
    assert enriched.requests() == 0 and report.rescored.left == 0
    assert all("stove_confidence" in document for document in enriched.documents().values())


def test_told_to_stop_it_says_what_is_left(enriched: World, tmp_path: Path) -> None:
    enriched.fixed["bundle"] = other_heads(tmp_path / "other").folder
    stop = Stop()
    stop.signal = signal.SIGTERM
    stop.set()
    report = rescore(enriched.settings(), None, stop)
    assert (report.exit_code, report.left) == (143, LISTINGS)
    assert rescored(enriched).exit_code == 0


def test_a_setting_that_keeps_the_model_from_running_is_said_where_a_photo_is_to_be_scored(
    enriched: World, tmp_path: Path
) -> None:
    """A photo that has been changed since the last run, that is; else no model is opened."""
    enriched.fixed |= {
        "bundle": other_heads(tmp_path / "other").folder,
        "engine": "torch",
        "device": "cuda:99",
    }
    enriched.photo("balcony", 99, "/02/0.jpg")
    enriched.portal.execute(
        "UPDATE listing_images SET version = '2' WHERE listing_id = '02' AND position = 0"
    )
    done = enriched.enrich("rescore")
    assert done.returncode == 2, done.stderr
    assert "ENRICH_DEVICE=cuda:99" in done.stderr.splitlines()[-1]
