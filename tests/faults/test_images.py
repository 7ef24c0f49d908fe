"""A broken photo costs itself only: no process, nor much time or memory, nor a line in the log."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.build import blank_png, saved, scene
from tests.faults.conftest import Record
from tests.faults.images import Case, corpus
from tests.support.harness import CHECKOUT

LEAST = 300
CAP = 16_000_000  # pixels; memory grows with it
BYTES_PER_PIXEL = {"webp": 22, "png": 14, "jpg": 14}
BESIDE = 40_000_000  # bytes that a file takes whatever its pixels, and what malloc keeps of the last one
SECONDS = 5.0  # of CPU time, for one photo
PATIENCE = 300.0  # seconds, on a machine that does much else; and 0.05 for each photo
SIDE = 4_000

pytestmark = pytest.mark.timeout(1_800)


def large() -> Iterator[tuple[str, bytes]]:
    """Good photos that are just within the cap on pixels, of each kind that takes memory in its own way."""
    for depth, colour in ((1, 0), (8, 2), (16, 0), (16, 2), (8, 3), (16, 4), (16, 6)):
        yield f"{depth} bits, colour {colour}.png", blank_png(SIDE, SIDE, depth, colour)
    yield "interlaced.png", blank_png(SIDE // 2, SIDE // 2, 8, 6)
    yield "wide.png", blank_png(65_535, CAP // 65_535, 8, 6)
    yield "high.png", blank_png(CAP // 65_535, 65_535, 8, 6)
    size = (SIDE, SIDE)
    yield "alpha.webp", saved(scene("RGBA", size=size), "WEBP", quality=1, method=0)
    yield (
        "lossless.webp",
        saved(
            scene("L", size=size).convert("RGB").quantize(4).convert("RGB"), "WEBP", lossless=True, method=0
        ),
    )
    yield "baseline.jpg", saved(scene(size=size), "JPEG")
    yield "progressive cmyk.jpg", saved(scene("CMYK", size=size), "JPEG", progressive=True, subsampling=0)


@pytest.fixture(scope="module")
def cases(soak: bool) -> dict[str, Case]:
    return {case.name: case for case in corpus(seeds=300 if soak else 12)}


@pytest.fixture(scope="module")
def decoded(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a process of its own made of each: name -> its line; fails where it died, and says of what."""
    folder = tmp_path_factory.mktemp("images")
    files = {f"{number:05}": case for number, case in enumerate(cases.values())}
    for file, case in files.items():
        (folder / file).write_bytes(case.data)
    lines = decode_all(folder, CAP, {file: case.name for file, case in files.items()})
    return {files[line["name"]].name: line for line in lines}


def decode_all(folder: Path, cap: int, names: dict[str, str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.faults.decoding", str(folder), str(cap)]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            out, err = child.communicate(timeout=PATIENCE + len(names) / 20)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
        lines = [json.loads(line) for line in out.splitlines()]
        by_size = sorted(names, key=lambda name: (folder / name).stat().st_size)
        if len(lines) < len(names):
            pytest.fail(f"exit {child.returncode} at {names[by_size[len(lines)]]}: {err[-500:]}")
    assert child.returncode == 0 and err == ""
    return lines


def test_each_ends_in_the_status_that_it_should(
    cases: dict[str, Case], decoded: dict[str, dict[str, Any]], record: Record
) -> None:
    assert len(cases) >= LEAST
    wrong = {
        name: (decoded[name]["status"], decoded[name]["error"])
        for name, case in cases.items()
        if decoded[name]["status"] not in case.ends
    }
    slow = {name: line["seconds"] for name, line in decoded.items() if line["seconds"] > SECONDS}
    logged = {name: line["logged"] for name, line in decoded.items() if line["logged"]}
    record(
        "images",
        "Broken and strange photos through the decoder",
        len(decoded),
        crashes=len(cases) - len(decoded),
        without_a_right_status=len(wrong),
        hangs=len(slow),
        lines_in_the_log=len(logged),
    )
    assert (wrong, slow, logged) == ({}, {}, {})


def test_those_that_fail_say_why_and_those_that_do_not_have_their_pixels(
    decoded: dict[str, dict[str, Any]],
) -> None:
    for name, line in decoded.items():
        shapes = [[224, 224, 3]] * 2 if line["status"] == "ok" else []
        assert (name, line["pictures"]) == (name, shapes)
        assert bool(line["error"]) is not bool(shapes), name
        assert "Error: name " not in str(line["error"]), "a mistake of our own"


def test_none_takes_more_memory_than_the_cap_on_pixels_allows(
    decoded: dict[str, dict[str, Any]], tmp_path: Path, soak: bool, record: Record
) -> None:
    names = {}
    for name, data in large():
        (tmp_path / name).write_bytes(data)
        names[name] = name
    lines = decode_all(tmp_path, CAP, names)
    assert {line["name"]: line["status"] for line in lines} == dict.fromkeys(names, "ok")
    most = {line["name"]: line["grown"] for line in [*lines, *decoded.values()]}
    over = {
        name: grown
        for name, grown in most.items()
        if grown > BYTES_PER_PIXEL.get(name.rpartition(".")[2], max(BYTES_PER_PIXEL.values())) * CAP + BESIDE
    }
    record(
        "memory", "Memory of a decoder, over all of these and large photos", len(most), over_the_cap=len(over)
    )
    assert over == {}
    assert max(line["seconds"] for line in lines) < SECONDS
