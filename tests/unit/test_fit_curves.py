"""The picture of the model card: its labels can be read, however near to each other the thresholds are."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from training.fit.card import draw_thresholds

CURVE = [[0.0, 50, 50], [0.05, 50, 40], [0.5, 40, 10], [0.9, 30, 2], [0.999, 1, 0]]
TARGETS = ("0.8", "0.9", "0.95", "0.98", "0.99")


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ((0.3, 0.7, 0.9, 0.97, 0.99), [*TARGETS]),
        ((0.65, 0.68, 0.89, 0.97, 0.99), ["0.8, 0.9", "0.95", "0.98", "0.99"]),
        ((0.65, 0.65, 0.65, 0.65, 0.99), ["0.8, 0.9, 0.95, 0.98", "0.99"]),
        ((0.6, 0.69, 0.7, 0.97, 1.0), ["0.8, 0.9, 0.95", "0.98"]),
    ],
)
def test_labels_of_thresholds_do_not_lie_on_each_other(
    thresholds: tuple[float, ...], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(figure: Figure, *_: Any, **__: Any) -> None:
        figure.draw_without_rendering()
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in axes.texts]
            drawn.append([text.get_text() for text in axes.texts])
            assert all(one.x1 < next.x0 for one, next in pairwise(boxes))

    drawn: list[list[str]] = []
    monkeypatch.setattr(Figure, "savefig", look)
    metrics = {"true": {"curve": CURVE, "target": 0.95}, "homes": {"with": 50, "homes": 100}}
    true_at = dict(zip(TARGETS, thresholds, strict=True))
    head = SimpleNamespace(kind="binary", name="balcony", metrics=metrics, true_at=true_at)
    draw_thresholds(SimpleNamespace(heads=[head, head]), tmp_path / "card.png")  # type: ignore[arg-type]
    assert drawn == [words, words]
