"""Photos per second of the whole job beside what one would pick instead, on the same photos and host.

    python benchmarks/peers [--photos ../shared/photos] [--homes 25] [--repeat 3]

All take turns within one run, each in a process of its own, from its start to its end. The peers that score
use the job's own weights in fp32 torch. img2dataset fetches, decodes, resizes and writes, and runs no model.
Each peer has an environment of its own under `--environments`, made at the first run from the versions pinned
beside its script; torch and the weights come from this environment.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent)]

import psutil  # noqa: E402
import torch  # noqa: E402
from bench_database import fresh_database, postgres_seconds, server  # noqa: E402
from photo_host import photo_host  # noqa: E402
from pipeline import homes, say, seeded  # noqa: E402

from training.markdown import table  # noqa: E402

PEERS = {
    "img2dataset, no model": "img2dataset_fetch",
    "Daft": "daft_score",
    "Ray Data": "ray_data_score",
    "straightforward script, PyTorch": "straightforward",
}
WHOLE = "whole job"


@dataclass(frozen=True)
class Ran:
    seconds: float
    """From the start of the process to its end."""
    cpu: float
    """CPU-seconds of the process and all that it started, seen five times a second."""
    photos: int
    version: str = ""
    inner: float | None = None
    """Seconds by the script's own clock: without start-up and imports."""


def environment(folder: Path, script: str) -> Path:
    """The Python of a peer's environment: its pinned packages before this environment's."""
    pinned = HERE / f"{script}.txt"
    if not pinned.exists():
        return Path(sys.executable)
    home = folder / script
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", pinned], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "bench.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return python


def tree_cpu(root: psutil.Process, seen: dict[tuple[int, float], float]) -> None:
    """Note the CPU-seconds of a process and of all below it."""
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for process in processes:
        try:
            times = process.cpu_times()
            seen[process.pid, process.create_time()] = times.user + times.system
        except psutil.Error:
            continue


def watched(command: list[str | Path], variables: dict[str, str]) -> tuple[float, float, str]:
    """Seconds, CPU-seconds and output of a command that must end well."""
    ended = Event()
    seen: dict[tuple[int, float], float] = {}
    with tempfile.TemporaryFile("w+") as messages:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=messages, text=True
        )
        root = psutil.Process(process.pid)

        def watch() -> None:
            while not ended.wait(0.2):
                tree_cpu(root, seen)

        watcher = Thread(target=watch)
        watcher.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
        if process.returncode:
            messages.seek(0)
            raise RuntimeError(f"{command} ended with {process.returncode}: {messages.read()[-2000:]}")
    return seconds, sum(seen.values()), output


def peer(python: Path, script: str, urls: Path) -> Ran:
    paths = os.pathsep.join([str(ROOT), str(HERE)])
    with tempfile.TemporaryDirectory() as out:
        command: list[str | Path] = [python, HERE / f"{script}.py", urls, out]
        seconds, cpu, output = watched(command, {"PYTHONPATH": paths})
    told = json.loads(output.splitlines()[-1])
    return Ran(seconds, cpu, told["photos"], told["version"], told["seconds"])


def whole_job(home: Path, portal: Callable[[str], None], count: int) -> Ran:
    """`enrich run` on a fresh database, from discovery to the last document, on the embedded index."""
    url = fresh_database(home)
    portal(url)
    variables = {
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": url,
        "ENRICH_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
        "ENRICH_INDEX": f"peers-{uuid4().hex[:8]}",
    }
    before = postgres_seconds(home)
    seconds, cpu, _ = watched([sys.executable, "-m", "jobs.cli.commands", "run"], variables)
    return Ran(seconds, cpu + postgres_seconds(home) - before, count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", type=int, default=25)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "enrich-peers")
    options = parser.parse_args()
    root = options.photos.resolve()
    chosen = homes(root, options.homes)
    count = sum(len(home.files) for home in chosen)
    pythons, missing = {}, {}
    for name in options.peers:
        say(f"environment of {name}")
        try:
            pythons[name] = environment(options.environments, PEERS[name])
        except subprocess.CalledProcessError:
            missing[name] = f"{name}: not run, its packages cannot be installed on this Python"
    rounds: dict[str, list[Ran]] = {name: [] for name in (WHOLE, *pythons)}
    with server() as home, photo_host(root) as (url, _), tempfile.NamedTemporaryFile("w") as urls:
        urls.write("\n".join(f"{url}/{file.relative_to(root)}" for one in chosen for file in one.files))
        urls.flush()
        portal = lambda database: seeded(database, chosen, url, root)  # noqa: E731
        whole_job(home, lambda database: seeded(database, chosen[:1], url, root), 1)  # converts the model
        for _ in range(options.repeat):
            say(WHOLE)
            rounds[WHOLE].append(whole_job(home, portal, count))
            for name, python in pythons.items():
                say(name)
                rounds[name].append(peer(python, PEERS[name], Path(urls.name)))
    print(f"{count} photos of {len(chosen)} homes, {len(os.sched_getaffinity(0))} cores\n")
    best = statistics.median(ran.seconds for ran in rounds[WHOLE])
    rows = []
    for name, all in rounds.items():
        assert all[0].photos == count, f"{name} handled {all[0].photos} photos of {count}"
        seconds, cpu = (statistics.median(getattr(r, what) for r in all) for what in ("seconds", "cpu"))
        inner = statistics.median(r.inner for r in all if r.inner is not None) if all[0].inner else None
        rows.append(
            [
                f"{name}, {all[0].version}".removesuffix(", "),
                f"{count / seconds:.1f}",
                f"{count / inner:.1f}" if inner else "",
                f"{1000 * cpu / count:.1f}",
                f"{seconds / best:.2f}",
            ]
        )
    header = ["", "photos/s", "without start-up", "CPU ms per photo", "whole job against it"]
    print(table(header, rows))
    for why in missing.values():
        print(f"\n{why}")


if __name__ == "__main__":
    main()
