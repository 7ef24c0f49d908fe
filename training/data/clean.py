"""Cleaning as the thesis did it: what cannot be opened or is too small goes, the rest becomes 500 px wide.

Photos are read as the nightly job reads them (`enrich.photos.decode`): the same formats, turned upright,
the same reasons when one cannot be used.
"""

import contextlib
import hashlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import imagehash
from PIL import Image

from enrich.model.bundle import Preprocessing
from enrich.photos.decode import decode
from enrich.records import Decoded, PhotoStatus
from training.data.photos import MAX_PIXELS

QUALITY = 95
_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class Looked:
    """What a file is found to be."""

    reason: str = ""
    """Why it cannot be used; empty where it can."""
    detail: str = ""
    sha256: str = ""
    """Of the original file."""
    fingerprint: tuple[int, int] = (0, 0)
    """64-bit perceptual hash and 64-bit difference hash of the prepared picture (`imagehash`)."""
    width: int = 0
    height: int = 0
    """Of the prepared picture."""
    as_it_is: bool = False
    """The original is a JPEG that needs no change: it is copied, not encoded anew."""


def inspect(file: Path, width: int, min_width: int) -> Looked:
    """What `file` would become at most `width` pixels wide; of no use when narrower than `min_width`."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return Looked("unopenable", f"cannot be read: {error.strerror}")
    upright, unchanged = _upright_size(data)
    if upright is not None and upright[0] < min_width:
        return Looked("too_small", f"{upright[0]} px wide, less than {min_width}")
    wide, high = upright or (1, 1)
    size = (wide, high) if wide <= width else (width, max(1, round(high * width / wide)))
    decoded = _decoded(data, size)
    if decoded.status is not PhotoStatus.OK:
        return Looked("unopenable", f"{decoded.status.value}: {decoded.error}")
    picture = Image.fromarray(decoded.pixels[0])
    return Looked(
        sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=(int(str(imagehash.phash(picture)), 16), int(str(imagehash.dhash(picture)), 16)),
        width=size[0],
        height=size[1],
        as_it_is=unchanged and upright == size,
    )


def write_photo(file: Path, size: tuple[int, int], as_it_is: bool, to: Path) -> str:
    """Write the prepared JPEG of `file`, in the size that it was found to become; returns its sha256. Raises
    OSError: `file` was changed since it was inspected, or `to` cannot be written."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if as_it_is:
        shutil.copyfile(file, to)
    else:
        decoded = _decoded(file.read_bytes(), size)
        if decoded.status is not PhotoStatus.OK:
            raise OSError(f"{file} was changed meanwhile: {decoded.status.value}: {decoded.error}")
        Image.fromarray(decoded.pixels[0]).save(to, format="JPEG", quality=QUALITY)
    return hashlib.sha256(to.read_bytes()).hexdigest()


def _decoded(data: bytes, size: tuple[int, int]) -> Decoded:
    """The upright RGB picture at `size` (width, height): uint8 [height, width, 3]."""
    wanted = Preprocessing((size[1], size[0]), "squash", "lanczos", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return decode(data, [wanted], MAX_PIXELS)


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
