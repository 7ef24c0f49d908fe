"""Photos in folders of this machine, by `file://` URLs.

What may be read lies below a folder of `ENRICH_ALLOWED_FOLDERS` after all links and `..` are resolved. The
file is then opened step by step from that folder without following a link, so that nothing that is swapped
between the check and the opening leads outside.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, ParamSpec, Self, TypeVar

from enrich.errors import SettingsError
from enrich.photos.addresses import BadUrlError, stored_url
from enrich.photos.transport import received
from enrich.records import Fetched, PhotoStatus, Validators
from enrich.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
_READERS = 8  # threads: a disk gains nothing from more
_BLOCK = 1 << 20  # bytes between two looks at the clock
_FOLDER = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)  # O_PATH: may be entered is enough
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # O_NONBLOCK: a pipe without a writer does not wait for one


class FileTransport:
    """Reads photos from the allowed folders, off the event loop; an async context manager.

    A file's validator is an ETag made of its size, modification time and inode.

    Raises:
        SettingsError: an entry of `ENRICH_ALLOWED_FOLDERS` is not an absolute path.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folders = _folders(settings.allowed_folders)

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(_READERS)
        self._readers = _Readers()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._readers.shutdown()

    async def fetch(self, url: str, validators: Validators | None = None) -> Fetched:
        """Read one photo; with validators, only if it changed. Waiting for a slot costs it no time."""
        seconds = self._settings.fetch_timeout
        try:
            path = _path(url)
            async with self._slots, asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._readers, self._fetch, path, validators or Validators(), monotonic() + seconds
                )
        except BadUrlError as error:
            return Fetched(PhotoStatus.BAD_URL, error=str(error))
        except TimeoutError:
            return Fetched(PhotoStatus.TIMEOUT, error=f"the file was not read within {seconds:g} s")

    def _fetch(self, path: str, known: Validators, deadline: float) -> Fetched:
        real = os.path.realpath(path)
        for folder in self._folders:
            root = os.path.realpath(folder)
            if Path(real).is_relative_to(root):
                break
        else:
            text = "the file is in no folder of ENRICH_ALLOWED_FOLDERS"
            return Fetched(PhotoStatus.FORBIDDEN_ADDRESS, error=text)
        try:
            descriptor = _open_below(root, real)
            try:
                return self._read(descriptor, folder, known, deadline)
            finally:
                os.close(descriptor)
        except OSError as error:
            return _failure(error, folder)

    def _read(self, descriptor: int, folder: str, known: Validators, deadline: float) -> Fetched:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENXIO, "not a regular file")
        validators = Validators(etag=f'"{found.st_size:x}-{found.st_mtime_ns:x}-{found.st_ino:x}"')
        if known.etag == validators.etag:
            return Fetched(PhotoStatus.UNCHANGED, validators=validators)
        most = self._settings.fetch_max_bytes
        body = bytearray()
        if found.st_size <= most:
            # One byte more than is allowed tells a file that grows while it is read.
            while len(body) <= most and (block := os.read(descriptor, min(_BLOCK, most + 1 - len(body)))):
                body += block
                if monotonic() > deadline:
                    raise TimeoutError
        return received(body, found.st_size, most, f"{folder}: the file", validators)


class _Readers(Executor):
    """Threads that nobody waits for: a folder that hangs holds up no end.

    Those of a `ThreadPoolExecutor` are waited for when the process ends, also after its `shutdown`.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._started = 0

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self._calls.put((future, partial(work, *args, **kwargs)))
        if self._started < _READERS:
            self._started += 1
            Thread(target=self._read, name=f"files-{self._started}", daemon=True).start()
        return future

    def _read(self) -> None:
        while (call := self._calls.get()) is not None:
            _answer(*call)
            del call  # it holds a photo's bytes

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        for _ in range(self._started):
            self._calls.put(None)


def _answer(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():  # its time was over before its turn came
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def _folders(entries: Sequence[str]) -> tuple[str, ...]:
    for entry in entries:
        if not os.path.isabs(entry):
            raise SettingsError(
                f"ENRICH_ALLOWED_FOLDERS: {entry!r} is not an absolute path; write it from the root, "
                "such as /srv/photos"
            )
    return tuple(entries)


def _path(url: str) -> str:
    host, path = stored_url(url)
    if host.lower() not in ("", "localhost"):
        raise BadUrlError("the URL is of another host; file:///path or file://localhost/path can be read")
    return "/" + os.fsdecode(path)


def _open_below(root: str, real: str) -> int:
    """A descriptor of the file `real` below the folder `root`, found without following a link."""
    descriptor = os.open(root, _FOLDER)
    *folders, name = Path(real).relative_to(root).parts or (".",)
    for part, flags in [*((folder, _FOLDER) for folder in folders), (name, _FILE)]:
        try:
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _failure(error: OSError, folder: str) -> Fetched:
    """What a failed reading comes to; the one place that knows the system's errors."""
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR if not os.path.isdir(folder):
            status, text = PhotoStatus.CONNECT, "the folder is not there; is it mounted?"
        case errno.ENOENT | errno.ENOTDIR:
            status, text = PhotoStatus.NOT_FOUND, "no such file"
        case errno.EACCES | errno.EPERM:
            status, text = PhotoStatus.REFUSED, "this user may not read the file"
        case errno.ENXIO:
            status, text = PhotoStatus.FORBIDDEN_ADDRESS, "not a regular file"
        case errno.ELOOP:
            status, text = PhotoStatus.FORBIDDEN_ADDRESS, "a link took the file's place"
        case errno.ENAMETOOLONG:
            status, text = PhotoStatus.BAD_URL, "the path is too long"
        case _ if isinstance(error, TimeoutError):
            raise error
        case _:
            status, text = PhotoStatus.CONNECTION_LOST, f"the file cannot be read: {error.strerror}"
    return Fetched(status, error=f"{folder}: {text}")
