"""The `enrich` command, killed at a named boundary between two steps, as a power cut would, or frozen there.

::

    died = killed(world, "sent", 2)        # by SIGKILL, when the 2nd bulk was answered, before it is recorded
    died.scored                            # photos that the model had scored by then

    process = frozen(world, "sent", 2)     # by SIGSTOP, at the same place
    process.send_signal(signal.SIGCONT)    # it goes on from there
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enrich.state.database import Database
from enrich.state.locks import Locks
from tests.support.boundaries import BOUNDARIES
from tests.support.harness import PATIENCE, World, until


@dataclass(frozen=True)
class Died:
    """A command that was killed."""

    scored: int
    """Photos that the model had scored by then."""


def killed(world: World, boundary: str, count: int, *command: str, **settings: Any) -> Died:
    """Run the boundary's command (or another) to its death, the `count`-th time that it comes there."""
    process = _started(world, signal.SIGKILL, boundary, count, command, settings)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, f"it did not come to {boundary!r} {count} times: {err}"
    return Died(int(out))


def interrupted(world: World, boundary: str, count: int, *command: str, **settings: Any) -> int:
    """As `killed`, where the command may end before it comes there; its exit code."""
    process = _started(world, signal.SIGKILL, boundary, count, command, settings)
    process.communicate(timeout=PATIENCE)
    return process.returncode


def frozen(world: World, boundary: str, count: int, *command: str, **settings: Any) -> subprocess.Popen[str]:
    """Start the boundary's command (or another); it stands still the `count`-th time that it comes there."""
    process = _started(world, signal.SIGSTOP, boundary, count, command, settings)
    stopped = os.WSTOPPED | os.WNOHANG
    until(lambda: os.waitid(os.P_PID, process.pid, stopped), f"it stands still at {boundary!r}")
    return process


def _started(
    world: World,
    number: signal.Signals,
    boundary: str,
    count: int,
    command: Sequence[str],
    settings: Mapping[str, Any],
) -> subprocess.Popen[str]:
    program = (sys.executable, "-m", "tests.support.boundaries", number.name, boundary, str(count))
    return world.start(*(command or BOUNDARIES[boundary].command), program=program, **settings)


def wait_for_the_lock(world: World, name: str) -> None:
    """Until the lease of a dead holder has run out."""
    database = Database(world.portal.url)
    locks = Locks(database)
    token = until(lambda: locks.acquire(name, "test", 60.0), f"the lock {name} is free")
    locks.release(name, token)
    database.close()
