"""The model card around its figures: its words, its command, and the lists that it counts up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from training.fit.card import draw_thresholds, write_card
from training.fit.fit import _counted, _folds


def card(path: Path, monkeypatch: pytest.MonkeyPatch, **told: Any) -> str:
    """The model card of a bundle without heads, at `path`."""
    monkeypatch.setattr("training.fit.card.draw_thresholds", lambda *_: None)
    training = {
        "command": "enrich-train fit PHOTOS_DIR --out DIR",
        "finetune": "none",
        "runs": 1,
        "folds": 5,
        "binary": [],
        "collections": {},
        "licences": {},
        "comparison": {},
        "listing_split": {},
        **told,
    }
    bundle: Any = SimpleNamespace(
        name="test",
        notice="only for tests",
        bundle_id="b" * 64,
        manifest={"created": "2026-01-01", "training": training},
        heads=(),
        members=(SimpleNamespace(backbone="timm:test_resnet", heads=()),),
        arithmetics=("fp32",),
    )
    write_card(bundle, path)
    return path.read_text()


def test_the_command_on_the_card_writes_this_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = card(tmp_path / "our card.md", monkeypatch)
    assert f"\nenrich-train fit PHOTOS_DIR --out DIR --card '{tmp_path}/our card.md'\n" in text


def test_the_notice_is_a_paragraph_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\n\n**Only for tests.**\n\nAll figures on this page" in card(tmp_path / "card.md", monkeypatch)
    seen = {"name": "old", "bundle": "c" * 64, "learnt": ["it learnt from all"]}
    text = card(tmp_path / "card.md", monkeypatch, frozen_on=seen)
    assert "\n\n**Only for tests.**\n\n**Not held out**: " in text


def test_photos_whose_licence_is_called_like_none_are_counted_with_those_without() -> None:
    assert _counted(["CC0", "", "none stated", "ours", "CC0", "CC0"]) == {
        "CC0": 3,
        "none stated": 2,
        "ours": 1,
    }


@pytest.mark.parametrize(
    ("folds", "said"), [(((0, 1, 2, -1), (2, 1, 0, 0)), 3), (((0, 1), (0, 4, 2)), "2 to 3")]
)
def test_folds_are_counted_as_they_were(folds: tuple[tuple[int, ...], ...], said: int | str) -> None:
    heads: Any = [SimpleNamespace(fold=np.array(one)) for one in folds]
    assert _folds(heads) == said


@pytest.mark.parametrize(
    ("thresholds", "limits"),
    [
        ([0.0, 0.002, 0.012, 1.0], (0.002, 0.1)),
        ([0.0, 0.05], (0.05, 0.1)),
        ([0.0, 0.999], (0.06, 0.999)),
        ([0.0, 1.0], (0.06, 0.1)),
        ([0.0, 0.001, 0.4, 0.97], (0.02, 0.97)),
    ],
)
def test_the_picture_shows_the_thresholds_of_an_attribute_however_rare(
    thresholds: list[float], limits: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    true = {"curve": [(one, 2, 1) for one in thresholds], "target": 0.95}
    metrics = {"true": true, "homes": {"homes": 36, "with": 2}}
    head = SimpleNamespace(name="sea", kind="binary", metrics=metrics, true_at={})
    draw_thresholds(SimpleNamespace(heads=[head]), tmp_path / "card.png")  # type: ignore[arg-type]
    assert drawn[0].axes[0].get_xlim() == pytest.approx(limits)
