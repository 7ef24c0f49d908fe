"""The pictures of the page and of a night's report in the documentation, taken of the demo's homes.

python -m tools.screenshots docs/img
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from enrich.settings import Settings
from jobs.demo.run import run_demo
from jobs.paper.pages import write_report
from jobs.run.nightly import RunOptions, run
from jobs.run.services import open_records
from jobs.run.stop import Stop
from jobs.web.serving import LOOPBACK, served
from tools.browser import FLAGS, chromium

VIEW = ViewportSize(width=1280, height=860)
PAPER = ViewportSize(width=1200, height=1150)
"""Of the report, in pixels."""
PHOTOS = 60  # in the report, at most
MOST_BYTES = 300_000
NIGHTS = 6

SHOTS = {
    "search": "/?type.room=kitchen&sort=balcony",
    "listing": "/listing/listing-03",
    "review": "/review?head=balcony",
    "status": "/status",
}
"""Name -> address."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    run_demo(None, False, Stop(), lambda settings: take(settings, folder))


def take(settings: Settings, folder: Path) -> None:
    """Take the picture of the first run's report, and after some more nights those of the page."""
    with tempfile.TemporaryDirectory() as scratch:
        paper = Path(scratch) / "night.html"
        with open_records(settings) as records:
            write_report(records, paper, None, None, PHOTOS)
        for _ in range(NIGHTS):
            run(settings, RunOptions(), Stop())
        with served(settings, LOOPBACK, 0) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            _keep(browser.new_page(viewport=PAPER), paper.as_uri(), folder / "report.jpg")
            tab = browser.new_page(viewport=VIEW)
            for name, address in SHOTS.items():
                _keep(tab, url.rstrip("/") + address, folder / f"{name}.jpg")
            browser.close()


def _keep(tab: Page, address: str, file: Path) -> None:
    tab.goto(address)
    tab.wait_for_load_state("networkidle")
    data = _small(tab.screenshot())
    file.write_bytes(data)
    sys.stdout.write(f"{file}  {len(data):,} bytes\n")


def _small(png: bytes) -> bytes:
    """As a JPEG, in the best quality that is small enough."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in range(90, 30, -5):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        if file.tell() <= MOST_BYTES:
            break
    return file.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
