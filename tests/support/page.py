"""The page for tests: served to a real Chromium, or asked without a browser.

`chromium` is the browser of the system (Debian's package `chromium`, or what `CHROMIUM` names). Where there
is none, the tests that need it are skipped with a line that says so; with CI set, they fail.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from enrich.settings import Settings
from jobs.run.services import open_services
from jobs.web.access import Access
from jobs.web.app import make_app
from jobs.web.serving import served

AXE = "axe-core@4.14.1"
PHONE, DESK = {"width": 375, "height": 720}, {"width": 1280, "height": 900}
FLAGS = [
    f"--{name}"
    for name in (
        *("headless", "no-sandbox", "no-first-run", "disable-gpu", "disable-quic", "disable-sync"),
        *("disable-background-networking", "disable-component-update"),
    )
]
SAME_SITE = {"sec-fetch-site": "same-origin"}
Serve = Callable[..., str]
OpenClient = Callable[..., "Client"]


class Client(TestClient):
    """A browser's side without a browser: forms carry what a form of the page carries."""

    def send_form(self, url: str, data: Mapping[str, Any] = {}, **options: Any) -> Any:
        if "enrich_form" not in self.cookies:
            self.get("/login")
        filled = {"form_token": self.cookies["enrich_form"], **data}
        return self.post(url, data=filled, headers={**SAME_SITE, **options.pop("headers", {})}, **options)


@contextmanager
def client(settings: Settings, address: str = "127.0.0.1", host: str = "localhost:8080") -> Iterator[Client]:
    """A client of the page as it would listen on `address`, reached by the name `host`."""
    with open_services(settings, "page") as services:
        app = make_app(services, Access(settings, address))
        with Client(app, base_url=f"http://{host}", follow_redirects=False) as opened:
            yield opened


@pytest.fixture
def open_client() -> Iterator[OpenClient]:
    """`open_client(settings, …)`: as `client`, closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda *given, **named: stack.enter_context(client(*given, **named))


@pytest.fixture
def serve_page() -> Iterator[Serve]:
    """`serve_page(settings)`: the URL of the page, served over HTTP to the end of the test."""
    with ExitStack() as stack:
        yield lambda settings, host="127.0.0.1": stack.enter_context(served(settings, host, 0)).rstrip("/")


def _missing(what: str) -> None:
    message = f"{what}: the tests of the page need a browser"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of this process."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        _missing("no chromium (apt-get install chromium, or set CHROMIUM)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`browse(viewport=PHONE, color_scheme="dark")`: an empty tab; a page that breaks its rules fails.

    What the console says of errors, such as something the content security policy forbids, fails the test
    at its end.
    """
    contexts: list[BrowserContext] = []
    said: list[str] = []

    def open_tab(**options: Any) -> Page:
        context = chromium.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        return tab

    yield open_tab
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, fetched from npm the first time and kept in a cache folder."""
    folder = Path(tempfile.gettempdir() if os.geteuid() == 0 else Path.home() / ".cache")
    kept = folder / "listing-enrichment-tests" / f"{AXE}.js"
    if not kept.is_file():
        npm = shutil.which("npm")
        if npm is None:
            _missing(f"no npm to fetch {AXE} with")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            done = subprocess.run([str(npm), "pack", AXE], cwd=scratch, capture_output=True, text=True)
            if done.returncode:
                _missing(f"npm could not fetch {AXE}: {done.stderr[-300:]}")
            with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
                source = archive.extractfile("package/axe.min.js")
                assert source is not None
                new = Path(scratch) / "axe.js"
                new.write_bytes(source.read())
            new.replace(kept)
    return kept.read_text(encoding="utf-8")


def faults(tab: Page, axe: str) -> list[str]:
    """What axe-core finds seriously or critically wrong with what the tab shows."""
    tab.evaluate(axe)  # through the debugger, which the page's policy does not bind
    found = tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {' '.join(node['html'].split())[:160]} ({node['failureSummary'][:200]})"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def overflow(tab: Page) -> int:
    """By how many pixels what the tab shows is wider than the tab."""
    return int(tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
