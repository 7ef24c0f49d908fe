"""Cleaning as the thesis did it: what cannot be opened or is too small goes, the rest becomes 500 px wide.

Photos are read as the nightly job reads them (`enrich.photos.decode`): the same formats, turned upright,
the same reasons when one cannot be used.
"""

import contextlib
import hashlib
import io
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enrich.model.bundle import Preprocessing
from enrich.photos.decode import decode
from enrich.records import PhotoStatus
from training.data.photos import MAX_PIXELS

THREADS = 2
QUALITY = 95
BYTES_PER_PIXEL = 0.6
"""Of a JPEG of this quality, at most; for the estimate of the disk space."""
_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class Inspected:
    """A photo that can be used."""

    sha256: str
    """Of the original file."""
    fingerprint: tuple[int, int]
    """64-bit perceptual hash and 64-bit difference hash of the prepared picture (`imagehash`)."""
    width: int
    height: int
    """Of the prepared picture."""
    as_it_is: bool
    """The original is a JPEG that needs no change: it is copied, not encoded anew."""
    size: int
    """Estimated bytes of the prepared file."""


@dataclass(frozen=True)
class Refused:
    """A photo that cannot be used, and why."""

    reason: str
    detail: str


def inspect_all(
    files: Sequence[Path], width: int, min_width: int, advance: Callable[[], None]
) -> list[Inspected | Refused]:
    """Look into every file; `advance` is called after each."""

    def one(file: Path) -> Inspected | Refused:
        found = inspect(file, width, min_width)
        advance()
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, files))


def inspect(file: Path, width: int, min_width: int) -> Inspected | Refused:
    """What `file` would become at most `width` pixels wide; refused when narrower than `min_width`."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return Refused("unopenable", f"cannot be read: {error.strerror}")
    upright, unchanged = _upright_size(data)
    if upright is not None and upright[0] < min_width:
        return Refused("too_small", f"{upright[0]} px wide, less than {min_width}")
    size = _fitted(upright or (1, 1), width)
    pixels = _pixels(data, size)
    if isinstance(pixels, Refused):
        return pixels
    picture = Image.fromarray(pixels)
    as_it_is = unchanged and upright == size
    return Inspected(
        sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=(_bits(imagehash.phash(picture)), _bits(imagehash.dhash(picture))),
        width=size[0],
        height=size[1],
        as_it_is=as_it_is,
        size=len(data) if as_it_is else int(size[0] * size[1] * BYTES_PER_PIXEL),
    )


def write_photo(file: Path, inspected: Inspected, to: Path) -> str:
    """Write the prepared JPEG of `file`; returns its sha256.

    Raises:
        OSError: `file` was changed since it was inspected, or `to` cannot be written.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    if inspected.as_it_is:
        shutil.copyfile(file, to)
        return hashlib.sha256(to.read_bytes()).hexdigest()
    pixels = _pixels(file.read_bytes(), (inspected.width, inspected.height))
    if isinstance(pixels, Refused):
        raise OSError(f"{file} was changed meanwhile: {pixels.detail}")
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="JPEG", quality=QUALITY)
    to.write_bytes(encoded.getvalue())
    return hashlib.sha256(encoded.getvalue()).hexdigest()


def _pixels(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8] | Refused:
    """The upright RGB picture at `size` (width, height): uint8 [height, width, 3]."""
    wanted = Preprocessing((size[1], size[0]), "squash", "lanczos", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    decoded = decode(data, [wanted], MAX_PIXELS)
    if decoded.status is not PhotoStatus.OK:
        return Refused("unopenable", f"{decoded.status.value}: {decoded.error}")
    return decoded.pixels[0]


def _upright_size(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """(width, height) as seen, None if the header is broken; and whether the file is an upright RGB JPEG."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            size, kind, mode = image.size, image.format, image.mode
            orientation = 1
            if size[0] * size[1] <= MAX_PIXELS:  # asking for the EXIF may load the picture
                with contextlib.suppress(Exception):  # a photo with broken EXIF is still a photo
                    orientation = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, …; decode() says why
        return None, False
    unchanged = kind == "JPEG" and mode == "RGB" and orientation not in range(2, 9)
    return (size[::-1] if orientation in _SIDEWAYS else size), unchanged


def _fitted(size: tuple[int, int], width: int) -> tuple[int, int]:
    if size[0] <= width:
        return size
    return width, max(1, round(size[1] * width / size[0]))


def _bits(value: imagehash.ImageHash) -> int:
    return int.from_bytes(np.packbits(value.hash.ravel()).tobytes(), "big")
