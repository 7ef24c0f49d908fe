"""Picture files taken apart and put together: the pieces that broken and strange ones are made of."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.support.bundles import draw


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=format, **options)
    return file.getvalue()


def segment(code: int, content: bytes, length: int | None = None) -> bytes:
    """A JPEG segment; `length` is what it says of itself, where that is a lie."""
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2 if length is None else length) + content


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(code, start, end) of each segment of a JPEG up to its first scan."""
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at, end
        at = end
    yield 0xDA, at, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def frame_of(data: bytes) -> int:
    """Where a JPEG's frame header starts: FF C0, length, precision, height, width, components."""
    return next(start for code, start, _ in segments(data) if 0xC0 <= code <= 0xC2)


def in_header(data: bytes, *pieces: bytes) -> bytes:
    """A JPEG with these pieces right behind its start."""
    return data[:2] + b"".join(pieces) + data[2:]


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG; its checksum is right unless given."""
    right = zlib.crc32(name + content) if crc is None else crc
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", right)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png(*parts: tuple[bytes, bytes] | bytes) -> bytes:
    """A PNG of these chunks; bytes stand as they are."""
    whole = [part if isinstance(part, bytes) else chunk(*part) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def ihdr(
    width: int, height: int, depth: int = 8, colour: int = 2, *, interlaced: int = 0
) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)


def blank_png(width: int, height: int, depth: int = 8, colour: int = 2, *, interlaced: int = 0) -> bytes:
    """A black PNG of any size, made without its pixels in memory."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer, packed = zlib.compressobj(1), []
    for _ in range(height):
        packed.append(packer.compress(row))
    packed.append(packer.flush())
    palette = [(b"PLTE", bytes(6)), (b"tRNS", b"\0\x80")] if colour == 3 else []
    return png(
        ihdr(width, height, depth, colour, interlaced=interlaced),
        *palette,
        (b"IDAT", b"".join(packed)),
        (b"IEND", b""),
    )


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    whole = [name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in parts]
    body = b"WEBP" + b"".join(whole)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        found.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def vp8x(width: int, height: int, flags: int) -> tuple[bytes, bytes]:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


def exif(*entries: tuple[int, int, int, int], order: str = "<", behind: bytes = b"") -> bytes:
    """A TIFF directory of entries (tag, type, count, value or offset), without `Exif\\0\\0` before it."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return head + struct.pack(order + "H", len(entries)) + body + struct.pack(order + "I", 0) + behind


def scene(mode: str = "RGB", seed: int = 1, size: tuple[int, int] = (160, 120)) -> Image.Image:
    picture = draw("kitchen", seed, size)
    if mode == "I;16":
        return picture.convert("I").point(lambda value: value * 257).convert("I;16")
    if mode in ("LA", "RGBA"):
        picture = picture.convert(mode)
        picture.putalpha(Image.linear_gradient("L").resize(size))
        return picture
    return picture.convert(mode)
