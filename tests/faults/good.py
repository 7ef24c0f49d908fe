"""Good files of every kind that is read, and how a file may end."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

import jobs.demo
from enrich.records import PhotoStatus as Ends
from tests.faults.build import exif, saved, scene

OK = frozenset({Ends.OK})
OTHER = frozenset({Ends.UNSUPPORTED_FORMAT})
BROKEN = frozenset({Ends.TRUNCATED, Ends.UNDECODABLE})
TOO_MANY = frozenset({Ends.TOO_MANY_PIXELS})
ANY = OK | OTHER | BROKEN | TOO_MANY

DEMO = Path(jobs.demo.__file__).parent / "photos"


Found = Iterator[tuple[str, bytes, frozenset[Ends]]]


@cache
def good() -> dict[str, bytes]:
    """Good files of every kind that is read: they are what the broken ones are made of."""
    demo = sorted(DEMO.rglob("*.jpg"))[:1]
    frames = [scene(seed=seed) for seed in (2, 3)]
    photo = Image.open(demo[0]).resize((320, 240))
    return {
        "photo.jpg": demo[0].read_bytes(),
        "baseline.jpg": saved(photo, "JPEG", quality=85, exif=exif((0x0112, 3, 1, 6))),
        "progressive.jpg": saved(photo, "JPEG", progressive=True),
        "restarts.jpg": saved(scene(), "JPEG", restart_marker_rows=1),
        "cmyk.jpg": saved(scene("CMYK"), "JPEG"),
        "grey.jpg": saved(scene("L"), "JPEG"),
        "rgb.png": saved(scene(), "PNG"),
        "palette.png": saved(scene("P"), "PNG", transparency=3),
        "deep.png": saved(scene("I;16"), "PNG"),
        "alpha.png": saved(scene("RGBA"), "PNG"),
        "animated.png": saved(scene(), "PNG", save_all=True, append_images=frames),
        "lossy.webp": saved(photo, "WEBP"),
        "lossless.webp": saved(scene(), "WEBP", lossless=True),
        "alpha.webp": saved(scene("RGBA"), "WEBP"),
        "animated.webp": saved(scene(), "WEBP", save_all=True, append_images=frames),
    }
