"""Fixtures for all tests: real servers, a misbehaving photo server, and where the labelled photos are."""

import logging
import os
from pathlib import Path

import pytest

from jobs.cli.logs import OURS, QUIET

pytest_plugins = [
    "tests.support.postgres",
    "tests.support.enriched",
    "tests.support.elasticsearch",
    "tests.support.photo_server",
    "tests.support.object_store",
    "tests.support.harness",
    "tests.support.gate",
    "tests.support.page",
    "tests.faults.servers",
]

LONGEST = (
    "test_kills.py",
    "test_ray.py",
    "test_scheduler.py",
    "test_reindex.py",
    "test_fit_finetune.py",
    "test_frozen.py",
    "test_machine.py",
    "test_quickstart.py",
    "test_training_memory.py",
    "test_lethal_photo.py",
    "test_training_finetune.py",
    "test_evaluate.py",
    "test_faster.py",
    "test_openvino_engine.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes begin first: at the end one process would work, and the others wait for it."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def pytest_addoption(parser: pytest.Parser) -> None:
    faults = parser.getgroup("tests/faults")
    faults.addoption("--soak", action="store_true", help="try far more faults, for many minutes")
    faults.addoption("--reliability", type=Path, metavar="FOLDER", help="write there what was tried, as JSON")


@pytest.fixture(autouse=True)
def logging_as_in_a_fresh_process() -> None:
    """Whatever a command or a library did to logging in an earlier test is undone."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and (name.split(".")[0] in OURS or name in QUIET):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)


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
