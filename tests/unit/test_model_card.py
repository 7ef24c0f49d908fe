"""The model card around its figures: its words, its command, and the lists that it counts up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training.fit.card import write_card


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
