"""`enrich-train compare` from prepared photos to a results folder: killed, resumed, shared, repeated."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.support.comparing import draw_prepared, run_train
from training.compare import run as run_module
from training.compare.results import (
    BEST,
    CHECKPOINT,
    PREDICTIONS,
    RUN,
    RunKey,
    read_predictions,
    read_results,
    read_run,
)
from training.models.architectures import MODES

ARCHITECTURE = "torchvision:mobilenet_v3_small"
"""Small, with batch norm and dropout."""
OPTIONS = (
    *("--architecture", ARCHITECTURE, "--weights", "none", "--input-size", "32", "--device", "cpu"),
    *("--task", "balcony", "--epochs", "3", "--batch", "4", "--save-seconds", "0"),
)
TIMES = ["seconds", "images_per_second", "device"]
KILLED = """
import os, signal, sys
import torch
from training.cli import main
from training.compare import run

place, count = sys.argv.pop(1), int(sys.argv.pop(1))
calls = []

def dies(work, before):
    def wrapped(*arguments):
        calls.append(None)
        if len(calls) == count:
            before(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*arguments)
    return wrapped

if place == "step":
    run.train_step = dies(run.train_step, lambda *_: None)
else:
    torch.save = dies(torch.save, lambda state, file: (file.write(b"half a checkpoint"), file.flush()))
main()
"""


def run_folder(out: Path, mode: str) -> Path:
    return out / "runs" / RunKey("balcony", ARCHITECTURE, mode).folder


def kill_during(place: str, count: int, *arguments: object) -> None:
    """Run `enrich-train` in a process that kills itself at the count-th step or checkpoint."""
    command = [sys.executable, "-c", KILLED, place, count, *arguments]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run([str(part) for part in command], env=os.environ | threads, capture_output=True)
    assert ended.returncode == -9, ended.stderr.decode()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_prepared(tmp_path_factory.mktemp("compare") / "prepared")


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of both modes."""
    out = tmp_path_factory.mktemp("undisturbed") / "results"
    code, said = run_train("compare", prepared, "--out", out, *OPTIONS)
    assert code == 0, said
    return out


def test_killed_and_resumed_ends_as_undisturbed(prepared: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Killed in the middle of an epoch of either mode, and in the middle of writing a checkpoint."""
    out = tmp_path / "results"
    compare = ("compare", prepared, "--out", out, *OPTIONS)
    kill_during("step", 8, *compare)
    checkpoint = torch.load(run_folder(out, MODES[0]) / CHECKPOINT, weights_only=True)
    assert (checkpoint["progress"]["epoch"], checkpoint["progress"]["step"]) == (2, 2)
    kill_during("save", 16, *compare, "--resume")
    assert read_results(out).runs["mode"].tolist() == [MODES[0]]
    assert (run_folder(out, MODES[1]) / CHECKPOINT).exists()
    assert run_train(*compare, "--resume")[0] == 0
    assert_same(out, undisturbed)
    for mode in MODES:
        names = {path.name for path in run_folder(out, mode).iterdir()}
        assert names - {".lock", "checkpoint.part"} == {RUN, BEST, PREDICTIONS}


def test_a_disk_that_is_full_is_said_in_one_line_and_the_same_command_goes_on(
    prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    folder = run_folder(out, MODES[0])
    folder.mkdir(parents=True)
    for name in (CHECKPOINT, BEST, PREDICTIONS, "../../epochs.csv", "../../runs.csv"):
        file = folder / name
        file.with_name(f".{file.name}.part").symlink_to("/dev/full")
        code, said = run_train("compare", prepared, "--out", out, *OPTIONS, "--resume")
        assert code == 3 and "Traceback" not in said
        (line,) = [line for line in said.splitlines() if line.startswith("enrich-train: ")]
        assert line.startswith("enrich-train: the disk is full") and "start the command again" in line
    assert run_train("compare", prepared, "--out", out, *OPTIONS, "--resume")[0] == 0
    assert_same(out, undisturbed)


def assert_same(out: Path, other: Path) -> None:
    """The same results, apart from times."""
    found, wanted = read_results(out), read_results(other)
    for name in ("runs", "epochs"):
        tables = [getattr(results, name).drop(columns=TIMES, errors="ignore") for results in (found, wanted)]
        pd.testing.assert_frame_equal(*tables)
    for mode in MODES:
        for name in (RUN, BEST, PREDICTIONS):
            assert (run_folder(out, mode) / name).read_bytes() == (
                run_folder(other, mode) / name
            ).read_bytes()


def test_results_say_what_was_found(undisturbed: Path) -> None:
    results = read_results(undisturbed)
    assert results.epochs["epoch"].tolist() == [1, 2, 3] * 2
    for row in results.runs.itertuples():
        epochs = results.epochs[results.epochs["mode"] == row.mode].reset_index()
        assert row.best_val_accuracy == pytest.approx(epochs.val_accuracy.max())
        assert row.best_epoch == epochs.val_accuracy.idxmax() + 1
        assert row.seconds == pytest.approx(epochs.seconds.sum(), rel=1e-4)
        assert (row.train_photos, row.val_photos, row.weights, row.precision) == (20, 10, "none", "fp32")
        predictions = read_predictions(run_folder(undisturbed, row.mode))
        right = (predictions.truth == predictions.predicted).mean()
        assert right == pytest.approx(row.best_val_accuracy)
        shares = predictions[["p_balcony", "p_indoor"]]
        assert shares.sum(axis=1).tolist() == pytest.approx([1] * 10, abs=1e-5)
        run = read_run(run_folder(undisturbed, row.mode))
        assert (run["from_scratch"], run["split"]) == (True, "thesis")
    assert len(results.runs) == len(MODES)


def test_finished_runs_are_skipped_and_rows_stay(
    prepared: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (undisturbed / "runs.csv").read_bytes()
    monkeypatch.setattr(run_module, "train_step", None)
    assert run_train("compare", prepared, "--out", undisturbed, *OPTIONS, "--resume") == (0, "")
    assert (undisturbed / "runs.csv").read_bytes() == before


def test_what_is_left_is_said_from_the_first_line_on(prepared: Path, tmp_path: Path) -> None:
    """Of the run and of all; `measuring` before there is anything to reckon with."""
    code, said = run_train("compare", prepared, "--out", tmp_path / "results", *OPTIONS)
    first, *later = said.splitlines()
    assert code == 0 and first.endswith("epoch=1/3 step=0/5 left=measuring left_of_all=measuring")
    assert all(re.search(r" left=\d+\w+ left_of_all=\d+\w+$", line) for line in later)
    frozen, tuned = ([line for line in later if f"mode={mode}" in line] for mode in MODES)
    assert " left=0s " in frozen[-1] and not frozen[-1].endswith("=0s"), "the run is over, not all"
    assert tuned[-1].endswith(" left=0s left_of_all=0s")


def test_results_are_not_touched_without_resume(prepared: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    code, said = run_train("compare", prepared, "--out", undisturbed, *OPTIONS)
    assert (code, said.count("\n")) == (2, 1) and "holds results already: go on with --resume" in said
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


def test_a_run_with_other_options_or_photos_is_not_taken_up(
    prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = ("--out", undisturbed, *OPTIONS, "--resume")
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    code, said = run_train("compare", prepared, *out, "--epochs", "4")
    assert (code, said.count("\n")) == (2, 1) and "is a run with another epochs (3, here 4)" in said
    code, said = run_train("compare", draw_prepared(tmp_path / "other", train=12), *out)
    assert (code, said.count("\n")) == (2, 1) and "is a run with another dataset_digest" in said
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


@pytest.mark.parametrize("content", ["another run's", "broken"])
def test_a_foreign_checkpoint_is_refused_and_kept(prepared: Path, tmp_path: Path, content: str) -> None:
    folder = run_folder(tmp_path, MODES[0])
    folder.mkdir(parents=True)
    if content == "broken":
        (folder / CHECKPOINT).write_bytes(b"PK no checkpoint")
    else:
        torch.save({"identity": {"task": "rooms"}}, folder / CHECKPOINT)
    before = (folder / CHECKPOINT).read_bytes()
    code, said = run_train("compare", prepared, "--out", tmp_path, *OPTIONS, "--resume")
    expected = "is of another run" if content != "broken" else "is not a readable checkpoint"
    assert (code, said.count("\n")) == (2, 1) and expected in said and CHECKPOINT in said
    assert (folder / CHECKPOINT).read_bytes() == before


def test_a_run_that_another_process_is_at_is_left_to_it(prepared: Path, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, MODES[0])
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_train("compare", prepared, "--out", tmp_path, *OPTIONS, "--resume")[0] == 0
    assert read_results(tmp_path).runs["mode"].tolist() == [MODES[1]]
