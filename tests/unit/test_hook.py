"""`ENRICH_ON_FINISH`: commands and webhooks get the report, and what they do is a warning at most."""

import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from enrich.errors import SettingsError
from enrich.settings import load_settings
from jobs.run.hook import tell

REPORT = {"kind": "run", "exit_code": 0, "text": "räksmörgås"}
SECRET = "t0ken"


def command(code: str, *words: str) -> str:
    return shlex.join([sys.executable, "-c", code, *words])


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING):
        yield caplog


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted. `/slow` answers without an end, `/odd` not in HTTP, `/<number>` so."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, str | None, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, self.headers["Content-Type"], json.loads(body)))
        if self.path == "/slow":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            with suppress(OSError):
                for _ in range(100):  # a byte now and then: no single read takes long
                    self.wfile.write(b".")
                    time.sleep(0.1)
            return
        if self.path.startswith("/odd"):
            self.wfile.write(b"odd\r\n\r\n")
            return
        self.send_response(int(self.path[1:4]))
        self.send_header("Location", f"{self.server.url}/200")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_command_gets_the_report_on_stdin(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    kept = tmp_path / "kept.json"
    tell(command("import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())", str(kept)), REPORT)
    assert json.loads(kept.read_text()) == REPORT
    assert warnings.text == ""


@pytest.mark.parametrize(
    ("code", "says"), [("pass", ""), ("raise SystemExit('no such channel')", "exit code 1")]
)
def test_a_machine_without_a_temporary_folder_costs_what_the_command_said_last_alone(
    code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", list)  # all is read-only, or full
    kept = tmp_path / "kept.json"
    reads = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read());"
    tell(command(reads + code, str(kept)), REPORT)
    assert json.loads(kept.read_text()) == REPORT
    assert warnings.messages == ([f"ENRICH_ON_FINISH: {sys.executable} failed: {says}"] if says else [])


@pytest.mark.parametrize("trick", ["; touch {}", "&& touch {}", "| touch {}", "$(touch {})", "`touch {}`"])
def test_a_command_is_no_shell_script(trick: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    tell(f"{command('pass')} {trick.format(touched)}", {"text": trick.format(touched)})
    assert not touched.exists()


def test_a_command_that_does_not_read_is_no_failure(warnings: pytest.LogCaptureFixture) -> None:
    tell(command("pass"), {"much": "x" * 1_000_000})
    assert warnings.text == ""


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (command("import sys; sys.exit('no such channel')"), "exit code 1, no such channel"),
        ("/nowhere/hook --token t0ken", "/nowhere/hook failed: [Errno 2]"),
    ],
)
def test_a_command_that_fails_is_one_warning(
    hook: str, says: str, warnings: pytest.LogCaptureFixture
) -> None:
    tell(hook, REPORT)
    (record,) = warnings.records
    assert says in record.getMessage() and "ENRICH_ON_FINISH" in record.getMessage()
    assert SECRET not in warnings.text


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    child = tmp_path / "child"
    # A shell, which starts its child long before the limit, on a busy machine too.
    hangs = shlex.join(["sh", "-c", 'sleep 100 & echo $! > "$0"; wait', str(child)])
    start = time.monotonic()
    tell(hangs, REPORT, limit=2.0)
    assert time.monotonic() - start < 20
    assert "was not done after 2 s" in warnings.text
    deadline = time.monotonic() + 20
    while is_running(int(child.read_text())):
        assert time.monotonic() < deadline, "its child goes on"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_webhook_gets_the_report(webhook: Webhook, warnings: pytest.LogCaptureFixture) -> None:
    tell(f"{webhook.url}/204", REPORT)
    assert webhook.posted == [("/204", "application/json", REPORT)]
    assert warnings.text == ""


@pytest.mark.parametrize("path", ["302", "404", "500"])
def test_a_webhook_that_does_not_take_it_is_one_warning(
    path: str, webhook: Webhook, warnings: pytest.LogCaptureFixture
) -> None:
    tell(f"{webhook.url}/{path}?token={SECRET}", REPORT)
    (record,) = warnings.records
    assert f"the webhook at 127.0.0.1 failed: it answered {path}" in record.getMessage()
    assert SECRET not in warnings.text
    assert len(webhook.posted) == 1, "a redirection is not followed"


def test_a_webhook_that_trickles_is_left_after_the_limit(
    webhook: Webhook, warnings: pytest.LogCaptureFixture
) -> None:
    start = time.monotonic()
    tell(f"{webhook.url}/slow", REPORT, limit=0.5)
    assert time.monotonic() - start < 5
    assert "was not done after 0.5 s" in warnings.text


def test_a_webhook_that_speaks_no_http_is_one_warning(
    webhook: Webhook, warnings: pytest.LogCaptureFixture
) -> None:
    tell(f"{webhook.url}/odd?token={SECRET}", REPORT)
    (record,) = warnings.records
    assert "the webhook at 127.0.0.1 gave no answer" in record.getMessage()
    assert SECRET not in warnings.text


def test_a_webhook_that_is_not_there_is_one_warning(warnings: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        tell(f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}", REPORT)
    (record,) = warnings.records
    assert "the webhook at 127.0.0.1 failed" in record.getMessage()
    assert SECRET not in warnings.text


@pytest.mark.parametrize("host", ["hooks..example.com", f"{'a' * 64}.example.com"])
def test_a_webhook_whose_name_can_be_none_is_one_warning(
    host: str, warnings: pytest.LogCaptureFixture
) -> None:
    tell(f"https://{host}/{SECRET}", REPORT)
    (record,) = warnings.records
    assert f"the webhook at {host} gave no answer" in record.getMessage()
    assert SECRET not in warnings.text


@pytest.mark.parametrize("written", ["", "  ", "mail 'unended", "http://", "https:///x", "http://h:port/x"])
def test_what_is_neither_command_nor_url_is_a_mistake(written: str) -> None:
    with pytest.raises(SettingsError, match=r"^ENRICH_ON_FINISH: "):
        load_settings(on_finish=written)
