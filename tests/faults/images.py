"""Broken and strange photos, made from seeds and from a photo of the demo: the same ones every time.

::

    for case in corpus():
        assert decode(case.data, ...).status in case.ends
"""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from enrich.records import PhotoStatus as Ends
from tests.faults.build import chunks, frame_of, ihdr, png, riff, riff_chunks, saved, scene, segments, vp8x
from tests.faults.good import ANY, BROKEN, OK, OTHER, TOO_MANY, Found, good
from tests.faults.strange import animations, colours, exif_directories, jpegs, metadata, polyglots


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    data: bytes
    ends: frozenset[Ends]


def corpus(seeds: int = 12) -> Iterator[Case]:
    """All cases; `seeds` is how often each good file is damaged at random."""
    for part in (
        formats,
        refused,
        truncated,
        sizes,
        metadata,
        exif_directories,
        colours,
        jpegs,
        animations,
        polyglots,
    ):
        for name, data, ends in part():
            yield Case(f"{part.__name__}/{name}", data, ends)
    for seed in range(seeds):
        yield from damaged(seed)


def formats() -> Found:
    for name, data in good().items():
        yield name, data, OK
    for mode in ("1", "L", "P", "RGB", "LA", "RGBA", "I;16"):
        yield f"{mode}.png", saved(scene(mode), "PNG"), OK
    for mode in ("L", "RGB", "RGBA", "P", "LA"):
        yield f"{mode}.webp", saved(scene(mode), "WEBP"), OK
    for quality in (1, 100):
        for sampling in (0, 1, 2):
            data = saved(scene(), "JPEG", quality=quality, subsampling=sampling)
            yield f"quality {quality}, subsampling {sampling}.jpg", data, OK
    yield "rgb without conversion.jpg", saved(scene(), "JPEG", keep_rgb=True), OK
    yield "sharp yuv.webp", saved(scene(), "WEBP", method=6, quality=1), OK
    for size in ((1, 1), (1, 2_000), (2_000, 1), (7, 3)):
        for format in ("JPEG", "PNG", "WEBP"):
            picture = Image.new("RGB", size, (9, 99, 199))
            yield f"{size[0]}x{size[1]}.{format.lower()}", saved(picture, format), OK


def refused() -> Found:
    yield "empty", b"", frozenset({Ends.EMPTY})
    for format in (
        "GIF",
        "BMP",
        "DIB",
        "TIFF",
        "ICO",
        "PPM",
        "TGA",
        "PCX",
        "JPEG2000",
        "AVIF",
        "PDF",
        "ICNS",
        "DDS",
        "SGI",
        "EPS",
        "MSP",
        "SPIDER",
        "XBM",
        "QOI",
    ):
        modes = {"MSP": "1", "XBM": "1", "SPIDER": "F"}
        yield format, saved(scene(modes.get(format, "RGB"), size=(64, 64)), format), OTHER
    texts = {
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "html": b"<!DOCTYPE html><title>Not found</title>",
        "json": b'{"error": "expired"}',
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "mp4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
        "jxl": b"\xff\x0a" + bytes(200),
        "jxl box": b"\0\0\0\x0cJXL \r\n\x87\n",
        "psd": b"8BPS\0\1" + bytes(200),
        "zip": b"PK\3\4" + bytes(200),
        "gzip": zlib.compress(good()["rgb.png"], wbits=31),
        "elf": b"\x7fELF" + bytes(200),
        "wave": b"RIFF\x24\0\0\0WAVEfmt ",
        "mng": b"\x8aMNG\r\n\x1a\n" + bytes(200),
        "base64": b"data:image/jpeg;base64,/9j/4AAQSkZJRg==",
        "utf-16": "<html>".encode("utf-16"),
        "zeroes": bytes(5_000),
        "one byte": b"\xff",
        "two bytes of a JPEG": b"\xff\xd8",
        "seven bytes of a PNG": b"\x89PNG\r\n\x1a",
        "PNG through a text transfer": good()["rgb.png"].replace(b"\r\n", b"\n"),
    }
    for name, data in texts.items():
        yield name, data, OTHER


def truncated() -> Found:
    """At the start and in the middle of every piece of the file's structure, and at places in between."""
    for name, data in good().items():
        cuts = {len(data) * part // 8 for part in range(1, 8)} | {len(data) - 1, len(data) - 12, 16, 30}
        if name.endswith(".jpg"):
            cuts |= {
                place for _, start, end in segments(data) for place in (start + 2, (start + end) // 2, end)
            }
        at = 8 if name.endswith(".png") else 12
        for _, content in [] if name.endswith(".jpg") else (chunks if at == 8 else riff_chunks)(data):
            cuts |= {at + 4, at + 8 + len(content) // 2}
            at += len(content) + (12 if at % 2 == 8 else 8)
        for cut in sorted(place for place in cuts if 8 <= place < len(data)):
            yield f"{name} at {cut}", data[:cut], OK | BROKEN | OTHER


def damaged(seed: int) -> Iterator[Case]:
    """Each good file with flipped bits, overwritten, cut out, doubled or swapped parts, by seed."""
    for name, data in good().items():
        chance = random.Random(f"{seed}/{name}")
        broken = bytearray(data)
        way = ("bits", "header bits", "overwritten", "cut out", "doubled", "spliced")[seed % 6]
        start = chance.randrange(4, len(data))
        length = chance.randrange(1, 400)
        if way.endswith("bits"):
            until = 600 if way == "header bits" else len(data)
            for _ in range(chance.randrange(1, 20)):
                broken[chance.randrange(4, min(until, len(data)))] ^= 1 << chance.randrange(8)
        elif way == "overwritten":
            broken[start : start + length] = chance.choice(
                [bytes(length), b"\xff" * length, chance.randbytes(length)]
            )
        elif way == "cut out":
            del broken[start : start + length]
        elif way == "doubled":
            broken[start:start] = broken[start : start + length] * chance.randrange(1, 5)
        else:
            other = chance.choice(list(good().values()))
            broken[start:] = other[min(start, len(other) - 1) :]
        yield Case(f"damaged/{name}, {way}, {seed}", bytes(broken), ANY)


def sizes() -> Found:
    """Headers that state another size than the picture has."""
    huge = 65_535
    for name in ("baseline.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg"):
        data = good()[name]
        at = frame_of(data) + 5
        for width, height in (
            (0, 0),
            (0, 240),
            (320, 0),
            (1, 1),
            (huge, 1),
            (1, huge),
            (321, 241),
            (3_200, 2_400),
        ):
            yield (
                f"{name} as {width}x{height}",
                data[:at] + struct.pack(">HH", height, width) + data[at + 4 :],
                ANY,
            )
        yield f"{name} as huge", data[:at] + struct.pack(">HH", huge, huge) + data[at + 4 :], TOO_MANY
    rest = chunks(good()["rgb.png"])[1:]
    for width, height in ((0, 120), (160, 0), (1, 1), (161, 121), (1_600, 1_200)):
        yield f"png as {width}x{height}", png(ihdr(width, height), *rest), ANY
    for width, height in (
        (2**31 - 1, 2**31 - 1),
        (2**32 - 1, 1),
        (65_536, 1),
        (1, 2**24),
        (2**32 - 1, 2**32 - 1),
        (100_000, 100_000),
    ):
        yield f"png as {width}x{height}", png(ihdr(width, height), *rest), TOO_MANY
    for depth, colour in ((1, 2), (16, 3), (3, 0), (0, 0), (255, 255), (8, 5), (16, 6), (2, 3)):
        yield f"png of depth {depth}, colour {colour}", png(ihdr(160, 120, depth, colour), *rest), ANY
    yield "png said to be interlaced", png(ihdr(160, 120, interlaced=1), *rest), ANY
    yield "png of unknown interlacing", png(ihdr(160, 120, interlaced=7), *rest), ANY
    yield "png with two headers", png(ihdr(160, 120), ihdr(60_000, 60_000), *rest), TOO_MANY
    alpha = riff_chunks(good()["alpha.webp"])[1:]
    for width, height in ((1, 1), (161, 121), (16_383, 1), (2**14, 2**14), (2**24, 2**24)):
        yield f"webp canvas {width}x{height}", riff(vp8x(width, height, 0x10), *alpha), ANY
    lossy, lossless = (riff_chunks(good()[name])[0][1] for name in ("lossy.webp", "lossless.webp"))
    yield "lossy webp as huge", riff((b"VP8 ", lossy[:6] + b"\xff\x3f\xff\x3f" + lossy[10:])), TOO_MANY
    yield (
        "lossless webp as huge",
        riff((b"VP8L", lossless[:1] + b"\xff\xff\xff\x0f" + lossless[5:])),
        TOO_MANY,
    )
