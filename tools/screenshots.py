"""The pictures of the page in the documentation, taken of the demo's homes.

python -m tools.screenshots docs/img
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from enrich.settings import Settings
from jobs.demo.run import run_demo
from jobs.run.nightly import RunOptions, run
from jobs.run.stop import Stop
from jobs.web.serving import LOOPBACK, served
from tools.browser import FLAGS, chromium

WIDTH, HEIGHT = 1280, 860
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
    """Take all pictures of the page on these settings, after some more nights."""
    for _ in range(NIGHTS):
        run(settings, RunOptions(), Stop())
    with served(settings, LOOPBACK, 0) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        tab = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        for name, address in SHOTS.items():
            tab.goto(url.rstrip("/") + address)
            tab.wait_for_load_state("networkidle")
            data = _small(tab.screenshot())
            (folder / f"{name}.jpg").write_bytes(data)
            sys.stdout.write(f"{folder / name}.jpg  {len(data):,} bytes\n")
        browser.close()


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
