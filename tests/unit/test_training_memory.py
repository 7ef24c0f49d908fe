"""Memory that training frees stays with the process."""

import resource
import subprocess
import sys

import pytest

TAKEN_AGAIN = """
import resource, sys
import torch
from training.trainer.devices import keep_memory
kept = keep_memory() if sys.argv[1] == "keep" else True
for step in range(40):
    if step == 34:  # by then the heap has grown as far as it needs to
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(20_000_000)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[bool, int]:
    """Whether memory is kept, and pages that were asked of the system when 80 MB were taken again."""
    command = [sys.executable, "-c", TAKEN_AGAIN, how]
    kept, count = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return kept == "True", int(count)


def test_freed_memory_is_taken_again_without_asking_the_system() -> None:
    kept, count = faults("keep")
    if not kept:
        pytest.skip("not glibc")
    megabyte = 1_000_000 // resource.getpagesize()
    assert count < 80 * megabyte < faults("leave")[1]
