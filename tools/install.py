"""Install the job into the environment that runs this, with PyTorch as it comes or without CUDA.

    python -m tools.install cpu|cuda

The torch that PyPI has for Linux on x86-64 is built for CUDA: it brings 4 GB of nvidia's libraries and
Triton, and half of its own size is code for GPUs. PyPI has no build without. `cpu` installs the same wheel
and leaves all of that out: the libraries of nvidia's that torch names at its start become stand-ins of a few
kB, which answer that there is no GPU, and its code for GPUs is cut out of its file. torch then runs as
it does where CUDA is installed and no GPU is found. It is tried; where it does not run, CUDA is installed.
"""

import base64
import hashlib
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

from tools import elf
from tools.compiled import compiled
from tools.stand_in import stand_in

PIP = [sys.executable, "-m", "pip"]
LIBRARIES = "torch", "torchvision"
NVIDIA_FILE = re.compile(r"lib(nccl|(cu|nv)(?!da\.)\w+)\.so\.\d+")  # not libcuda, which is the driver
NVIDIA_SYMBOL = re.compile(r"(cu|nccl|nv)[A-Za-z]")
NO_DEVICE = 100  # cudaErrorNoDevice; to every library of CUDA what is not 0 is an error
OF_CUDA = re.compile(r"(nvidia|cuda)-|triton\b")
NO_CUDA = "This PyTorch was installed without CUDA; make TORCH=cuda installs it with CUDA."
TRIAL = """
import torch, timm, torchvision, torch.distributed
assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
picture = torch.randn(2, 3, 32, 32, requires_grad=True)
torch.nn.Conv2d(3, 8, 3)(picture).mean().backward()
assert picture.grad is not None
half = torch.randn(64, 64, dtype=torch.bfloat16)
assert torch.allclose((half @ half).float(), half.float() @ half.float(), atol=1, rtol=0.1)
boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0], [20.0, 20.0, 30.0, 30.0]])
assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
with torch.profiler.profile():
    timm.create_model("mobilenetv3_small_050").eval()(torch.zeros(1, 3, 64, 64))
"""


def main(torch: str) -> None:
    """Install with PyTorch `cpu` or `cuda`; where `cpu` does not run, say so and install `cuda`."""
    if torch == "cpu":
        try:
            return without_cuda()
        except Exception as error:  # whatever it was, the installation that needs none of this is left
            sys.stderr.write(f"PyTorch without CUDA does not run here, so CUDA is installed too: {error}\n")
            pip("install", "--no-deps", "--force-reinstall", *LIBRARIES)
    elif any(importlib.metadata.distributions(name="torch")) and not asks_for_cuda():
        pip("install", "--no-deps", "--force-reinstall", *LIBRARIES)
    pip("install", "--editable", ".")


def without_cuda() -> None:
    """Install with a PyTorch that has no CUDA. Raises RuntimeError when that one does not run, and ValueError
    when torch's libraries cannot be made smaller."""
    pip("install", "--no-deps", *LIBRARIES)
    if asks_for_cuda():
        names = [dist.name for dist in importlib.metadata.distributions() if OF_CUDA.match(dist.name)]
        if names:
            subprocess.run([*PIP, "uninstall", "--quiet", "--yes", *names], check=True)
        leave_out_cuda()
    pip("install", "--editable", ".")
    if fault := fault_of_torch():
        raise RuntimeError(fault)


def pip(command: str, *arguments: str) -> None:
    options = ["-qq", "--no-compile", "--constraint", "constraints.txt"]
    subprocess.run([*PIP, command, *options, *arguments], check=True)


def asks_for_cuda() -> bool:
    """Whether the torch that is installed now requires CUDA."""
    importlib.invalidate_caches()
    return any(map(OF_CUDA.match, importlib.metadata.requires("torch") or ()))


def fault_of_torch() -> str:
    """The last line of what goes wrong when PyTorch is used on the CPU, or nothing."""
    done = subprocess.run([sys.executable, "-c", TRIAL], capture_output=True, text=True, cwd=sys.prefix)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def leave_out_cuda() -> None:
    """Take the code for GPUs out of torch, and put stand-ins where it looks for the libraries of nvidia's."""
    torch = importlib.metadata.distribution("torch")
    files = [
        file
        for name in LIBRARIES
        for file in importlib.metadata.distribution(name).files or ()
        if ".so" in file.name
    ]
    paths = {str(file): Path(str(file.locate())) for file in files}
    code = paths["torch/lib/libtorch_cuda.so"]
    small = elf.cut(code, {".nv_fatbin", ".symtab", ".strtab"})
    code.unlink()  # a process that has it open keeps it
    code.write_bytes(small)
    made = stand_ins([elf.read(path) for path in paths.values()])
    for name, data in made.items():
        (code.parent / name).write_bytes(data)
    forget_cuda(torch, [code, *(code.parent / name for name in made)])


def stand_ins(libraries: list[elf.Library]) -> dict[str, bytes]:
    """What `libraries` need of nvidia's, as stand-ins by name; those without versions all offer the same."""
    missing = {name for library in libraries for name in library.needed if NVIDIA_FILE.fullmatch(name)}
    wanted = {symbol for library in libraries for symbol in library.wanted}
    offered = {name for library in libraries for name in library.offered}
    loose = {
        symbol.name
        for symbol in wanted
        if not symbol.version and symbol.name not in offered and NVIDIA_SYMBOL.match(symbol.name)
    }
    versions = {symbol.file: symbol.version for symbol in wanted if symbol.file in missing}
    made = {}
    for name in missing:
        own = {symbol.name for symbol in wanted if symbol.file == name} if name in versions else loose
        made[name] = stand_in(name, versions.get(name, ""), own, NO_DEVICE, NO_CUDA)
    return made


def forget_cuda(torch: Distribution, written: list[Path]) -> None:
    """Rewrite torch's record of its files and requirements, by which pip checks, upgrades and uninstalls."""
    record = next(Path(str(file.locate())) for file in torch.files or () if file.name == "RECORD")
    metadata = record.with_name("METADATA")
    asked = rf"^Requires-Dist: (?:{OF_CUDA.pattern}).*\n"
    metadata.write_text(re.sub(asked, "", metadata.read_text(), flags=re.MULTILINE))
    root = record.parent.parent
    changed = [str(path.relative_to(root)) for path in (metadata, *written)]
    rows = [row for row in record.read_text().splitlines() if row.split(",")[0] not in changed]
    record.write_text("\n".join([*rows, *(recorded(root, name) for name in changed)]) + "\n")


def recorded(root: Path, name: str) -> str:
    data = (root / name).read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"{name},sha256={digest},{len(data)}"


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("cpu", "cuda"):
        raise SystemExit(f"TORCH={' '.join(sys.argv[1:])}: use cpu or cuda")
    os.environ.pop("PYTHONPATH", None)
    main(sys.argv[1])
    compiled()
