"""Serves the demo's pictures over HTTP on loopback, as a portal's photo host would."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote


class PhotoHost(ThreadingHTTPServer):
    """Answers requests for the given paths and nothing else; `requests` counts all of them."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PhotoHost

    def do_GET(self) -> None:
        self.server.requests += 1
        file = self.server.files.get(unquote(self.path))
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = file.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not printed."""


@contextmanager
def serving(files: Mapping[str, Path]) -> Iterator[PhotoHost]:
    """Serve `files`, by URL path, on a free port for the length of the block."""
    host = PhotoHost(files)
    thread = Thread(target=host.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()
        thread.join()
