"""A browser for the tests of the page and for its pictures.

    python -m tools.browser

installs Chromium where that can be done without asking anybody (as root on Debian or Ubuntu), fetches
axe-core, which finds what some people could not read or use, and says in one line what is missing.
Playwright's Python package drives the Chromium of the system; it brings none of its own.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

AXE = "axe-core@4.14.1"
FLAGS = [
    f"--{name}"
    for name in (
        *("headless", "no-sandbox", "no-first-run", "disable-gpu", "disable-quic", "disable-sync"),
        *("disable-background-networking", "disable-component-update"),
    )
]


class Missing(Exception):
    """What is not there, and how it is had."""


def chromium() -> str:
    """Where Chromium is: the program that CHROMIUM names, or the system's.

    Raises:
        Missing: nowhere.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise Missing("no chromium: apt-get install chromium, or set CHROMIUM to a Chromium or Chrome")
    return path


def axe() -> str:
    """The source of axe-core, fetched by npm the first time and kept in a cache folder.

    Raises:
        Missing: it cannot be fetched.
    """
    folder = Path(tempfile.gettempdir()) if os.geteuid() == 0 else Path.home() / ".cache"
    kept = folder / "listing-enrichment-tests" / f"{AXE}.js"
    if not kept.is_file():
        npm = shutil.which("npm")
        if npm is None:
            raise Missing(f"no npm, to fetch {AXE} with: install Node.js")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            done = subprocess.run([npm, "pack", AXE], cwd=scratch, capture_output=True, text=True)
            if done.returncode:
                raise Missing(f"npm could not fetch {AXE}: {done.stderr.strip()[-300:]}")
            with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
                source = archive.extractfile("package/axe.min.js")
                assert source is not None
                new = Path(scratch) / "axe.js"
                new.write_bytes(source.read())
            new.replace(kept)
    return kept.read_text(encoding="utf-8")


def install() -> None:
    """Have Chromium installed, where nobody needs to be asked."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ("update", "install"):
        packages = ["--no-install-recommends", "chromium"] if command == "install" else []
        subprocess.run(
            [apt, "-qq", command, "--yes", *packages], check=False, env=environment, capture_output=True
        )


if __name__ == "__main__":
    try:
        chromium()
    except Missing:
        install()
    for wanted in (chromium, axe):
        try:
            wanted()
        except Missing as missing:
            sys.stderr.write(f"the tests in tests/browser need a browser: {missing}\n")
