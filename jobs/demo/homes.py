"""The homes of the demo: twelve made-up listings with rendered pictures, or a folder of the user's own."""

import csv
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from enrich.atomic import is_folder, reading
from enrich.errors import UsageError

log = logging.getLogger(__name__)
PHOTOS = Path(__file__).parent / "photos"
COLUMNS = ("title", "city", "price", "rooms")
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}

# Made up, like the pictures: title, city, price in kronor, rooms.
_LISTINGS = {
    "listing-01": ("Sunny three-room flat by the park", "Solna", 4_350_000, 3),
    "listing-02": ("Terraced house with garden", "Uppsala", 5_200_000, 4),
    "listing-03": ("Corner flat with stove and view", "Solna", 6_100_000, 3),
    "listing-04": ("Timber house near the lake", "Falun", 2_950_000, 5),
    "listing-05": ("Compact flat above the square", "Malmö", 2_400_000, 2),
    "listing-06": ("New build, third floor", "Göteborg", 4_700_000, 3),
    "listing-07": ("Family house on a quiet street", "Lund", 6_850_000, 6),
    "listing-08": ("Renovated cottage", "Kalmar", 1_850_000, 3),
    "listing-09": ("Top floor with wood stove", "Stockholm", 7_900_000, 4),
    "listing-10": ("First home close to the station", "Västerås", 1_950_000, 2),
    "listing-11": ("Flat facing the courtyard", "Malmö", 3_650_000, 3),
    "listing-12": ("House with room to grow", "Örebro", 3_300_000, 4),
}


@dataclass(frozen=True, slots=True)
class DemoPhoto:
    """A picture. `shows` is what it shows by construction: {"room", "balcony", "fireplace"}, or empty."""

    position: int
    file: Path
    shows: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Home:
    """A listing; `columns` by name as in `COLUMNS`."""

    id: str
    columns: Mapping[str, str | int | None]
    photos: tuple[DemoPhoto, ...]

    def shows(self, head: str) -> bool | None:
        """Whether a picture shows it, by construction; None where that is not known."""
        known = [photo.shows[head] == "1" for photo in self.photos if head in photo.shows]
        return any(known) if known else None

    @property
    def rooms_shown(self) -> set[str]:
        """The kinds of room in the pictures, by construction."""
        return {photo.shows["room"] for photo in self.photos if "room" in photo.shows}


def shipped() -> list[Home]:
    """The twelve homes that come along."""
    photos: dict[str, list[DemoPhoto]] = {}
    with (PHOTOS / "listings.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            shows = {name: row[name] for name in ("room", "balcony", "fireplace")}
            photo = DemoPhoto(int(row["position"]), PHOTOS / row["file"], shows)
            photos.setdefault(row["listing"], []).append(photo)
    return [
        Home(id, dict(zip(COLUMNS, columns, strict=True)), tuple(photos[id]))
        for id, columns in _LISTINGS.items()
    ]


def from_folder(folder: Path) -> list[Home]:
    """A listing for each folder in `folder`, its pictures in the order of their names.

    Raises:
        UsageError: no such folder, one that may not be read, no pictures in folders in it, or names that no
            URL can have.
    """
    with reading(f"--photos {folder}"):
        if not is_folder(folder):
            raise UsageError(f"--photos {folder}: no such folder")
        folders = sorted((path for path in folder.iterdir() if path.is_dir()), key=_natural)
    homes = []
    for inner in folders:
        try:
            files = sorted((p for p in inner.iterdir() if p.suffix.lower() in _PICTURES), key=_natural)
        except PermissionError:  # as lost+found, where a whole disk is given
            log.warning("%s may not be read, and is left out", inner)
            continue
        if files and not inner.name.startswith("."):
            for file in files:
                _must_be_utf8(file)
            photos = tuple(DemoPhoto(number, file) for number, file in enumerate(files, start=1))
            homes.append(Home(inner.name, {"title": inner.name}, photos))
    if not homes:
        raise UsageError(
            f"--photos {folder}: holds no folders with pictures (jpg, png, webp): make a folder per listing"
        )
    return homes


def _must_be_utf8(file: Path) -> None:
    """A photo's folder and name become its URL."""
    name = f"{file.parent.name}/{file.name}"
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"--photos {file.parent.parent}: the name {name!r} is not UTF-8: rename it"
        ) from None


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts `photo 10` behind `photo 9`."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
