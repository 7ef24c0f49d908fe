"""Decoders under a fuzzer that sees what its photos do (`make soak`)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Record
from tests.faults.good import good
from tests.faults.images import corpus
from tests.support.harness import CHECKOUT

SECONDS = 600
LARGEST = 60_000  # bytes of a file to begin with: small ones are tried more often


@pytest.mark.timeout(SECONDS + 300)
def test_no_photo_that_a_fuzzer_finds_breaks_the_decoder(tmp_path: Path, soak: bool, record: Record) -> None:
    if not soak:
        pytest.skip("make soak runs it")
    pytest.importorskip("atheris", reason="atheris is not installed: make soak installs it")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, data in enumerate([*good().values(), *(case.data for case in corpus(seeds=0))]):
        if len(data) <= LARGEST:
            (seeds / str(number)).write_bytes(data)
    limits = [f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=3000", f"-max_len={2 * LARGEST}"]
    command = [sys.executable, "-m", "tests.faults.fuzz", str(seeds), *limits, "-print_final_stats=1"]
    ran = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"], cwd=CHECKOUT, capture_output=True, text=True
    )
    units = re.search(r"stat::number_of_executed_units:\s*(\d+)", ran.stderr)
    tried = int(units[1]) if units else 0
    record("fuzz", "Photos made by a fuzzer, through the decoder", tried, crashes=int(ran.returncode != 0))
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert tried > SECONDS
