"""What the demo makes of a folder of the user's own, whatever its files are called, and of a bundle."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enrich.errors import UsageError
from enrich.model.head import Head
from jobs.demo.homes import from_folder
from jobs.demo.run import _lowest_precision


def test_names_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    for home in ("²", "home"):
        (tmp_path / home).mkdir()
        for name in ("photo 10", "photo 9", "12 m²", "3²4"):
            (tmp_path / home / f"{name}.jpg").touch()
    for made in from_folder(tmp_path):
        assert [photo.file.stem for photo in made.photos] == ["3²4", "12 m²", "photo 9", "photo 10"]


@pytest.mark.parametrize("name", [b"home/\xe4.jpg", b"\xe4/a.jpg"])
def test_a_name_that_is_not_utf_8_is_said(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(UsageError, match=r"udce4.* is not UTF-8: rename it$"):
        from_folder(tmp_path)


def test_folders_that_may_not_be_read_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As lost+found, where a disk's first folder is given."""
    for home in ("home", "lost+found"):
        (tmp_path / home).mkdir()
        (tmp_path / home / "a.jpg").touch()
    refuse(monkeypatch, tmp_path / "lost+found")
    assert [home.id for home in from_folder(tmp_path)] == ["home"]


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, tmp_path)
    with pytest.raises(UsageError, match=r"^--photos .* cannot be read: Permission denied"):
        from_folder(tmp_path)


def refuse(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let nobody read a folder, which root might."""
    read = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)


def test_a_lower_precision_is_one_that_all_heads_have_thresholds_for() -> None:
    """In all arithmetics: another machine may score in another one."""
    balcony, fireplace = (
        Head(name, "binary", true_at={"0.8": 0.5, "0.9": 0.7}, metrics={"true": {"target": 0.95}})
        for name in ("balcony", "fireplace")
    )
    assert _lowest_precision([balcony, fireplace]) == "0.8"
    assert _lowest_precision([balcony, replace(fireplace, true_at={"0.9": 0.6})]) == "0.9"
    assert _lowest_precision([balcony, replace(fireplace, true_at={})]) is None
    assert _lowest_precision([replace(balcony, metrics={"true": {"target": 0.8}})]) is None
    assert _lowest_precision([]) is None
