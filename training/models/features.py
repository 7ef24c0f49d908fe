"""Frozen features of photos, cached by file content so that a stopped run goes on where it was.

A *view* is one way of looking at a photo: `whole` is exactly what serving sees; `flip` mirrors it;
`crop0` … `crop4` are the corners and the centre of the photo squashed to 5/4 of the input size.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from enrich.photos.decode import decode
from training.data.photos import MAX_PIXELS, PhotoSet
from training.models.backbones import Backbone

VIEWS = ("whole", "flip", "crop0", "crop1", "crop2", "crop3", "crop4")
BATCH = 32
_CROPS = {
    "crop0": (0.0, 0.0),
    "crop1": (0.0, 1.0),
    "crop2": (1.0, 0.0),
    "crop3": (1.0, 1.0),
    "crop4": (0.5, 0.5),
}


def extract(
    backbone: Backbone, photos: PhotoSet, views: Sequence[str], cache: Path, threads: int = 2
) -> dict[str, NDArray[np.float32]]:
    """Features of every photo under every view: view -> float32 [photos, features].

    Raises:
        UsageError: an unknown view, or a photo that cannot be decoded.
    """
    unknown = set(views) - set(VIEWS)
    if unknown or "whole" not in views:
        wrong = ", ".join(sorted(unknown)) or "without whole"
        raise UsageError(f"--view {wrong}: give whole, which serving sees, and any of {', '.join(VIEWS[1:])}")
    cache.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(cache / f"{backbone.key}.sqlite")) as store:
        store.execute(
            "CREATE TABLE IF NOT EXISTS feature "
            "(sha256 TEXT, view TEXT, vector BLOB, PRIMARY KEY (sha256, view))"
        )
        _fill(store, backbone, photos, views, threads)
        return {view: _read(store, photos, view) for view in views}


def pixels(path: Path, preprocessing: Preprocessing, views: Sequence[str]) -> list[NDArray[np.uint8]]:
    """The photo as the model sees it, one uint8 [h, w, 3] per view, through the decoder that serving uses.

    Raises:
        UsageError: the photo cannot be decoded.
    """
    height, width = preprocessing.size
    larger = replace(preprocessing, size=(height * 5 // 4, width * 5 // 4))
    wanted = (preprocessing, larger) if any(view in _CROPS for view in views) else (preprocessing,)
    decoded = decode(path.read_bytes(), wanted, MAX_PIXELS)
    if not decoded.status.ok:
        raise UsageError(
            f"{path} cannot be used ({decoded.status.value}: {decoded.error}); "
            "take its row out of manifest.csv"
        )
    return [_view(decoded.pixels, view, height, width) for view in views]


def _view(arrays: Sequence[NDArray[np.uint8]], view: str, height: int, width: int) -> NDArray[np.uint8]:
    if view == "whole":
        return arrays[0]
    if view == "flip":
        return np.ascontiguousarray(arrays[0][:, ::-1])
    down, right = _CROPS[view]
    larger = arrays[1]
    top = round((larger.shape[0] - height) * down)
    left = round((larger.shape[1] - width) * right)
    return np.ascontiguousarray(larger[top : top + height, left : left + width])


def normalised(pictures: NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 [n, h, w, 3] to the model's input, float32 [n, 3, h, w] in channels_last layout."""
    mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
    return x.contiguous(memory_format=torch.channels_last)


def run_backbone(backbone: Backbone, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Features float32 [n, features] of uint8 images [h, w, 3]."""
    with torch.inference_mode():
        made = backbone.module(normalised(np.stack(images), backbone.preprocessing))
        result: NDArray[np.float32] = made.numpy()
    return result


def _fill(
    store: sqlite3.Connection, backbone: Backbone, photos: PhotoSet, views: Sequence[str], threads: int
) -> None:
    have: set[tuple[str, str]] = set(store.execute("SELECT sha256, view FROM feature"))
    todo = {
        sha: path
        for path, sha in zip(photos.paths, photos.sha256, strict=True)
        if any((sha, view) not in have for view in views)
    }
    if not todo:
        return
    with ThreadPoolExecutor(threads) as pool:
        for batch in track(
            _prefetched(todo, backbone, photos.folder, views, pool), "features", len(todo) // BATCH + 1
        ):
            for number, view in enumerate(views):
                vectors = run_backbone(backbone, [images[number] for _, images in batch])
                rows = [
                    (sha, view, vector.tobytes()) for (sha, _), vector in zip(batch, vectors, strict=True)
                ]
                store.executemany("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", rows)
            store.commit()


def _prefetched(
    todo: dict[str, str], backbone: Backbone, folder: Path, views: Sequence[str], pool: ThreadPoolExecutor
) -> Iterator[list[tuple[str, list[NDArray[np.uint8]]]]]:
    """Batches of (sha256, views); the next batch is decoded while the model works on this one."""

    def submit(start: int) -> list[tuple[str, Future[list[NDArray[np.uint8]]]]]:
        shas = list(todo)[start : start + BATCH]
        return [(sha, pool.submit(pixels, folder / todo[sha], backbone.preprocessing, views)) for sha in shas]

    waiting = submit(0)
    for start in range(BATCH, len(todo) + BATCH, BATCH):
        following = submit(start)
        yield [(sha, future.result()) for sha, future in waiting]
        waiting = following


def _read(store: sqlite3.Connection, photos: PhotoSet, view: str) -> NDArray[np.float32]:
    rows = dict(store.execute("SELECT sha256, vector FROM feature WHERE view = ?", (view,)))
    return np.stack([np.frombuffer(rows[sha], dtype=np.float32) for sha in photos.sha256])
