"""Contact sheets: a grid of photos with a caption under each, for people to look through."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

LINE = 14
"""Height of a line of a caption in pixels."""
GAP = 6
FONT = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
"""Pillow's own font lacks umlauts."""


def contact_sheet(
    path: Path, photos: Sequence[tuple[Path, str]], columns: int = 6, cell: tuple[int, int] = (240, 180)
) -> None:
    """Draw `photos`, (file, caption) each, in rows of `columns` and write the picture to `path`.

    `cell`: width and height in pixels that a photo is fitted into. A caption may have several lines; what is
    wider than the cell is cut. A file that cannot be opened is shown as an empty cell.
    """
    width, height = cell
    captions = [caption.split("\n") for _, caption in photos]
    below = LINE * max((len(lines) for lines in captions), default=0)
    step_x, step_y = width + GAP, height + below + GAP
    rows = -(-len(photos) // columns)
    sheet = Image.new("RGB", (columns * step_x + GAP, max(rows, 1) * step_y + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(FONT, LINE - 3)
    for number, ((file, _), lines) in enumerate(zip(photos, captions, strict=True)):
        left, top = GAP + number % columns * step_x, GAP + number // columns * step_y
        small = _fitted(file, cell)
        sheet.paste(small, (left + (width - small.width) // 2, top + (height - small.height) // 2))
        for row, line in enumerate(lines):
            while line and draw.textlength(line, font=font) > width:
                line = line[:-1]
            draw.text((left, top + height + row * LINE), line, fill="black", font=font)
    sheet.save(path, format="PNG", optimize=True)


def _fitted(file: Path, cell: tuple[int, int]) -> Image.Image:
    try:
        with Image.open(file) as image:
            image.draft("RGB", cell)
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, …
        return Image.new("RGB", cell, "lightgrey")
    upright.thumbnail(cell)
    return upright
