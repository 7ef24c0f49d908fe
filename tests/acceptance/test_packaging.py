"""The wheel alone: built from a clean tree, installed away from the checkout, with what it asks for only."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.harness import CHECKOUT
from tests.support.postgres import Portal

PACKAGES = ("enrich", "jobs", "migrations", "training")
OURS = ("ENRICH_", "DATABASE_URL", "SOURCE_DATABASE_URL", "ELASTICSEARCH_", "PYTHON", "VIRTUAL_ENV")


class Installed:
    """An environment that holds the wheel and the libraries it asks for, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.environment, self.work, self.home = folder / "venv", folder / "work", folder / "home"
        self.work.mkdir()
        command(sys.executable, "-m", "venv", "--without-pip", str(self.environment))
        pip = [sys.executable, "-m", "pip", "--python", str(self.environment)]
        command(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
        (self.packages,) = self.environment.glob("lib/python*/site-packages")
        (metadata,) = self.packages.glob("listing_enrichment-*.dist-info")
        for library in required_by(PathDistribution(metadata)):
            for top in {file.parts[0] for file in library.files or ()} - {"..", "__pycache__"}:
                if not (self.packages / top).exists():
                    (self.packages / top).symlink_to(Path(str(library.locate_file(top))))

    def run(self, program: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment in the folder to work in."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return subprocess.run(
            [str(self.environment / "bin" / program), *arguments],
            cwd=self.work,
            env={**clean, "OMP_NUM_THREADS": "2", **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )


def command(*words: str) -> None:
    done = subprocess.run(words, cwd=CHECKOUT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def required_by(dist: Distribution) -> list[Distribution]:
    """The distributions that `dist` asks for, directly or not, as they are installed here; not its extras."""
    found: dict[str, Distribution] = {}
    waiting = [(dist, "")]
    while waiting:
        asking, extra = waiting.pop()
        for requirement in map(Requirement, asking.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in {"", *requirement.extras}:
                if f"{requirement.name}[{wanted}]" not in found:
                    library = distribution(requirement.name)
                    found[f"{requirement.name}[{wanted}]"] = library
                    waiting.append((library, wanted))
    return list(found.values())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what the repository holds, without leftovers of earlier builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(
            CHECKOUT / package, source / package, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    command(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder / "dist"), str(source)
    )
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Installed]:
    # Not in pytest's folder: every pytest that starts closes that to the user that Postgres runs as.
    with tempfile.TemporaryDirectory(prefix="enrich-wheel-", ignore_cleanup_errors=True) as folder:
        yield Installed(Path(folder).resolve(), wheel)


def test_the_wheel_holds_what_the_repository_holds_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for package in PACKAGES:
        files = (path for path in (CHECKOUT / package).rglob("*") if path.is_file())
        held = {str(path.relative_to(CHECKOUT)) for path in files if "__pycache__" not in path.parts}
        expected = {name for name in held if "/." not in name}
        assert {name for name in names if name.startswith(f"{package}/")} == expected
    assert any(name.endswith("/LICENSE") for name in names)
    assert wheel.stat().st_size < 40_000_000


def test_the_modules_are_those_of_the_wheel(installed: Installed) -> None:
    code = f"import {', '.join(PACKAGES)}\nfor m in ({', '.join(PACKAGES)}): print(m.__file__)"
    done = installed.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert [Path(line) for line in done.stdout.split()] == [
        installed.packages / package / "__init__.py" for package in PACKAGES
    ]
    assert (installed.environment / "bin" / "enrich-train").is_file()


def test_without_the_extra_training_the_command_says_what_to_install(installed: Installed) -> None:
    done = installed.run("enrich-train", "fit", "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("enrich-train: training needs ") and done.stderr.count("\n") == 1
    assert "pip install 'listing-enrichment[training]'" in done.stderr


def test_migrate_works_from_the_wheel(installed: Installed, portal: Portal) -> None:
    done = installed.run("enrich", "migrate", DATABASE_URL=portal.url)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert portal.execute("SELECT count(*) FROM enrichment.listing_attributes") == [(0,)]
    checked = installed.run("enrich", "status", DATABASE_URL=portal.url)
    assert checked.returncode == 0, checked.stderr


def test_the_demo_works_from_the_wheel(installed: Installed) -> None:
    done = installed.run("enrich", "demo", ENRICH_HOME=str(installed.home))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "12 written" in done.stdout and "55 scored" in done.stdout
    assert not any(installed.work.iterdir())
