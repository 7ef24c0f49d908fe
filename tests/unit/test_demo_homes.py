"""A folder of the user's own for the demo, whatever its files are called."""

from pathlib import Path

from jobs.demo.homes import from_folder


def test_names_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    for home in ("²", "home"):
        (tmp_path / home).mkdir()
        for name in ("photo 10", "photo 9", "12 m²", "3²4"):
            (tmp_path / home / f"{name}.jpg").touch()
    for made in from_folder(tmp_path):
        assert [photo.file.stem for photo in made.photos] == ["3²4", "12 m²", "photo 9", "photo 10"]
