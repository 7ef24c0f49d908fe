"""Files that people name, read and written, and files and folders that appear in one step.

The latter are written beside their place and then put there: whoever looks finds the old one or the new one,
never a part, whenever the writing process may die.
"""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enrich.errors import OutageError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""How the system says that a disk is full, or one's share of it."""


def no_room(reason: str, file: str | None) -> OutageError:
    """How a command ends whose disk is full; `file`: where that was met, if it is known."""
    where = f" ({file})" if file else ""
    return OutageError(f"{reason}{where}: make room, and start the command again. What was saved is kept")


@contextmanager
def reading(file: str, kind: type[UsageError] = UsageError) -> Iterator[None]:
    """Where a text `file` that a person named is read.

    Raises:
        UsageError: it cannot be read; of this `kind`.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise kind(f"{file} cannot be read: {reason}") from None


@contextmanager
def writing(file: str) -> Iterator[None]:
    """Where a `file` that a person named is written; what the system says against it is theirs to mend, but
    for a disk that is full.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None


def is_folder(path: Path) -> bool:
    """Whether there is a folder. Raises OSError where one may not look, of which the path's own `is_dir` says
    no since Python 3.14."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return stat.S_ISDIR(path.stat().st_mode)
    return False


def _say_where(error: BaseException, path: Path) -> None:
    """Of a full disk, which the system tells of without a file's name where a file that is open grows."""
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
        error.filename = str(path)


def scratch() -> Path:
    """The folder for temporary files.

    Raises:
        UsageError: there is none that can be written to.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise UsageError(
            "no folder for temporary files can be written to: set TMPDIR to one that can"
        ) from None


def check_folder(path: Path, named: str, replaced: bool = True) -> None:
    """Refuse a place where `new_folder` cannot make a folder, leaving nothing there.

    Args:
        path: the place.
        named: as messages call it.
        replaced: a folder that is there will give way, not only files in it.

    Raises:
        UsageError: it is such a place.
    """
    path = Path(os.path.realpath(path))
    with writing(named):
        missing = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        for folder in missing:
            os.rmdir(folder)
        if replaced and path.is_mount():
            raise OSError(errno.EBUSY, "something is mounted there; name a folder inside it")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Where to write the file that takes the place of `path` when the block ends without an error.

    One process at a time may write a file: the name beside it is always the same, so that what a killed
    process leaves there is overwritten by the next one. A device or a pipe, such as /dev/stdout, is written
    to as it is, and what a link leads to is replaced, not the link.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)  # on a full disk it would take the last room
        _say_where(error, path)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder that takes the place of `path` when the block ends without an error.

    Should that fail, what was there before is there again. What a link leads to is replaced, not the link.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    made, previous = scratch / "made", scratch / "previous"
    try:
        made.mkdir()
        yield made
        if path.exists():
            os.rename(path, previous)
        try:
            os.rename(made, path)
        except OSError:
            if previous.exists():
                os.rename(previous, path)
            raise
    except BaseException as error:
        _say_where(error, path)
        raise
    finally:
        shutil.rmtree(scratch)
