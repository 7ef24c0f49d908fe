"""What `make` installs: without an NVIDIA GPU no CUDA, and a PyTorch that runs all the same."""

import ctypes
import importlib.metadata
import os
import re
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools import elf, install
from tools.stand_in import stand_in

CHECKOUT = Path(__file__).parents[2]
made_without_cuda = pytest.mark.skipif(
    not (Path(sys.prefix) / ".job-cpu").exists(), reason="this environment was not made by make TORCH=cpu"
)


def megabytes(names: set[str]) -> float:
    """What the distributions `names` and all that they ask for take on the disk, in MB of a million bytes."""
    files, waiting = set(), [*names]
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        files |= {Path(str(file.locate())) for file in distribution.files or ()}
        files |= {Path(cache_from_source(str(path))) for path in files if path.suffix == ".py"}
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.name not in names and (
                not requirement.marker or requirement.marker.evaluate({"extra": ""})
            ):
                names.add(requirement.name)
                waiting.append(requirement.name)
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


@made_without_cuda
def test_without_a_gpu_the_job_is_installed_in_less_than_1_5_gb_and_without_cuda() -> None:
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    assert not {name for name in installed if install.OF_CUDA.match(name)}
    assert megabytes({"listing-enrichment"}) < 1500


@made_without_cuda
def test_pytorch_without_cuda_convolves_multiplies_in_bf16_and_loads_torchvisions_operators() -> None:
    assert install.fault_of_torch() == ""


@made_without_cuda
def test_pytorch_without_cuda_says_so_to_who_asks_for_a_gpu() -> None:
    code = "import torch; torch.zeros(1, device='cuda')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "CUDA" in done.stderr.splitlines()[-1]


def test_where_it_does_not_run_cuda_is_installed_and_one_line_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "pip", lambda *words: ran.append(words))
    monkeypatch.setattr(install, "asks_for_cuda", lambda: False)
    monkeypatch.setattr(install, "TRIAL", "raise ImportError('libnew.so.1: not there')")
    install.main("cpu")
    assert ran[-2:] == [
        ("install", "--no-deps", "--force-reinstall", "torch", "torchvision"),
        ("install", "--editable", "."),
    ]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("so CUDA is installed too: ImportError: libnew.so.1: not there")


@pytest.mark.parametrize(
    ("gpu", "asked", "chosen"),
    [(False, "", "cpu"), (True, "", "cuda"), (True, "TORCH=cpu", "cpu"), (False, "TORCH=cuda", "cuda")],
)
def test_make_takes_cuda_where_there_is_a_gpu_and_a_variable_overrides(
    gpu: bool, asked: str, chosen: str, tmp_path: Path
) -> None:
    if not gpu and not asked and Path("/proc/driver/nvidia").exists():
        pytest.skip("there is a GPU here")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nexit {0 if gpu else 9}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        ["make", "--dry-run", "demo", f"VENV={tmp_path}/venv", *asked.split()],
        cwd=CHECKOUT,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"-m tools.install {chosen}\n" in done.stdout


@pytest.mark.parametrize("version", ["", "libgpu.so.9"])
def test_a_stand_in_loads_and_its_functions_return_an_error_or_a_text(version: str, tmp_path: Path) -> None:
    path = tmp_path / "libgpu.so.9"
    functions = {f"gpuCall{number}" for number in range(300)} | {"gpuGetErrorString"}
    path.write_bytes(stand_in(path.name, version, functions, 100, "no GPU"))
    library = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    assert {getattr(library, name)(1, 2) for name in functions - {"gpuGetErrorString"}} == {100}
    library.gpuGetErrorString.restype = ctypes.c_char_p
    assert library.gpuGetErrorString(100) == b"no GPU"


@pytest.fixture
def whole() -> Path:
    """A library that is there in every environment."""
    folder = Path(str(importlib.metadata.distribution("pillow").locate_file("pillow.libs")))
    return next(folder.glob("libjpeg-*"))


def test_a_library_that_lost_a_section_is_smaller_and_works(whole: Path, tmp_path: Path) -> None:
    small = tmp_path / whole.name
    small.write_bytes(elf.cut(whole, {".eh_frame"}))
    assert elf.read(small) == elf.read(whole)
    assert small.stat().st_size < whole.stat().st_size - 16_000
    library = ctypes.CDLL(str(small), mode=os.RTLD_NOW)
    library.jpeg_quality_scaling.restype = ctypes.c_int
    assert library.jpeg_quality_scaling(75) == 50


def test_what_is_not_a_library_or_has_no_such_section_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"#!/bin/sh\n" + bytes(100))
    with pytest.raises(ValueError, match="not a 64-bit library"):
        elf.read(tmp_path / "a.so")
    with pytest.raises(ValueError, match=r"libjpeg.* has no section .nv_fatbin"):
        elf.cut(whole, {".nv_fatbin"})


def test_whatever_make_adds_to_its_environment_leaves_the_program_there_that_of_the_checkout() -> None:
    """`pip install .` puts a copy in its place, which later changes of the checkout do not reach."""
    lines = (CHECKOUT / "Makefile").read_text().splitlines()
    installs = [line for line in lines if re.search(r"pip install .*'\.\[", line)]
    assert len(installs) == 4
    for line in installs:
        assert "--editable '.[" in line and "--constraint constraints.txt" in line
