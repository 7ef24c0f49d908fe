"""Every picture format that portals serve ends as the same pixels; every bad file ends in its status."""

import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

import enrich.photos.decode
from enrich.model.bundle import Preprocessing, load_bundle
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode, dhash
from enrich.records import Decoded, PhotoStatus
from enrich.settings import STARTER_BUNDLE
from tests.support.bundles import draw, draw_bytes

HALF = (0.5, 0.5, 0.5)
SQUASH = Preprocessing((96, 96), "squash", "bicubic", HALF, HALF)
CROP = Preprocessing((48, 64), "crop", "bilinear", HALF, HALF, crop_ratio=0.875)
CAP = 4_000_000
WHITE, RED, GREEN, BLUE = (255, 255, 255), (200, 30, 40), (30, 160, 60), (20, 50, 220)


def decoded(data: bytes, *preprocessings: Preprocessing, cap: int = CAP) -> Decoded:
    return decode(data, preprocessings or (SQUASH,), cap)


def pixels(data: bytes) -> NDArray[np.int64]:
    result = decoded(data)
    assert result.status is PhotoStatus.OK, result.error
    return result.pixels[0].astype(np.int64)


def saved(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=format, **options)
    return file.getvalue()


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """A picture of two colours, 160 x 120."""
    picture = Image.new(mode, (160, 120), left)
    picture.paste(right, (80, 0, 160, 120))
    return picture


def assert_halves(data: bytes, left: tuple[int, ...], right: tuple[int, ...], within: int = 1) -> None:
    found = pixels(data)
    assert np.abs(found[20:-20, 8:40] - left).max() <= within
    assert np.abs(found[20:-20, -40:-8] - right).max() <= within


def test_one_array_per_preprocessing_each_of_its_size() -> None:
    result = decoded(draw_bytes("kitchen"), SQUASH, CROP)
    assert [array.shape for array in result.pixels] == [(96, 96, 3), (48, 64, 3)]
    assert {array.dtype for array in result.pixels} == {np.dtype(np.uint8)}
    assert result.error is None


def test_squash_keeps_the_edges_and_crop_keeps_the_shape() -> None:
    picture = Image.new("RGB", (400, 100), RED)
    picture.paste(GREEN, (130, 0, 270, 100))
    squashed, cropped = decoded(saved(picture), SQUASH, CROP).pixels
    assert np.abs(squashed[48, 0].astype(int) - RED).max() <= 1
    assert (cropped == np.array(GREEN)).all()  # its shape: 117 x 87.5 of 400 x 100


def test_crop_is_resize_then_centre_crop() -> None:
    picture = draw("bedroom", size=(500, 375))
    small = Preprocessing((42, 56), "crop", "bicubic", HALF, HALF, crop_ratio=0.875)
    (found,) = decoded(saved(picture), small).pixels
    wanted = np.asarray(picture.resize((64, 48), Image.Resampling.BICUBIC).crop((4, 3, 60, 45)))
    assert np.abs(found.astype(int) - wanted).mean() < 0.3


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_formats_are_told_by_content(format: str) -> None:
    data = saved(halves(RED, BLUE), format)
    assert_halves(data, RED, BLUE, within=1 if format == "PNG" else 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_upright(orientation: int, format: str) -> None:
    upright = Image.new("RGB", (160, 120), WHITE)
    upright.paste(RED, (0, 0, 80, 60))
    upright.paste(BLUE, (80, 0, 160, 60))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose numbers that undo each orientation
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(saved(stored, format, exif=exif.tobytes()))
    for colour, place in ((RED, (24, 24)), (BLUE, (24, 72)), (WHITE, (72, 24)), (WHITE, (72, 72))):
        assert np.abs(found[place] - colour).max() <= 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_cost_the_photo() -> None:
    data = saved(halves(RED, BLUE), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert_halves(data, RED, BLUE, within=8)


def test_cmyk_is_read_as_adobe_writes_it() -> None:
    data = saved(halves(RED, BLUE).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert_halves(data, RED, BLUE, within=8)


def test_transparency_is_laid_on_white() -> None:
    clear, half = (0, 0, 0, 0), (*RED, 128)
    pink = tuple(round(255 + (c - 255) * 128 / 255) for c in RED)
    assert_halves(saved(halves(clear, half, "RGBA")), WHITE, pink)
    assert_halves(saved(halves(clear, half, "RGBA"), "WEBP", lossless=True), WHITE, pink)
    assert_halves(saved(halves((0, 0), (90, 255), "LA")), WHITE, (90, 90, 90))
    palette = halves(RED, BLUE).convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    assert_halves(saved(palette), RED, BLUE)
    first = palette.getpixel((0, 0))
    assert_halves(saved(palette, transparency=first), WHITE, BLUE)
    shares = bytes(0 if index == first else 255 for index in range(2))
    assert_halves(saved(palette, transparency=shares), WHITE, BLUE)
    assert_halves(saved(halves(RED, BLUE), transparency=RED), WHITE, BLUE)
    assert_halves(saved(Image.new("1", (160, 120), 0), transparency=0), WHITE, WHITE)


def test_a_large_profile_or_text_does_not_cost_a_png_its_pixels() -> None:
    texts = PngInfo()
    texts.add_text("Raw profile type xmp", "0" * 3_000_000, zip=True)
    assert_halves(saved(halves(RED, BLUE), icc_profile=bytes(3_000_000)), RED, BLUE)
    assert_halves(saved(halves(RED, BLUE), pnginfo=texts), RED, BLUE)


def test_grey_pictures_of_any_depth() -> None:
    for mode, left, right in (("L", 40, 210), ("1", 0, 255), ("I;16", 40 * 257, 210 * 257)):
        picture = Image.new(mode, (160, 120), left)
        picture.paste(right, (80, 0, 160, 120))
        grey = (0, 255) if mode == "1" else (40, 210)
        assert_halves(saved(picture), (grey[0],) * 3, (grey[1],) * 3)
    picture = Image.new("L", (160, 120), 40)
    picture.paste(210, (80, 0, 160, 120))
    assert_halves(saved(picture, "JPEG"), (40,) * 3, (210,) * 3, within=3)


def test_sixteen_bit_colour_png() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", *(c * 257 for c in RED)) * 8 for _ in range(8))
    data = png(struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), rows)
    assert np.abs(pixels(data) - RED).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    others = [halves(GREEN, GREEN), halves(WHITE, WHITE)]
    data = saved(halves(RED, BLUE), format, save_all=True, append_images=others, lossless=True)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert_halves(data, RED, BLUE)


def png(header: bytes, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


JPEG = draw_bytes("kitchen", size=(320, 240))


def flipped(data: bytes, start: int, count: int) -> bytes:
    return data[:start] + bytes(255 - byte for byte in data[start : start + count]) + data[start + count :]


def many_scans() -> bytes:
    """A progressive JPEG whose last scan comes 1,000 times."""
    data = saved(draw("kitchen"), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * 1000 + data[-2:]


def huge_webp() -> bytes:
    """A real WebP whose header states a canvas of 16,383 x 16,383."""
    data = saved(halves((0, 0, 0, 0), (*RED, 128), "RGBA"), "WEBP")
    assert data[12:16] == b"VP8X"
    side = (16382).to_bytes(3, "little")
    return data[:24] + side + side + data[30:]


BAD = {
    "empty": (b"", PhotoStatus.EMPTY),
    "html": (b"<!DOCTYPE html><html><body>Sorry</body></html>", PhotoStatus.UNSUPPORTED_FORMAT),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', PhotoStatus.UNSUPPORTED_FORMAT),
    "gif": (saved(halves(RED, BLUE), "GIF"), PhotoStatus.UNSUPPORTED_FORMAT),
    "tiff": (saved(halves(RED, BLUE), "TIFF"), PhotoStatus.UNSUPPORTED_FORMAT),
    "bmp": (saved(halves(RED, BLUE), "BMP"), PhotoStatus.UNSUPPORTED_FORMAT),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", PhotoStatus.UNSUPPORTED_FORMAT),
    "video": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", PhotoStatus.UNSUPPORTED_FORMAT),
    "wave": (b"RIFF\x24\0\0\0WAVEfmt ", PhotoStatus.UNSUPPORTED_FORMAT),
    "noise": (random.Random(1).randbytes(5000), PhotoStatus.UNSUPPORTED_FORMAT),
    "half a jpeg": (JPEG[: len(JPEG) // 2], PhotoStatus.TRUNCATED),
    "start of a jpeg": (JPEG[:40], PhotoStatus.TRUNCATED),
    "half a progressive jpeg": (
        saved(draw("kitchen"), "JPEG", progressive=True)[:700],
        PhotoStatus.TRUNCATED,
    ),
    "half a png": (saved(draw("kitchen"))[:3000], PhotoStatus.TRUNCATED),
    "half a webp": (saved(draw("kitchen"), "WEBP")[:300], PhotoStatus.TRUNCATED),
    "broken png": (flipped(saved(draw("kitchen")), 60, 400), PhotoStatus.UNDECODABLE),
    "broken webp": (flipped(saved(draw("kitchen"), "WEBP"), 12, 40), PhotoStatus.UNDECODABLE),
    "broken jpeg": (flipped(JPEG, 4, 300), PhotoStatus.UNDECODABLE),
    "no height": (png(struct.pack(">IIBBBBB", 8, 0, 8, 2, 0, 0, 0), b""), PhotoStatus.UNDECODABLE),
    "bomb": (
        png(struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0), b""),
        PhotoStatus.TOO_MANY_PIXELS,
    ),
    "webp bomb": (huge_webp(), PhotoStatus.TOO_MANY_PIXELS),
    "scans": (many_scans(), PhotoStatus.UNDECODABLE),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_ends_in_its_status(case: str) -> None:
    data, status = BAD[case]
    result = decoded(data)
    assert (result.status, result.pixels) == (status, ())
    assert result.error
    assert " at 0x" not in result.error


def test_the_reason_names_what_came_instead() -> None:
    assert "HTML" in str(decoded(BAD["html"][0]).error)
    assert "GIF" in str(decoded(BAD["gif"][0]).error)
    assert "HEIC" in str(decoded(BAD["heic"][0]).error)
    assert "50000x50000" in str(decoded(BAD["bomb"][0]).error)


def test_the_cap_on_pixels_is_inclusive_and_read_from_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw_bytes("kitchen", size=(200, 100))
    assert decoded(data, cap=20_000).status is PhotoStatus.OK
    monkeypatch.setattr(Image.Image, "resize", None)
    monkeypatch.setattr(Image.Image, "convert", None)
    monkeypatch.setattr(Image.Image, "load", None)
    assert decoded(data, cap=19_999).status is PhotoStatus.TOO_MANY_PIXELS


def test_running_out_of_memory_is_not_the_photos_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", exhausted)
    with pytest.raises(MemoryError):
        decoded(JPEG)


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_random_bytes_never_raise(data: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\1\0\0WEBPVP8X"):
        result = decoded(start + data)
        assert (result.status is PhotoStatus.OK) == bool(result.pixels)


@given(
    st.sampled_from(
        [
            JPEG,
            saved(draw("bedroom")),
            saved(draw("bedroom"), "WEBP"),
            saved(draw("bedroom"), "JPEG", progressive=True),
        ]
    ),
    st.lists(st.tuples(st.integers(min_value=0), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_damaged_pictures_never_raise(data: bytes, damage: list[tuple[int, bytes]]) -> None:
    broken = bytearray(data)
    for place, content in damage:
        start = place % len(broken)
        broken[start : start + len(content)] = content
    result = decode(bytes(broken), (SQUASH, CROP), CAP)
    assert result.status in {
        PhotoStatus.OK,
        PhotoStatus.TRUNCATED,
        PhotoStatus.UNDECODABLE,
        PhotoStatus.UNSUPPORTED_FORMAT,
        PhotoStatus.TOO_MANY_PIXELS,
    }
    assert len(result.pixels) == (2 if result.status is PhotoStatus.OK else 0)


def test_many_threads_get_what_one_gets() -> None:
    files = [draw_bytes(kind, seed, (640, 480)) for kind in ("kitchen", "bedroom") for seed in range(8)]
    alone = [decoded(data, SQUASH, CROP) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decoded(data, SQUASH, CROP), files * 4))
    for number, result in enumerate(together):
        wanted = alone[number % len(files)]
        assert result.dhash == wanted.dhash
        assert all((a == b).all() for a, b in zip(result.pixels, wanted.pixels, strict=True))


def test_dhash_is_signed_and_stays_near_for_the_same_scene() -> None:
    scene = draw("kitchen", 1, (640, 480))
    first = decoded(saved(scene, "JPEG", quality=95)).dhash
    smaller = decoded(saved(scene.resize((400, 300)), "WEBP", quality=60)).dhash
    other = decoded(draw_bytes("kitchen", 2, (640, 480))).dhash
    assert -(2**63) <= first < 2**63

    def distance(one: int, two: int) -> int:
        return ((one ^ two) & (2**64 - 1)).bit_count()

    assert distance(first, smaller) <= 4
    assert distance(first, other) > 10
    brighter_to_the_right = Image.linear_gradient("L").rotate(90)
    assert dhash(brighter_to_the_right) == -1
    assert dhash(brighter_to_the_right.rotate(180)) == 0


def detailed(size: tuple[int, int] = (1600, 1200)) -> Image.Image:
    """Hard edges at all angles and fine texture: harder on scaled decoding than a photo."""
    picture = draw("bathroom", 3, size)
    pen = ImageDraw.Draw(picture)
    place = random.Random(5)
    for _ in range(150):
        x, y = place.randrange(size[0]), place.randrange(size[1])
        colour = tuple(place.randrange(256) for _ in range(3))
        pen.line((x, y, x + place.randrange(-200, 200), y + place.randrange(-200, 200)), colour, 3)
    return picture


MODEL = Preprocessing((224, 224), "squash", "bicubic", HALF, HALF)
FULL_CROP = Preprocessing((224, 224), "crop", "bicubic", HALF, HALF, crop_ratio=0.875)


def test_scaled_decoding_saves_work_and_stays_within_its_tolerance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = saved(detailed(), "JPEG", quality=90)
    sizes = []
    resize = Image.Image.resize

    def spy(picture: Image.Image, *how: Any, **options: Any) -> Image.Image:
        sizes.append(picture.size)
        return resize(picture, *how, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    scaled = decoded(data, MODEL, FULL_CROP)
    assert (800, 600) in sizes
    assert (1600, 1200) not in sizes
    monkeypatch.setattr(enrich.photos.decode, "DRAFT_MARGIN", 1e6)
    full = decoded(data, MODEL, FULL_CROP)
    assert (1600, 1200) in sizes
    for one, other in zip(scaled.pixels, full.pixels, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_large_pictures_are_averaged_first_and_small_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    large, small = (saved(detailed(size), format) for size in ((1600, 1200), (500, 375)))
    averaged, same = (decoded(data, MODEL, FULL_CROP).pixels for data in (large, small))
    monkeypatch.setattr(enrich.photos.decode, "REDUCING_GAP", None)
    for one, other in zip(averaged, decoded(large, MODEL, FULL_CROP).pixels, strict=True):
        difference = np.abs(one.astype(int) - other).mean()
        # A large JPEG is small already when it comes out of its decoder.
        assert difference == 0 if format == "JPEG" else 0 < difference < 1
    for one, other in zip(same, decoded(small, MODEL, FULL_CROP).pixels, strict=True):
        assert np.array_equal(one, other)


def test_scaled_decoding_stays_within_its_tolerance_on_real_photos(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos enlarged to 1280 px, as portals serve them; decisions by the starter bundle's heads."""
    bundle = load_bundle(STARTER_BUNDLE)
    scorer = TorchEngine(bundle, device="cpu")
    places = sorted((shared / "photos" / "web_homes").rglob("*.jpg"))[::60][:20]
    files = []
    for place in places:
        picture = Image.open(place).convert("RGB")
        scale = 1280 / max(picture.size)
        larger = picture.resize((round(picture.width * scale), round(picture.height * scale)))
        files.append(saved(larger, "JPEG", quality=88))
    small = [decode(data, bundle.preprocessings, CAP).pixels for data in files]
    monkeypatch.setattr(enrich.photos.decode, "DRAFT_MARGIN", 1e6)
    full = [decode(data, bundle.preprocessings, CAP).pixels for data in files]
    assert 0 < max(np.abs(a[0].astype(int) - b[0]).mean() for a, b in zip(small, full, strict=True)) < 3
    scores = list(zip(scorer.score(small), scorer.score(full), strict=True))
    for member in bundle.members:
        for head in member.heads:
            pairs = [
                [head.probabilities(s[member.model_id].scores[head.name]) for s in pair] for pair in scores
            ]
            moved = np.array([np.abs(one - other).max() for one, other in pairs])
            assert np.quantile(moved, 0.9) < 0.05, head.name
