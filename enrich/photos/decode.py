"""Decode: from a photo's bytes to pixels ready for the models. Bad files become a status, never an exception.

JPEG, PNG and WebP, told by content; of an animation the first frame. Pictures are turned upright (EXIF),
laid on white where transparent and taken as sRGB: embedded colour profiles are ignored, CMYK is converted
plainly (inverted, as Adobe writes it). Large JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that
leaves `DRAFT_MARGIN` times the pixels a model needs per side, and other pictures of four times these and more
are averaged down by whole numbers first (what it costs: docs/bundle.md).

Safe to call from many threads; Pillow releases the GIL while it decodes and resizes.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from enrich.model.bundle import Preprocessing
from enrich.photos.headers import too_costly
from enrich.records import Decoded, PhotoStatus

DRAFT_MARGIN = 1.5
REDUCING_GAP = 2.0
"""Times the pixels a model needs per side, to which larger pictures are averaged before the real resize."""
MAX_SIDE = 65_535
"""Pixels, as in a JPEG; Pillow's memory per row and per column counts in longer pictures."""

# Pillow's own limit warns and raises at sizes of its choosing; ours is checked below, on the header.
Image.MAX_IMAGE_PIXELS = None
Image.init()  # registers the file formats now, not in the first of many threads
# Pillow refuses a PNG whose profile or a text unpacks to more than this. Its own limit of a megabyte is less
# than profiles of printers have, and what some editors note.
PngImagePlugin.MAX_TEXT_CHUNK = 4 << 20
# Pillow warns of broken metadata even where it decodes the photo; what counts is the photo's status.
warnings.filterwarnings("ignore", module=r"PIL\.")

_SIGNATURES = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "WEBP": b"RIFF"}
_OTHERS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<": "HTML or XML",
}
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_AT_ONCE = 1 << 20  # pixels


@dataclass(frozen=True, slots=True)
class Fit:
    """A picture for people, in a preprocessing's place: whole, in its own shape, and no side longer than
    `side` pixels. A smaller picture stays as small."""

    side: int


Wanted = Preprocessing | Fit


def decode(data: bytes, preprocessings: Sequence[Wanted], max_pixels: int) -> Decoded:
    """Pixels of the photo in `data`: one uint8 [height, width, 3] per preprocessing, each of its size.

    What one preprocessing gets does not depend on the others. The status of a photo that cannot be used is
    `empty`, `unsupported_format`, `too_many_pixels` (width x height as the file's header states them, over
    `max_pixels`, or a side over `MAX_SIDE`), `truncated` or `undecodable`, with the reason in `error`.
    """
    if not data:
        return Decoded(PhotoStatus.EMPTY, error="the file is empty")
    kind = _kind(data)
    if kind is None:
        found = _other_kind(data)
        return Decoded(PhotoStatus.UNSUPPORTED_FORMAT, error=f"{found}, not JPEG, PNG or WebP")
    try:
        return _decode(data, kind, preprocessings, max_pixels)
    except MemoryError:
        raise  # this process is out of memory; the photo, within its pixel cap, may be fine
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, …
        if isinstance(error, UnidentifiedImageError):
            reason = f"the {kind} header is broken"  # Pillow's message names an object in memory
        else:
            reason = f"{type(error).__name__}: {error}"[:200]
        cut = "truncated" in reason or _cut_short(data, kind)
        return Decoded(PhotoStatus.TRUNCATED if cut else PhotoStatus.UNDECODABLE, error=reason)


def dhash(picture: Image.Image) -> int:
    """64-bit difference hash, as int64: is each cell of a 9x8 grid darker than the one right of it?"""
    grid = np.asarray(picture.resize((9, 8), Image.Resampling.BOX).convert("L"))
    return int.from_bytes(np.packbits(grid[:, :-1] < grid[:, 1:]).tobytes(), "big", signed=True)


def upright(image: Image.Image) -> Image.Image:
    """An open picture in RGB, turned as its EXIF says."""
    image.load()  # before the EXIF: asking a PNG for it loads the picture, and hides what goes wrong
    orientation = _orientation(image)
    picture = _rgb(image)
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _decode(data: bytes, kind: str, preprocessings: Sequence[Wanted], max_pixels: int) -> Decoded:
    if reason := too_costly(data, kind):
        return Decoded(PhotoStatus.UNDECODABLE, error=reason)
    width, height = _stated_size(data, kind)
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        cap = f"{MAX_SIDE} on a side" if width * height <= max_pixels else str(max_pixels)
        error = f"{width}x{height} pixels, over the cap of {cap}"
        return Decoded(PhotoStatus.TOO_MANY_PIXELS, error=error)
    pictures: dict[tuple[int, int], Image.Image] = {}
    pixels = []
    for preprocessing in preprocessings:
        image = Image.open(io.BytesIO(data), formats=(kind,))
        if kind == "JPEG":
            high, wide = _least(preprocessing)
            image.draft(None, (high, wide) if _orientation(image) in _SIDEWAYS else (wide, high))
        if image.size not in pictures:
            pictures[image.size] = upright(image)
        pixels.append(_resize(pictures[image.size], preprocessing))
    return Decoded(PhotoStatus.OK, tuple(pixels), dhash(next(iter(pictures.values()))))


def _kind(data: bytes) -> str | None:
    for kind, signature in _SIGNATURES.items():
        if data.startswith(signature) and (kind != "WEBP" or data[8:12] == b"WEBP"):
            return kind
    return None


def _other_kind(data: bytes) -> str:
    text = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, name in _OTHERS.items():
        if text.startswith(start.lower()):
            return f"looks like {name}"
    if data[4:8] == b"ftyp":
        return f"looks like {_BRANDS.get(data[8:12], 'a video')}"
    return "not a known picture format"


def _stated_size(data: bytes, kind: str) -> tuple[int, int]:
    """(width, height) from the header, before any memory is taken for pixels."""
    if kind == "WEBP" and data[12:16] == b"VP8X":  # Pillow makes the decoder, canvas and all, on opening
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    return Image.open(io.BytesIO(data), formats=(kind,)).size


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # EXIF is written by all sorts of tools; a photo with broken EXIF is still a photo
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        return Image.fromarray(_in_8_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        picture = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_8_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """16-bit grey [height, width], rounded; a part at a time, since the way there is eight times as wide."""
    result = np.empty(grey.size, np.uint8)
    flat = grey.reshape(-1)
    for start in range(0, grey.size, _AT_ONCE):
        wide = np.clip(flat[start : start + _AT_ONCE].astype(np.int64), 0, 65535)
        result[start : start + _AT_ONCE] = (wide * 255 + 32767) // 65535
    return result.reshape(grey.shape)


def _least(wanted: Wanted) -> tuple[int, int]:
    """(height, width) that a JPEG's pixels must leave for what is made of them."""
    if isinstance(wanted, Fit):
        return wanted.side, wanted.side
    high, wide = (round(side * DRAFT_MARGIN / wanted.crop_ratio) for side in wanted.size)
    return high, wide


def _resize(picture: Image.Image, preprocessing: Wanted) -> NDArray[np.uint8]:
    if isinstance(preprocessing, Fit):
        scale = min(preprocessing.side / max(picture.size), 1.0)
        fitting = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
        return np.asarray(picture.resize(fitting, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP))
    height, width = preprocessing.size
    box = None
    if preprocessing.resize == "crop":
        scale = min(picture.width / width, picture.height / height) * preprocessing.crop_ratio
        left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
        # Rounding may carry the box past the edge by a hair, which Pillow refuses.
        box = (
            max(left, 0.0),
            max(top, 0.0),
            min(left + width * scale, float(picture.width)),
            min(top + height * scale, float(picture.height)),
        )
    filter = Image.Resampling[preprocessing.interpolation.upper()]
    return np.asarray(picture.resize((width, height), filter, box=box, reducing_gap=REDUCING_GAP))


def _cut_short(data: bytes, kind: str) -> bool:
    """Whether a file that would not decode ends before its format's end."""
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "PNG":
        return b"IEND" not in data
    return b"\xff\xd9" not in data[-4096:]
