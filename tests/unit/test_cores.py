"""Lanes and threads follow what the process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

from enrich import cores


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /sys/fs/cgroup, a process in no cgroup, and eight CPUs."""
    (tmp_path / "fs").mkdir()
    monkeypatch.setattr(cores, "_CGROUP", tmp_path / "fs")
    monkeypatch.setattr(cores, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return tmp_path / "fs"


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def put_v1(folder: Path, quota: int) -> None:
    put(folder / "cpu.cfs_quota_us", str(quota))
    put(folder / "cpu.cfs_period_us", "100000")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_the_affinity_of_the_process_is_kept() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_without_a_quota_all_cpus_of_the_affinity_are_used(cgroups: Path) -> None:
    assert cores.usable_cores() == 8
    put(cgroups / "cpu.max", "max 100000")
    put_v1(cgroups / "cpu", -1)
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(
    ("quota", "cpus"), [("250000 100000", 3), ("200000 100000", 2), ("5000 100000", 1), ("9900000 100000", 8)]
)
def test_a_quota_of_cgroup_v2_is_rounded_up(cgroups: Path, quota: str, cpus: int) -> None:
    put(cgroups / "cpu.max", quota)
    assert cores.usable_cores() == cpus


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_cgroup_v1_counts(cgroups: Path, mount: str) -> None:
    put_v1(cgroups / mount, 150_000)
    assert cores.usable_cores() == 2


def test_the_smallest_quota_above_the_process_counts(cgroups: Path) -> None:
    put(cgroups.parent / "own", "0::/pods/one/container")
    put(cgroups / "pods" / "cpu.max", "800000 100000")
    put(cgroups / "pods" / "one" / "cpu.max", "300000 100000")
    put(cgroups / "pods" / "one" / "container" / "cpu.max", "max 100000")
    put(cgroups / "pods" / "two" / "cpu.max", "100000 100000")
    assert cores.usable_cores() == 3


def test_the_process_s_own_cgroup_of_v1_counts(cgroups: Path) -> None:
    put(cgroups.parent / "own", "4:memory:/pod\n3:cpu,cpuacct:/pod/one\n1:name=systemd:/x")
    put_v1(cgroups / "cpu,cpuacct" / "pod" / "one", 400_000)
    put_v1(cgroups / "memory" / "pod", 100_000)
    assert cores.usable_cores() == 4


def test_files_that_make_no_sense_are_no_quota(cgroups: Path) -> None:
    put(cgroups / "cpu.max", "a lot")
    put_v1(cgroups / "cpu", 100_000)
    put(cgroups / "cpu" / "cpu.cfs_period_us", "0")
    assert cores.usable_cores() == 8
