"""Linear heads on frozen features: what is left out is not learnt from, and every choice is measured."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablations
from enrich.errors import UsageError
from tests.support.fitting import draw_homes
from training.data.photos import PhotoSet, load_photos
from training.fit import frozen
from training.models import backbones
from training.models.backbones import Backbone, load_backbone
from training.models.heads import site_folds

HEADS = ("balcony", "fireplace")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    """Drawn homes, the last eight of them in a collection of their own."""
    folder = draw_homes(tmp_path_factory.mktemp("photos"))
    manifest = folder / "manifest.csv"
    text = manifest.read_text()
    for home in range(16, 27):
        text = text.replace(f"web_homes/home{home}/", f"elsewhere/home{home}/")
    manifest.write_text(text)
    (folder / "elsewhere").mkdir()
    for home in range(16, 27):
        (folder / f"web_homes/home{home}").rename(folder / f"elsewhere/home{home}")
    return load_photos(folder)


@pytest.fixture(scope="module")
def fold(photos: PhotoSet) -> np.ndarray:
    fold = np.full(len(photos), -1)
    rows = np.flatnonzero(photos.split == "train")
    fold[rows] = site_folds(photos.labels["balcony"][rows], photos.site[rows], 0, 3)
    return fold


def untrained(name: str) -> Backbone:
    return load_backbone("timm:test_resnet", "none", size=64)


def test_a_collection_left_out_is_not_learnt_from(photos: PhotoSet, fold: np.ndarray) -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(0, 1, (len(photos), 8)).astype(np.float32)
    features[:, 0] += 3 * (photos.labels["balcony"] == 1)
    held = ablations.without(photos, fold, "elsewhere")
    whole = frozen.frozen_logits(photos, "balcony", {"whole": features}, held)
    apart = photos.collection == "elsewhere"
    features[apart] = 1e6
    again = frozen.frozen_logits(photos, "balcony", {"whole": features}, held)
    np.testing.assert_array_equal(whole, again)
    assert np.isnan(whole[apart]).all()
    assert np.isfinite(whole[~apart & (fold >= 0) & (photos.labels["balcony"] >= 0)]).all()


def test_every_choice_is_measured_in_the_same_folds(
    photos: PhotoSet, fold: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablations, "load_backbone", untrained)
    found = ablations.ablations(photos, HEADS, fold, tmp_path, "web_homes")
    assert {"Lite0, whole photo", "without elsewhere", "learning from 4 crops, too"} <= set(found)
    assert "without web_homes" not in found, "the homes are what it is evaluated on"
    for by_head in found.values():
        assert set(by_head) == set(HEADS)
        assert by_head["balcony"]["of"] == 8
        assert 0 < by_head["balcony"]["photos"] <= 1


def test_a_collection_is_evaluated_with_heads_that_never_saw_it(
    photos: PhotoSet, fold: np.ndarray, tmp_path: Path
) -> None:
    found = ablations.cross_source(photos, HEADS, fold, untrained(""), tmp_path)
    assert set(found) == {"elsewhere", "web_homes"}
    one = found["elsewhere"]["balcony"]
    assert one["with"] == 4
    assert one["unseen"]["roc_auc"] > 0.9


def test_a_hub_out_of_reach_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = backbones.timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> object:
        if pretrained:
            raise OSError("no route to host\nand more")
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    with pytest.raises(UsageError, match=r"test_resnet cannot be had .*\(no route to host\); run once where"):
        load_backbone("timm:test_resnet", "hub")
