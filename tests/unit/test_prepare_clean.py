"""Cleaning: what cannot be used goes with its reason, the rest becomes an upright RGB JPEG."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import picture, save_picture
from training.data.clean import Looked, inspect, write_photo


def usable(file: Path, width: int = 60, min_width: int = 40) -> Looked:
    found = inspect(file, width, min_width)
    assert not found.reason, found
    return found


def written(file: Path, to: Path, width: int = 60) -> Image.Image:
    write(file, usable(file, width), to)
    return Image.open(to)


def write(file: Path, found: Looked, to: Path) -> None:
    write_photo(file, (found.width, found.height), found.as_it_is, to)


def test_a_wide_photo_becomes_the_width_with_its_shape_kept(tmp_path: Path) -> None:
    file = save_picture(tmp_path / "a.jpg", 1, 96, 64)
    found = usable(file)
    assert (found.width, found.height) == (60, 40)
    image = written(file, tmp_path / "out" / "a.jpg")
    assert (image.size, image.format, image.mode) == ((60, 40), "JPEG", "RGB")


def test_a_photo_between_the_two_widths_is_copied_byte_by_byte(tmp_path: Path) -> None:
    file = save_picture(tmp_path / "a.jpg", 1, 50, 90)
    found = usable(file)
    assert (found.width, found.height, found.as_it_is) == (50, 90, True)
    write(file, found, tmp_path / "b.jpg")
    assert (tmp_path / "b.jpg").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("width", "kept"), [(40, True), (39, False)])
def test_the_smallest_width_still_kept(tmp_path: Path, width: int, kept: bool) -> None:
    found = inspect(save_picture(tmp_path / "a.jpg", 1, width, 64), 60, 40)
    assert (found.reason, found.detail) == (("", "") if kept else ("too_small", "39 px wide, less than 40"))


def test_the_width_is_that_of_the_upright_photo(tmp_path: Path) -> None:
    upright = picture(1, 48, 96)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees when shown
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = usable(tmp_path / "a.jpg")
    assert (found.width, found.height, found.as_it_is) == (48, 96, False)
    image = written(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert not image.getexif()
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 10


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_other_formats_become_jpeg(tmp_path: Path, name: str) -> None:
    image = written(save_picture(tmp_path / name, 1, 50, 40), tmp_path / "b.jpg")
    assert (image.format, image.size) == ("JPEG", (50, 40))


def test_grey_photos_become_rgb(tmp_path: Path) -> None:
    picture(1, 50, 40).convert("L").save(tmp_path / "a.jpg")
    assert written(tmp_path / "a.jpg", tmp_path / "b.jpg").mode == "RGB"


def jpeg() -> bytes:
    data = io.BytesIO()
    picture(1, 300, 200).save(data, format="JPEG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "unsupported_format"),
        (jpeg()[: len(jpeg()) // 2], "truncated"),
        (jpeg()[:12], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "truncated"),
        (b"GIF89a" + bytes(50), "GIF"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, data: bytes, detail: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    found = inspect(tmp_path / "a.jpg", 60, 40)
    assert found.reason == "unopenable"
    assert detail in found.detail


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert inspect(tmp_path / "gone.jpg", 60, 40) == Looked(
        "unopenable", "cannot be read: No such file or directory"
    )


def test_a_file_that_changed_after_it_was_inspected(tmp_path: Path) -> None:
    file = save_picture(tmp_path / "a.jpg", 1)
    found = usable(file)
    file.write_bytes(b"")
    with pytest.raises(OSError, match="changed meanwhile"):
        write(file, found, tmp_path / "b.jpg")
