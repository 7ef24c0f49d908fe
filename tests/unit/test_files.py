"""Photos by file:// URLs: only regular files below the allowed folders, however the path is written."""

import asyncio
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from enrich.errors import SettingsError
from enrich.photos import files
from enrich.photos.files import FileTransport
from enrich.photos.open import open_transport
from enrich.records import Fetched, PhotoStatus, Validators
from tests.support.fetching import CAP, PHOTO, settings


def fetch(url: str, folder: Path | None, validators: Validators | None = None, **changed: Any) -> Fetched:
    allowed = (str(folder),) if folder else ()

    async def go() -> Fetched:
        async with open_transport(settings(allowed_folders=allowed, **changed)) as transport:
            fetched = await transport.fetch(url, validators)
            assert isinstance(fetched, Fetched)
            return fetched

    return asyncio.run(go())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "home 1").mkdir(parents=True)
    (folder / "home 1" / "kök%.jpg").write_bytes(PHOTO)
    (tmp_path / "secret.jpg").write_bytes(PHOTO)
    return folder


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://", " file://"])
def test_a_photo_below_an_allowed_folder(folder: Path, start: str) -> None:
    fetched = fetch(f"{start}{folder}/home%201/k%C3%B6k%25.jpg#top", folder)
    assert (fetched.status, fetched.body) == (PhotoStatus.OK, PHOTO)
    assert (fetched.sha256, fetched.bytes_read) == (sha256(PHOTO).hexdigest(), len(PHOTO))


def test_a_file_that_is_as_it_was_is_not_read_again(folder: Path) -> None:
    file = folder / "a.jpg"
    file.write_bytes(PHOTO)
    first = fetch(file.as_uri(), folder)
    again = fetch(file.as_uri(), folder, first.validators)
    assert again == Fetched(PhotoStatus.UNCHANGED, validators=first.validators)
    file.write_bytes(PHOTO[::-1])  # as large, but later
    assert fetch(file.as_uri(), folder, first.validators).body == PHOTO[::-1]
    (folder / "b.jpg").write_bytes(PHOTO)
    os.utime(folder / "b.jpg", ns=(0, file.stat().st_mtime_ns))
    second = fetch(file.as_uri(), folder).validators
    os.replace(folder / "b.jpg", file)  # as large and as old, but another file
    assert fetch(file.as_uri(), folder, second).body == PHOTO


def test_no_setting_means_no_files(folder: Path) -> None:
    fetched = fetch(f"file://{folder}/home%201/k%C3%B6k%25.jpg", None)
    assert fetched.status is PhotoStatus.FORBIDDEN_ADDRESS and "ENRICH_ALLOWED_FOLDERS" in str(fetched.error)


@pytest.mark.parametrize(
    "path",
    [
        "{outside}/secret.jpg",
        "{folder}/../secret.jpg",
        "{folder}/%2e%2e/secret.jpg",
        "{folder}/home%201/..%2f..%2fsecret.jpg",
        "{folder}/link.jpg",
        "{folder}/linked/secret.jpg",
        "{folder}-private/a.jpg",
        "{outside}/there-is-none.jpg",
        "/dev/zero",
        "/proc/self/environ",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_allowed_folders_is_read(folder: Path, path: str) -> None:
    (folder / "link.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "linked").symlink_to(folder.parent)
    url = "file://" + path.format(folder=folder, outside=folder.parent)
    assert fetch(url, folder).status is PhotoStatus.FORBIDDEN_ADDRESS


def test_links_that_stay_inside_are_followed(folder: Path) -> None:
    (folder / "cover.jpg").symlink_to("home 1/kök%.jpg")
    (folder.parent / "current").symlink_to(folder)
    assert fetch(f"file://{folder}/cover.jpg", folder).body == PHOTO
    assert fetch(f"file://{folder}/cover.jpg", folder.parent / "current").body == PHOTO


@pytest.mark.parametrize("swapped", ["a.jpg", "inner"])
def test_a_link_put_there_between_check_and_opening_is_not_followed(
    folder: Path, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "secret.jpg").write_bytes(b"harmless")
    (folder / "a.jpg").write_bytes(b"harmless")
    opening = files._open_below

    def swap_first(root: str, real: str) -> int:
        os.rename(folder / swapped, folder / "moved")
        target = folder.parent if swapped == "inner" else folder.parent / "secret.jpg"
        (folder / swapped).symlink_to(target)
        return opening(root, real)

    monkeypatch.setattr(files, "_open_below", swap_first)
    url = f"file://{folder}/{'inner/secret.jpg' if swapped == 'inner' else 'a.jpg'}"
    fetched = fetch(url, folder)
    assert fetched.body is None and not fetched.status.ok


def test_only_regular_files_are_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    started = time.monotonic()
    for url in (f"file://{folder}/pipe.jpg", f"file://{folder}/home%201", f"file://{folder}"):
        fetched = fetch(url, folder)
        assert fetched.status is PhotoStatus.FORBIDDEN_ADDRESS and "not a regular file" in str(fetched.error)
    assert time.monotonic() - started < 10
    assert fetch("file:///dev/zero", Path("/dev")).status is PhotoStatus.FORBIDDEN_ADDRESS


def test_each_trouble_has_its_status(folder: Path) -> None:
    (folder / "empty.jpg").touch()
    (folder / "large.jpg").write_bytes(bytes(CAP + 1))
    (folder / "fits.jpg").write_bytes(bytes(CAP))
    expected = {
        "none.jpg": PhotoStatus.NOT_FOUND,
        "fits.jpg/a.jpg": PhotoStatus.NOT_FOUND,
        "empty.jpg": PhotoStatus.EMPTY,
        "large.jpg": PhotoStatus.TOO_MANY_BYTES,
        "fits.jpg": PhotoStatus.OK,
        "x" * 300: PhotoStatus.BAD_URL,
    }
    found = {name: fetch(f"file://{folder}/{name}", folder) for name in expected}
    assert {name: fetched.status for name, fetched in found.items()} == expected
    assert found["none.jpg"].error == f"{folder}: no such file"


def test_a_file_that_grows_while_it_is_read_is_cut_off_at_the_cap(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.jpg").write_bytes(PHOTO)
    monkeypatch.setattr(os, "read", lambda descriptor, size: bytes(size))
    fetched = fetch(f"file://{folder}/a.jpg", folder)
    assert (fetched.status, fetched.bytes_read) == (PhotoStatus.TOO_MANY_BYTES, CAP + 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; see the next test")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    (folder / "a.jpg").touch(mode=0)
    assert fetch(f"file://{folder}/a.jpg", folder).status is PhotoStatus.REFUSED


def test_what_the_system_refuses_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "_open_below", refuse)
    fetched = fetch(f"file://{folder}/a.jpg", folder)
    assert fetched.status is PhotoStatus.REFUSED and fetched.status.transient()


def test_a_folder_that_is_not_mounted_is_a_passing_trouble(tmp_path: Path) -> None:
    fetched = fetch(f"file://{tmp_path}/share/a.jpg", tmp_path / "share")
    assert fetched.status.transient(earlier_failures=5) and "mounted" in str(fetched.error)


def test_a_disk_that_hangs_costs_a_photo_its_time_and_the_loop_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.jpg").write_bytes(PHOTO)
    disk, read = Event(), Event()

    def hang(descriptor: int, size: int) -> bytes:
        disk.wait(60)
        read.set()
        return b""

    monkeypatch.setattr(os, "read", hang)
    fetched = fetch(f"file://{folder}/a.jpg", folder, fetch_timeout=0.2)
    waited_for = read.is_set()
    disk.set()
    assert fetched.status is PhotoStatus.TIMEOUT and not waited_for


def test_a_disk_that_hangs_holds_up_no_end(folder: Path) -> None:
    photo = folder / "home 1" / "kök%.jpg"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", HANGS, photo.as_uri(), str(folder)], check=True, timeout=100)
    assert time.monotonic() - started < 50


HANGS = """
import os, sys, time
from pathlib import Path
from tests.unit.test_files import PhotoStatus, fetch
os.read = lambda descriptor, size: time.sleep(60)
fetched = fetch(sys.argv[1], Path(sys.argv[2]), fetch_timeout=0.2)
assert fetched.status is PhotoStatus.TIMEOUT
"""


@pytest.mark.parametrize(
    "url",
    ["file://", "file:///", "file://other/srv/a.jpg", "file:///a.jpg?v=2", "file:///a%00.jpg", "file:///a\n"],
)
def test_urls_that_name_no_file(url: str, tmp_path: Path) -> None:
    assert fetch(url, tmp_path).status is PhotoStatus.BAD_URL


def test_a_folder_is_named_from_the_root() -> None:
    with pytest.raises(SettingsError, match="'photos' is not an absolute path"):
        FileTransport(settings(allowed_folders=("photos",)))
