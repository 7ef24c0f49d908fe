"""A real HTTP server on loopback that serves photos and misbehaves on demand.

::

    photo_server.add("/a.jpg", body, etag='"1"')
    photo_server.behave("/a.jpg", status(500), FINE)      # first a 500, from then on the photo
    ...
    assert photo_server.requests("/a.jpg") == 2

Each request for a path takes the next step of its script; the last step stays. Paths are looked up without
their query. A step that never ends by itself (hang, drip, endless) ends when the client or the server does.
"""

import hashlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

_BLOCK = b"\xff" * 65_536


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `path` includes the query, header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Resource:
    """What a path holds; a file is read anew for each request."""

    source: bytes | Path
    content_type: str
    etag: str | None
    last_modified: str | None

    def read(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


class PhotoServer:
    """The server; use as a context manager, or take the fixture `photo_server`."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.log: list[Request] = []
        self.errors: list[BaseException] = []
        self.connections = 0
        self.busiest = 0
        """Most requests that were ever being answered at once."""
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._busy = 0
        self._resources: dict[str, Resource] = {}
        self._scripts: dict[str, list[Step]] = {}
        self._folders: dict[str, Path] = {}
        self._sockets: set[socket.socket] = set()
        self._server = _Server(host, self)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="photo-server",
            daemon=True,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self.drop_connections()
        self._server.server_close()
        self._thread.join()

    def add(
        self,
        path: str,
        body: bytes | None = None,
        *,
        file: Path | None = None,
        etag: str | None = None,
        last_modified: str | None = None,
        content_type: str = "image/jpeg",
    ) -> str:
        """Serve `body`, or `file`, under `path`; replaces what was there. Returns the URL."""
        source = body if body is not None else file
        assert source is not None, "give a body or a file"
        with self._lock:
            self._resources[path] = Resource(source, content_type, etag, last_modified)
        return self.url(path)

    def serve_folder(self, folder: Path, prefix: str = "/") -> str:
        """Serve `folder` below `prefix`, with ETag and Last-Modified. Returns the prefix's URL."""
        self._folders[prefix.rstrip("/") + "/"] = folder.resolve()
        return self.url(prefix)

    def behave(self, path: str, *script: "Step") -> str:
        """Answer the coming requests for `path` by these steps in turn; none: as added. Returns the URL."""
        with self._lock:
            self._scripts[path] = list(script)
        return self.url(path)

    def url(self, path: str) -> str:
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{shown}:{port}{path}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def requests(self, path: str | None = None) -> int:
        """How many requests came, in all or for one path (without its query)."""
        with self._lock:
            return sum(path is None or request.path.partition("?")[0] == path for request in self.log)

    def forget(self) -> None:
        """Start counting anew."""
        with self._lock:
            self.log.clear()
            self.connections = self.busiest = 0

    def drop_connections(self) -> None:
        """Close every connection, as a server does that restarts."""
        with self._lock:
            open_sockets = list(self._sockets)
        for sock in open_sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster

    def connected(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            self.connections += 1

    def disconnected(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(sock)

    def began(self, request: Request) -> "Step":
        """Write the request down and say how to answer it."""
        path = request.path.partition("?")[0]
        with self._lock:
            self.log.append(request)
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            script = self._scripts.get(path)
            if not script:
                return FINE
            return script.pop(0) if len(script) > 1 else script[0]

    def ended(self) -> None:
        with self._lock:
            self._busy -= 1

    def find(self, path: str) -> Resource | None:
        with self._lock:
            found = self._resources.get(path)
        if found is not None:
            return found
        for prefix, folder in self._folders.items():
            file = (folder / path.removeprefix(prefix)).resolve()
            if path.startswith(prefix) and file.is_file() and file.is_relative_to(folder):
                etag = f'"{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"'
                return Resource(file, "image/jpeg", etag, formatdate(file.stat().st_mtime, usegmt=True))
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, host: str, photos: PhotoServer) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.photos = photos
        super().__init__((host, 0), Answer)

    def server_bind(self) -> None:
        # Without the reverse look-up of the address that http.server does.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.photos.errors.append(error)


class Answer(BaseHTTPRequestHandler):
    """One connection; the steps below write their answers through it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        self.server.photos.connected(self.request)
        super().setup()

    def finish(self) -> None:
        self.server.photos.disconnected(self.request)
        super().finish()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        step = self.photos.began(Request(self.command, self.path, headers))
        try:
            step(self)
        finally:
            self.photos.ended()

    def log_message(self, *_: object) -> None:
        pass

    @property
    def photos(self) -> PhotoServer:
        return self.server.photos

    def head(self, code: int, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {code} Test", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def send(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """A whole, honest answer."""
        length = {} if code in (204, 304) else {"Content-Length": str(len(body))}
        self.wfile.write(self.head(code, {**(headers or {}), **length}) + body)

    def hang_up(self) -> None:
        self.close_connection = True


Step = Callable[[Answer], None]


def _fine(answer: Answer) -> None:
    resource = answer.photos.find(answer.path.partition("?")[0])
    if resource is None:
        return answer.send(404, b"no such photo")
    headers = {"Content-Type": resource.content_type}
    if resource.etag:
        headers["ETag"] = resource.etag
    if resource.last_modified:
        headers["Last-Modified"] = resource.last_modified
    asked = answer.headers.get("If-None-Match")
    since = answer.headers.get("If-Modified-Since")
    if asked == resource.etag if asked is not None else _no_newer(resource.last_modified, since):
        return answer.send(304, headers=headers)
    return answer.send(200, resource.read(), headers)


def _no_newer(date: str | None, since: str | None) -> bool:
    """As servers compare them, which take any file of this date or an older one for the one that was sent."""
    return bool(date and since) and parsedate_to_datetime(str(date)) <= parsedate_to_datetime(str(since))


FINE: Step = _fine
"""What `add` put there, with conditional answers; 404 where nothing is."""


def status(code: int, body: bytes = b"", **headers: str) -> Step:
    """An answer with this code; headers are named with _ for -: `status(429, Retry_After="1")`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: answer.send(code, body, named)


def redirect(location: str, code: int = 302) -> Step:
    return status(code, Location=location)


def raw(data: bytes, then_close: bool = True) -> Step:
    """Exactly these bytes."""

    def step(answer: Answer) -> None:
        answer.wfile.write(data)
        if then_close:
            answer.hang_up()

    return step


def hang() -> Step:
    """No answer at all."""

    def step(answer: Answer) -> None:
        answer.connection.settimeout(0.05)
        while not answer.photos.stopping.is_set():
            try:
                if not answer.connection.recv(1):
                    break
            except TimeoutError:
                continue
        answer.hang_up()

    return step


def drip(interval: float = 0.05) -> Step:
    """An endless body, one byte per `interval` seconds."""

    def step(answer: Answer) -> None:
        answer.wfile.write(answer.head(200, {"Content-Type": "image/jpeg"}))
        while not answer.photos.stopping.wait(interval):
            answer.wfile.write(b"x")
        answer.hang_up()

    return step


def endless() -> Step:
    """An endless body, as fast as it goes."""

    def step(answer: Answer) -> None:
        answer.wfile.write(answer.head(200, {"Content-Type": "image/jpeg"}))
        while not answer.photos.stopping.is_set():
            answer.wfile.write(_BLOCK)
        answer.hang_up()

    return step


def lying(body: bytes, declared: int) -> Step:
    """A body of another length than Content-Length says, then the end of the connection."""
    return lambda answer: raw(answer.head(200, {"Content-Length": str(declared)}) + body)(answer)


def close_at_once() -> Step:
    """The connection ends without an answer."""
    return raw(b"")


@pytest.fixture
def photo_server() -> Iterator[PhotoServer]:
    """A fresh server per test; fails the test when the server itself broke."""
    with PhotoServer() as server:
        yield server
    assert server.errors == []


@pytest.fixture
def other_server() -> Iterator[PhotoServer]:
    """A server on 127.0.0.2: another host, and a private one as long as no setting allows it."""
    with PhotoServer("127.0.0.2") as server:
        yield server
    assert server.errors == []
