"""How many cores this process may use (what its machine has, its CPU affinity and its container's quota), and
what they can do."""

import math
import os
from pathlib import Path

_CGROUP, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_CPU = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Cores that this process may keep busy, at least 1.

    The CPUs that its affinity allows, or fewer where a cgroup (v1 or v2) of its own or above it has a quota;
    a quota of 1.5 CPUs is two cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas())]))


def cpu_flags() -> frozenset[str]:
    """The CPU's instruction sets, as Linux writes them (avx512_vnni, …); none where it does not say."""
    try:
        lines = _CPU.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split()[2:] for line in lines if line.startswith("flags")), ()))


def _quotas() -> list[float]:
    """CPUs that the cgroups of this process grant, one for each quota that is set."""
    found = []
    for folder in _folders():
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            cpus = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # no controller there, or "max": no quota
            continue
        if cpus > 0:  # v1 writes -1 where there is none
            found.append(cpus)
    return found


def _folders() -> set[Path]:
    """Where quotas may stand: this process's cgroups and all above them.

    In a container the paths of the host may not be there, and its own cgroup is mounted at the root.
    """
    folders = {_CGROUP, _CGROUP / "cpu", _CGROUP / "cpu,cpuacct"}
    try:
        lines = _OWN.read_text(encoding="utf-8").splitlines()
    except OSError:
        return folders
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = _CGROUP / controllers
        own = mount / path.strip("/")
        folders |= {own, *(above for above in own.parents if above.is_relative_to(mount))}
    return folders
