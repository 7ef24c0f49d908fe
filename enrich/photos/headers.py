"""What a file's headers would cost to read: Pillow reads them in Python, piece by piece, and keeps all.

A file within the cap on bytes can hold millions of pieces. Each costs Pillow time and memory, and joining the
EXIF pieces of a JPEG takes the square of their number: minutes, for a file of 20 MB.
"""

import re

from PIL.JpegImagePlugin import MARKER

MAX_JPEG_SEGMENTS = 500
"""Before the first scan; cameras write about twenty, and a large colour profile has up to 255 of its own."""
MAX_JPEG_FILL = 65_536
"""Bytes between segments, which mean nothing."""
MAX_JPEG_SCANS = 100
"""Progressive files of cameras and sites have about ten; each costs a pass over all pixels."""
MAX_PNG_CHUNKS = 50_000
MAX_PNG_EXTRAS = 125
"""Chunks that hold no pixels; each may unpack to four megabytes."""

_FILL = re.compile(rb"[^\xff]*\xff+")
_NEXT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END = 0xDA, 0xD9
_PNG_PIXELS = frozenset({b"IDAT", b"fdAT", b"fcTL"})


def too_costly(data: bytes, kind: str) -> str | None:
    """Why a JPEG or PNG file is not to be given to Pillow; None: its headers are of a usual size."""
    if kind == "JPEG":
        return _costly_header(data) or _costly_scans(data)
    return _costly_png(data) if kind == "PNG" else None


def _costly_header(data: bytes) -> str | None:
    """Goes the way that Pillow goes, up to the first scan."""
    at = 2
    fill = frames = 0
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _FILL.match(data, at)
        if found is None or found.end() == len(data):
            return None
        fill += found.end() - at - 1
        if fill > MAX_JPEG_FILL:
            return f"more than {MAX_JPEG_FILL} bytes of padding in the header"
        code, at = data[found.end()], found.end() + 1
        frames += code in _FRAMES
        if frames > 1:
            return "the header states two sizes"
        if code == _START_OF_SCAN:
            return None
        _, _, read = MARKER.get(0xFF00 + code, (None, None, None))
        if read is not None:
            at += _length(data, at)
    return f"more than {MAX_JPEG_SEGMENTS} segments in the header"


def _costly_scans(data: bytes) -> str | None:
    """Counts the scans of the picture alone, not those of a thumbnail or of what follows the picture."""
    if data.count(b"\xff\xda") <= MAX_JPEG_SCANS:
        return None
    at, scans = 2, 0
    for _ in range(MAX_JPEG_SEGMENTS + 2 * MAX_JPEG_SCANS):
        found = _NEXT.search(data, at)
        if found is None or data[found.end() - 1] == _END:
            return None
        scans += data[found.end() - 1] == _START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            break
        at = found.end() + _length(data, found.end())
    return f"more than {MAX_JPEG_SCANS} progressive scans"


def _length(data: bytes, at: int) -> int:
    return max(int.from_bytes(data[at : at + 2], "big"), 2)


def _costly_png(data: bytes) -> str | None:
    at, chunks, extras = 8, 0, 0
    while at + 8 <= len(data):
        chunks += 1
        extras += data[at + 4 : at + 8] not in _PNG_PIXELS
        if chunks > MAX_PNG_CHUNKS:
            return f"more than {MAX_PNG_CHUNKS} chunks"
        if extras > MAX_PNG_EXTRAS:
            return f"more than {MAX_PNG_EXTRAS} chunks that hold no pixels"
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return None
