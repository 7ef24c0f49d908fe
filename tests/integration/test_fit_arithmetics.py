"""`enrich-train fit --arithmetic`: each with thresholds of its own, and carried along by `--frozen-on`."""

from pathlib import Path

import pytest

from enrich.model.arithmetic import cpu_has
from enrich.model.bundle import Bundle
from enrich.model.features import feature_id
from tests.support.fitting import HOMES, draw_homes, fitted, seaview

UNTRAINED = ("--backbone", "timm:test_resnet", "--weights", "none")
pytestmark = [
    pytest.mark.timeout(900),  # it learns: minutes where cores are few and busy
    pytest.mark.skipif(
        not (cpu_has("bf16") and cpu_has("int8")), reason="needs a CPU with bf16 and int8 instructions"
    ),
]


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_homes(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def made(photos_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, Path]:
    """The bundle of one fit, its model card and its cache."""
    faster = ("--arithmetic", "bf16", "--arithmetic", "int8")
    return fitted(photos_dir, tmp_path_factory.mktemp("work"), *UNTRAINED, *faster)


def test_each_arithmetic_has_thresholds_and_figures_of_its_own(made: tuple[Bundle, Path, Path]) -> None:
    bundle, card, _ = made
    assert bundle.arithmetics == ("fp32", "bf16", "int8")
    for place in (0, 1):
        heads = [bundle.at(name).heads[place] for name in bundle.arithmetics]
        assert len({head.temperature for head in heads}) == len({head.true_threshold for head in heads}) == 3
    for name in ("bf16", "int8"):
        figures = bundle.members[0].variants[name].figures
        assert figures is not None and figures.photos == 9 * HOMES + HOMES // 2, "photos of split train"
        balcony, fp32 = figures.heads["balcony"], bundle.heads[0].metrics["true"]["cross_fitted"]
        assert balcony.here.recall is not None and balcony.here.recall.of == HOMES // 2
        assert balcony.fp32.recall is not None and balcony.fp32.recall.hits == fp32["recall"]["hits"]
        assert balcony.here.average_precision > 0.9 and 0 < balcony.drift.max < 0.5
    text = card.read_text()
    assert "## Arithmetics" in text and "| balcony | int8 |" in text
    assert "--arithmetic bf16 --arithmetic int8" in text


def test_heads_on_a_bundles_backbone_have_its_features_in_every_arithmetic(
    made: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.faster.quantize", None)  # the bundle's int8 is taken as it is
    labels = seaview(photos_dir, tmp_path / "seaview.csv")
    new, *_ = fitted(photos_dir, tmp_path, "--frozen-on", made[0].folder, "--head", f"seaview={labels}")
    assert new.arithmetics == ("fp32", "bf16", "int8")
    for name in new.arithmetics:
        (old,), (mine,) = made[0].at(name).members, new.at(name).members
        assert feature_id(mine) == feature_id(old) and mine.model_id != old.model_id
        assert [head.name for head in mine.heads] == ["balcony", "fireplace", "seaview", "room"]
    figures = new.members[0].variants["int8"].figures
    assert figures is not None and figures.heads["seaview"].here.average_precision > 0.9
