"""Where the CPU time of the whole job goes, per photo: by thread, and by what the event loop's thread does.

    python benchmarks/cpu_profile.py [--photos ../shared/photos] [--homes 100]

The time of each thread is the system's own count. The event loop's is divided by a sampling profiler
(py-spy, which has to be allowed to look into this process); samples in which it waits are left out.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, enumerate

import psutil
from bench_database import fresh_database, postgres_seconds, server
from photo_host import photo_host
from pipeline import homes, seeded, whole_job

from enrich.settings import load_settings
from jobs.run.nightly import RunOptions, run
from jobs.run.stop import Stop
from training.markdown import table

RATE = 200  # samples per second
LOOP = "MainThread"
WAITING = ("select ", "wait ", "_wait_for_tstate_lock ")
THREADS = {
    "score": "network",
    "": "network",  # the engine's own threads
    "decode": "decode",
    "state": "look-ups, claims and saving, our side of it",
    "heartbeat": "heartbeat, locks, progress",
    "lock": "heartbeat, locks, progress",
    "progress": "heartbeat, locks, progress",
    "publish": "publish",
}
LOOP_STAGES = {
    "enrich/photos/": "fetch",
    "aiohttp/": "fetch",
    "enrich/model/aggregate": "aggregate",
    "enrich/pipeline/": "event loop and futures",
    "asyncio/": "event loop and futures",
    "enrich/index/": "publish",
}
"""The innermost frame that is of one of these says what the event loop's thread does."""
REST = "start, discovery and end"


@contextmanager
def sampled() -> Iterator[Counter[str]]:
    """What the event loop's thread does within the block: samples per stage, once it is over."""
    stages: Counter[str] = Counter()
    with tempfile.NamedTemporaryFile("r", suffix=".raw") as raw:
        command = ["py-spy", "record", "--pid", str(os.getpid()), "--threads", "--format", "raw"]
        command += ["--rate", str(RATE), "--duration", "3600", "--output", raw.name]
        spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        yield stages
        spy.send_signal(signal.SIGINT)
        _, told = spy.communicate()
        for line in raw:
            stack, _, count = line.rpartition(" ")
            thread, *frames = stack.split(";")
            if LOOP in thread and frames and not frames[-1].startswith(WAITING):
                stages[stage_of(frames)] += int(count)
    if not stages:
        raise SystemExit(f"py-spy saw nothing of this process: {told}")


def stage_of(frames: list[str]) -> str:
    if not any("asyncio/" in frame for frame in frames):
        return REST
    for frame in reversed(frames):
        for part, stage in LOOP_STAGES.items():
            if part in frame:
                return stage
    return REST


def thread_seconds() -> dict[int, float]:
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}


@contextmanager
def by_thread() -> Iterator[Counter[str]]:
    """CPU-seconds per kind of thread within the block, once it is over."""
    done, names, last = Event(), dict[int, str](), thread_seconds()
    before = dict(last)

    def watch() -> None:
        while not done.wait(0.1):  # a thread's count ends with the thread
            names.update({thread.native_id or 0: thread.name for thread in enumerate()})
            last.update(thread_seconds())

    watching = Thread(target=watch, name="watch")
    watching.start()
    seconds: Counter[str] = Counter()
    try:
        yield seconds
    finally:
        done.set()
        watching.join()
    for id, spent in last.items():
        kind = names.get(id, "").partition("_")[0].partition(" ")[0]
        seconds[kind] += spent - before.get(id, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", type=int, default=100)
    options = parser.parse_args()
    root = options.photos.resolve()
    chosen = homes(root, options.homes)
    base = load_settings(allowed_private_hosts=("127.0.0.1",))
    with server() as home, photo_host(root) as (url, _):
        whole_job(chosen[:2], url, root, base, home)  # converts the model and warms the caches
        database_url = fresh_database(home)
        seeded(database_url, chosen, url, root)
        settings = load_settings(**base.model_dump(exclude={"database_url"}), database_url=database_url)
        with sampled() as stages:
            server_before, start = postgres_seconds(home), time.perf_counter()
            with by_thread() as threads:
                figures = run(settings, RunOptions(), Stop()).figures
            wall = time.perf_counter() - start
            server_spent = postgres_seconds(home) - server_before
    spent: Counter[str] = Counter()
    for kind, seconds in threads.items():
        if kind == LOOP:
            for stage, samples in stages.items():
                spent[stage] += seconds * samples / stages.total()
        elif kind != "watch":
            spent[THREADS.get(kind, kind)] += seconds
    spent["(Postgres, its own processes)"] = server_spent
    print(f"{figures.photos} photos of {len(chosen)} homes in {wall:.1f} s; load: {os.getloadavg()[0]:.1f}\n")
    rows = [[stage, f"{1000 * seconds / figures.photos:.2f}"] for stage, seconds in spent.most_common()]
    print(table(["", "CPU ms per photo"], rows))


if __name__ == "__main__":
    main()
