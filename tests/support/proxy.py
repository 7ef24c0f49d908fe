"""A proxy in front of a real server: counts requests, and answers in its place when a test says so."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

PRODUCT = {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any = None
    headers: Mapping[str, str] | None = None


class Proxy:
    """Set `answer` to a function that returns an `Answer`, or None to let the request through.

    Set `cuts` to one that says whether the answer breaks off in the middle, with the connection.
    """

    def __init__(self, target: str) -> None:
        self.answer: Callable[[Request], Answer | None] = lambda request: None
        self.cuts: Callable[[Request], bool] = lambda request: False
        self.requests: list[Request] = []
        self._target = urlsplit(target)
        self._lock = Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy._serve(self, Request(self.command, self.path, body))

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def always(self, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Answer everything like this from now on; `clear` ends it."""
        self.answer = lambda request: Answer(status, body, headers)

    def before(self, part: str, act: Callable[[], object]) -> None:
        """Do this before each request whose path contains `part`, and let it through; `clear` ends it."""

        def answer(request: Request) -> None:
            if part in request.path:
                act()

        self.answer = answer

    def clear(self) -> None:
        self.answer = lambda request: None
        self.cuts = lambda request: False

    def sent(self, part: str) -> list[Request]:
        """The requests so far whose path contains `part`."""
        with self._lock:
            return [request for request in self.requests if part in request.path]

    def _serve(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
        answer = self.answer(request)
        if answer is None:
            status, headers, data = self._forward(handler, request)
        else:
            data = json.dumps(answer.body or {}).encode()
            status, headers = answer.status, dict(PRODUCT if answer.headers is None else answer.headers)
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if self.cuts(request):
            handler.close_connection = True
            data = data[: len(data) // 2]
        if request.method != "HEAD":
            handler.wfile.write(data)

    def _forward(
        self, handler: BaseHTTPRequestHandler, request: Request
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self._target.hostname or "", self._target.port, timeout=60)
        kept = {k: v for k, v in handler.headers.items() if k.lower() in ("accept", "content-type")}
        try:
            connection.request(request.method, request.path, request.body or None, kept)
            response = connection.getresponse()
            data = response.read()
            drop = ("content-length", "transfer-encoding", "connection")
            headers = {name: value for name, value in response.getheaders() if name.lower() not in drop}
            return response.status, headers, data
        except OSError:
            return 502, {}, b""
        finally:
            connection.close()
