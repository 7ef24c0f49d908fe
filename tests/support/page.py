"""The page for tests: served to a real Chromium, or asked without a browser.

The browser is the system's, see `tools.browser`. Where there is none, the tests that need it are skipped with
a line that says so; with CI set, they fail.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from enrich.settings import Settings
from jobs.run.services import open_services
from jobs.web.access import Access
from jobs.web.app import make_app
from jobs.web.serving import served
from tools import browser

PHONE, DESK = {"width": 375, "height": 720}, {"width": 1280, "height": 900}
EXPECTED = r"Failed to load resource: .* status of 404|htmx:(sendAbort|afterRequest)"
"""What the console says of addresses known to lead nowhere, and of requests that a later one overtook."""
NO_ANSWER = (
    rf"{EXPECTED}|Failed to load resource: .*(status of (400|503)|net::ERR_FAILED)"
    r"|Response Status Error|htmx:sendError"
)
"""And what it says where the page refuses what it is asked for, or is away."""
PATIENCE = 60_000  # milliseconds that anything may take in the browser, on a machine that does much else
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
def client(
    settings: Settings,
    address: str = "127.0.0.1",
    host: str = "localhost:8080",
    peer: str = "127.0.0.1",
) -> Iterator[Client]:
    """A client, at the address `peer`, of the page as it would listen on `address`, by the name `host`."""
    with open_services(settings, "page") as services:
        app = make_app(services, Access(settings, address))
        with Client(app, base_url=f"http://{host}", follow_redirects=False, client=(peer, 5000)) as opened:
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


def _had(wanted: Callable[[], str]) -> str:
    try:
        return wanted()
    except browser.Missing as missing:
        message = f"the tests of the page need a browser: {missing}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is."""
    return _had(browser.chromium)


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    return _had(browser.axe)


@pytest.fixture
def browse(chromium: str) -> Iterator[Callable[..., Page]]:
    """`browse(viewport=PHONE, color_scheme="dark")`: an empty tab; a page that breaks its rules fails.

    What the console says of errors that are not `expected`, such as something the content security policy
    forbids, fails the test at its end. The first tab starts the browser: from then on no event loop can
    be run in this thread.
    """
    said: list[str] = []
    expect.set_options(timeout=PATIENCE)
    with ExitStack() as stack:
        browsers: list[Browser] = []

        def open_tab(expected: str = EXPECTED, **options: Any) -> Page:
            def hear(text: str) -> None:
                if not re.match(expected, text):
                    said.append(text)

            if not browsers:
                playwright = stack.enter_context(sync_playwright())
                browsers.append(playwright.chromium.launch(executable_path=chromium, args=browser.FLAGS))
                stack.callback(browsers[0].close)
            given = {"viewport": DESK, "reduced_motion": "reduce", **options}
            tab = browsers[0].new_context(**given).new_page()
            tab.set_default_timeout(PATIENCE)
            tab.on("console", lambda message: hear(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: hear(str(error)))
            return tab

        yield open_tab
    assert said == []


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
