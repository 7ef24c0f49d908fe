"""Fixtures for all tests: real servers, a misbehaving photo server, and where the labelled photos are."""

import os
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.support.postgres",
    "tests.support.enriched",
    "tests.support.elasticsearch",
    "tests.support.photo_server",
    "tests.support.object_store",
    "tests.support.harness",
    "tests.support.gate",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    faults = parser.getgroup("tests/faults")
    faults.addoption("--soak", action="store_true", help="try far more faults, for many minutes")
    faults.addoption("--reliability", type=Path, metavar="FOLDER", help="write there what was tried, as JSON")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the labelled photos (`ENRICH_SHARED`, or `../shared` beside the checkout)."""
    default = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("ENRICH_SHARED", default))
    if (folder / "photos" / "manifest.csv").is_file():
        return folder
    message = (
        "the labelled photos are not here: set ENRICH_SHARED to the folder that holds photos/manifest.csv"
    )
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
