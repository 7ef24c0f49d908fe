"""The cache of frozen features, which several fits may share."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from tests.support.bundles import draw_bytes
from training.models.features import extract

SEEN = Preprocessing((32, 32), "squash", "bicubic", (0.5,) * 3, (0.5,) * 3)


def test_another_fit_may_write_while_the_backbone_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of a large backbone takes longer than SQLite waits for a lock."""
    looked = []

    def compiled(*_: object) -> Callable[[np.ndarray], np.ndarray]:
        def run(pictures: np.ndarray) -> np.ndarray:
            with closing(sqlite3.connect(tmp_path / "cache" / "key.sqlite", timeout=0)) as another:
                another.execute("BEGIN IMMEDIATE")
            looked.append(len(pictures))
            return np.full((len(pictures), 4), len(looked), np.float32)

        return run

    monkeypatch.setattr("training.models.features.compiled", compiled)
    (tmp_path / "photo.jpg").write_bytes(draw_bytes("kitchen"))
    photos: Any = SimpleNamespace(folder=tmp_path, paths=("photo.jpg",), sha256=("s",))
    backbone: Any = SimpleNamespace(key="key", module=None, preprocessing=SEEN)
    found = extract(backbone, photos, ("whole", "flip"), tmp_path / "cache")
    assert looked == [1, 1] and found["whole"].tolist() == [[1] * 4] and found["flip"].tolist() == [[2] * 4]


def test_a_cache_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "key.sqlite"
    file.write_bytes(b"no database" * 100)
    backbone: Any = SimpleNamespace(key="key")
    with pytest.raises(UsageError, match=rf"{file} cannot be used \(file is not a database\); name another"):
        extract(backbone, SimpleNamespace(), ("whole",), tmp_path)  # type: ignore[arg-type]
