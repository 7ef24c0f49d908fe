"""Frozen features of photos, cached by file content so that a stopped run goes on where it was.

A *view* is one way of looking at a photo: `whole` is exactly what serving sees; `flip` mirrors it;
`crop0` … `crop4` are the corners and the centre of the photo squashed to 5/4 of the input size.
"""

import os
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2.functional import five_crop

from enrich.atomic import check_folder, writing
from enrich.errors import UsageError
from enrich.model.bundle import Preprocessing
from enrich.photos.decode import decode
from training.data.photos import MAX_PIXELS, PhotoSet
from training.models.backbones import Backbone, compiled
from training.terminal import with_bar

Pixels = NDArray[np.uint8]
"""A picture, uint8 [h, w, 3]."""
REMEDY = "put a whole copy in its place, or take its row out of manifest.csv"
Item = TypeVar("Item")
Made = TypeVar("Made")
BATCH, THREADS = 32, 2
_CROPS = ("crop0", "crop1", "crop2", "crop3", "crop4")
VIEWS = ("whole", "flip", *_CROPS)


def extract(
    backbone: Backbone, photos: PhotoSet, views: Sequence[str], cache: Path
) -> dict[str, NDArray[np.float32]]:
    """Features of every photo under every view: view -> float32 [photos, features]. Raises UsageError: an
    unknown view, a photo that cannot be decoded, or a cache that cannot be used."""
    unknown = set(views) - set(VIEWS)
    if unknown or "whole" not in views:
        wrong = ", ".join(sorted(unknown)) or "without whole"
        raise UsageError(f"--view {wrong}: give whole, which serving sees, and any of {', '.join(VIEWS[1:])}")
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{backbone.key}.sqlite"
    try:
        with closing(sqlite3.connect(file)) as store:
            store.execute(
                "CREATE TABLE IF NOT EXISTS feature "
                "(sha256 TEXT, view TEXT, vector BLOB, PRIMARY KEY (sha256, view))"
            )
            _fill(store, backbone, photos, views)
            return {view: _read(store, photos, view) for view in views}
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise
        raise UsageError(f"{file} cannot be used ({error}); name another --cache") from None


def check_cache(cache: Path) -> None:
    """Refuse, with a UsageError, a folder where no features can be kept; leaves nothing there."""
    named = f"--cache {cache}"
    if not cache.exists():
        check_folder(cache, named, replaced=False)
        return
    with writing(named):
        os.rmdir(tempfile.mkdtemp(dir=cache))


def made_ahead(
    batches: Iterable[Sequence[Item]], make: Callable[[Item], Made], threads: int, ahead: int = 1
) -> Iterator[tuple[Sequence[Item], list[Made]]]:
    """Each batch with what `make` makes of its items, made in `threads` while the caller works on the
    batch before (on the `ahead` batches before). Without threads: in the caller's own, one by one."""
    pool = ThreadPoolExecutor(threads, "photos") if threads else None
    try:
        making = ((batch, (pool.map if pool else map)(make, batch)) for batch in batches)
        waiting = deque(islice(making, ahead))
        while waiting:
            batch, made = waiting.popleft()
            done = list(made)
            waiting.extend(islice(making, 1))
            yield batch, done
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def pixels(path: Path, preprocessing: Preprocessing, views: Sequence[str]) -> list[Pixels]:
    """The photo as the model sees it, one uint8 [h, w, 3] per view, through the decoder that serving uses; a
    UsageError where it cannot be decoded."""
    height, width = preprocessing.size
    larger = replace(preprocessing, size=(height * 5 // 4, width * 5 // 4))
    wanted = (preprocessing, larger) if any(view in _CROPS for view in views) else (preprocessing,)
    decoded = decode(path.read_bytes(), wanted, MAX_PIXELS)
    if not decoded.status.ok:
        raise UsageError(f"{path} cannot be used ({decoded.status.value}: {decoded.error}); {REMEDY}")
    seen = {"whole": decoded.pixels[0], "flip": decoded.pixels[0][:, ::-1]}
    for picture in decoded.pixels[1:]:
        crops = five_crop(Image.fromarray(picture), [height, width])
        seen |= zip(_CROPS, map(np.asarray, crops), strict=True)
    return [np.ascontiguousarray(seen[view]) for view in views]


def _fill(store: sqlite3.Connection, backbone: Backbone, photos: PhotoSet, views: Sequence[str]) -> None:
    have: set[tuple[str, str]] = set(store.execute("SELECT sha256, view FROM feature"))
    pairs = dict(zip(photos.sha256, photos.paths, strict=True)).items()
    todo = [(sha, path) for sha, path in pairs if any((sha, view) not in have for view in views)]
    if not todo:
        return
    run = compiled(backbone.module, backbone.preprocessing)
    batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]

    def seen(photo: tuple[str, str]) -> list[Pixels]:
        return pixels(photos.folder / photo[1], backbone.preprocessing, views)

    for batch, pictures in with_bar(made_ahead(batches, seen, THREADS), "features", len(batches)):
        rows = []
        for number, view in enumerate(views):
            vectors = run(np.stack([images[number] for images in pictures]))
            rows += [(sha, view, vector.tobytes()) for (sha, _), vector in zip(batch, vectors, strict=True)]
        with store:  # all at once: another fit that shares the cache waits for the writing alone
            store.executemany("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", rows)


def _read(store: sqlite3.Connection, photos: PhotoSet, view: str) -> NDArray[np.float32]:
    rows = dict(store.execute("SELECT sha256, vector FROM feature WHERE view = ?", (view,)))
    return np.stack([np.frombuffer(rows[sha], dtype=np.float32) for sha in photos.sha256])
