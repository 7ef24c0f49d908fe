"""`/metrics`, `/healthz` and `/readyz` over HTTP, beside whatever the process does."""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from enrich.settings import Settings
from jobs.check import all_checks

log = logging.getLogger(__name__)

READY_EVERY = 15.0  # seconds that an answer of `/readyz` holds: hashing a bundle takes a moment
PLAIN = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]
"""Status, content type, body."""
NOT_FOUND: Answer = (404, PLAIN, b"there is /metrics, /healthz and /readyz\n")


class Ready:
    """Whether a run could start now: what `enrich check` verifies, but for photos and documents."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._known: tuple[float, Answer] | None = None
        self._told: tuple[str, ...] = ()

    def __call__(self) -> Answer:
        """200 or 503, with a line for each part; what is wrong with it is told in the log, once."""
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > READY_EVERY:
                answer = self._look()
                self._known = time.monotonic(), answer
            return self._known[1]

    def _look(self) -> Answer:
        findings = list(all_checks(self._settings, samples=False))
        wrong = tuple(line for finding in findings if finding.ok is False for line in finding.lines)
        for line in wrong:
            if line not in self._told:
                log.warning("not ready: %s", line)
        self._told = wrong
        words = {True: "ok", False: "failed", None: "not checked"}
        parts = (finding for finding in findings if finding.name != "settings")
        text = "".join(f"{finding.name}: {words[finding.ok]}\n" for finding in parts)
        return (503 if wrong else 200), PLAIN, text.encode()


class _Server(ThreadingHTTPServer):
    def __init__(self, settings: Settings, port: int, collector: Collector) -> None:
        if ":" in settings.metrics_address:
            self.address_family = socket.AF_INET6
        self.answers: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(collector)),
            "/healthz": lambda: (200, PLAIN, b"alive\n"),
            "/readyz": Ready(settings),
        }
        super().__init__((settings.metrics_address, port), _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went away is not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # seconds that a client may keep a thread waiting
    server_version, sys_version = "listing-enrichment", ""

    def do_GET(self) -> None:
        known = self.server.answers.get(self.path.partition("?")[0])
        try:
            status, kind, body = known() if known else NOT_FOUND
        except Exception as error:
            log.warning("%s could not be answered: %s", self.path, error)
            status, kind, body = 500, PLAIN, b"failed: see the log\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Scrapes are not worth a line."""


@contextmanager
def served(settings: Settings, port: int, collector: Collector) -> Iterator[None]:
    """Answer on `ENRICH_METRICS_ADDRESS` and this port while the block runs.

    A port that cannot be had is a warning: another job of this machine may have it, and a night without
    metrics is better than none.
    """
    where = f"{settings.metrics_address}:{port}"
    try:
        server = _Server(settings, port, collector)
    except OSError as error:
        told = "no metrics: ENRICH_METRICS_PORT=%d cannot be listened on at %s (%s): choose another"
        log.warning(told, port, settings.metrics_address, error)
        yield
        return
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics at http://%s/metrics", where)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
