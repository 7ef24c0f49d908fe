"""What all fault tests share: how long they go on, and where they write down what they tried."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Record = Callable[..., None]


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether to go on for long (`--soak`)."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Record:
    """`record("name", "what was tried", cases, crashes=0, …)`: a line of docs/reliability.md.

    To be called before the test says what should be 0.
    """
    folder: Path | None = request.config.getoption("--reliability")

    def write(name: str, tried: str, cases: int, **failures: int) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            found = {"tried": tried, "cases": cases, "failures": failures}
            (folder / f"{name}.json").write_text(json.dumps(found))

    return write
