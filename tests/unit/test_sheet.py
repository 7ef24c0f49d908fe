"""Contact sheets: every photo in its cell, whatever its shape and state."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.data.sheet import GAP, LINE, contact_sheet


def test_photos_stand_in_rows_with_room_for_the_longest_caption(tmp_path: Path) -> None:
    colours = ("red", "lime", "blue")
    for colour, size in zip(colours, ((400, 300), (30, 300), (10, 8)), strict=True):
        Image.new("RGB", size, colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    files = [*(tmp_path / f"{colour}.png" for colour in colours), tmp_path / "broken.png"]
    out = tmp_path / "sheet.png"
    contact_sheet(out, [(file, f"{file.name}\n{'wide ' * 90}") for file in files], columns=2, cell=(40, 30))
    sheet = Image.open(out)
    step = 30 + 2 * LINE + GAP
    assert sheet.size == (2 * (40 + GAP) + GAP, 2 * step + GAP)
    centres = [(GAP + 20 + x * (40 + GAP), GAP + 15 + y * step) for y in (0, 1) for x in (0, 1)]
    found = [sheet.getpixel(centre) for centre in centres]
    assert found == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (211, 211, 211)]
    # A caption ends where its cell does: the gap between the columns stays white.
    assert {sheet.getpixel((GAP + 40 + 3, y)) for y in range(sheet.height)} == {(255, 255, 255)}


def test_no_photos_make_an_empty_sheet(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", [])
    assert Image.open(tmp_path / "sheet.png").height > 0


def test_umlauts_are_drawn_as_letters(tmp_path: Path) -> None:
    """A font draws the same box for every letter that it lacks."""
    drawn = []
    for caption in ("\xe4\xe4\xe4", "\xf6\xf6\xf6", "\xfc\xfc\xfc", "\x81\x81\x81"):
        contact_sheet(tmp_path / "sheet.png", [(tmp_path / "none.png", caption)])
        drawn.append(np.asarray(Image.open(tmp_path / "sheet.png")).tobytes())
    assert len(set(drawn)) == 4
