"""`enrich-train fit --finetune top` on drawn photos: what is served is what learnt, nothing is done twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from enrich.errors import StoppedError
from enrich.model.arithmetic import cpu_has
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode
from tests.support.fitting import HOMES, draw_homes, fitted, run_fit
from tests.support.harness import until
from training.data.labels import ROOMS
from training.data.photos import load_photos
from training.fit.multitask import _run, finetunings, site_fold
from training.fit.options import FitOptions
from training.models.backbones import load_backbone

pytestmark = pytest.mark.timeout(900)  # it trains: minutes where cores are few and busy
SMALL_LITE = ("--backbone", "timm:tf_efficientnet_lite0", "--weights", "none", "--size", "64")
FASTER = ("--arithmetic", "bf16") if cpu_has("bf16") else ()
STOPPED = "stopped by signal: the same command goes on from its checkpoints\n"
FINETUNE = (*SMALL_LITE, "--finetune", "top", "--samples", "1280", "--jobs", "1")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Convolutions this small lose more to threads waiting for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_homes(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def finetuned(photos_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, Path]:
    """The bundle of one finetuning, its model card and its cache."""
    return fitted(photos_dir, tmp_path_factory.mktemp("finetuned"), *FINETUNE, *FASTER)


@pytest.fixture
def no_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    def learns(*_: object) -> None:
        raise AssertionError("it learns")

    monkeypatch.setattr("training.trainer.finetune._Run.step", learns)


def test_a_finetuned_bundle_serves_the_weights_that_learnt(
    finetuned: tuple[Bundle, Path, Path], photos_dir: Path
) -> None:
    bundle, card, _ = finetuned
    untrained = load_backbone("timm:tf_efficientnet_lite0", "none", size=64)
    served = bundle.tensors(bundle.members[0])
    changed = {
        name
        for name, tensor in untrained.tensors.items()
        if not np.array_equal(served[f"backbone.{name}"], tensor.float().numpy())
    }
    assert "conv_head.weight" in changed
    assert all(
        name.startswith(("blocks.3", "blocks.4", "blocks.5", "blocks.6", "conv_head", "bn2"))
        for name in changed
    )
    balcony, member = bundle.heads[0], bundle.members[0]
    assert balcony.metrics["homes"]["average_precision"] > 0.8
    scorer, chances = TorchEngine(bundle, "cpu"), []
    for room in ("balcony", "kitchen"):
        data = (photos_dir / f"web_homes/home{HOMES}/{ROOMS.index(room)}.jpg").read_bytes()
        scores = scorer.score([decode(data, bundle.preprocessings, 10**6).pixels])[0][member.model_id].scores
        chances.append(float(balcony.probabilities(scores["balcony"])[0]))
    assert chances[0] > chances[1], "a photo of split listing, never trained on"
    comparison = bundle.manifest["training"]["comparison"]
    assert set(comparison) == {"balcony", "fireplace"}
    assert set(comparison["balcony"]) == {"frozen", "finetuned"}
    text = " ".join(card.read_text().split())
    assert "What finetuning is worth" in text and "among four in these folds" not in text
    assert "of the held-out photos and of the homes by their highest photo" in text, "every group is a home"
    assert "--finetune top" in card.read_text()


@pytest.mark.skipif(not FASTER, reason="needs a CPU with bf16 instructions")
def test_a_faster_arithmetic_is_judged_by_the_backbones_of_the_folds(
    finetuned: tuple[Bundle, Path, Path],
) -> None:
    figures = finetuned[0].members[0].variants["bf16"].figures
    assert figures is not None and figures.photos == 9 * HOMES + HOMES // 2, "photos of split train"
    for head in figures.heads.values():
        # The bundle itself has seen these photos: on its backbone they would come out otherwise than in fp32.
        assert head.drift.p999 < 0.2
        assert head.here.average_precision == pytest.approx(head.fp32.average_precision, abs=0.02)


@pytest.mark.usefixtures("no_learning")
def test_a_finished_finetuning_is_not_done_again(
    finetuned: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path
) -> None:
    code, said = run_fit(photos_dir, "--out", tmp_path / "bundle", "--cache", finetuned[2], *FINETUNE)
    assert code == 0, said
    again = load_bundle(tmp_path / "bundle")
    assert again.members[0].model_id == finetuned[0].members[0].model_id


@pytest.mark.usefixtures("no_learning")
def test_other_photos_under_the_same_names_are_learnt_from(
    finetuned: tuple[Bundle, Path, Path], photos_dir: Path, tmp_path: Path
) -> None:
    photo = photos_dir / "web_homes/home0/0.jpg"
    before = photo.read_bytes()
    photo.write_bytes((photos_dir / "web_homes/home2/0.jpg").read_bytes())
    try:
        with pytest.raises(AssertionError, match="it learns"):
            run_fit(photos_dir, "--out", tmp_path / "bundle", "--cache", finetuned[2], *FINETUNE)
    finally:
        photo.write_bytes(before)


@pytest.mark.usefixtures("no_learning")
def test_an_attribute_whose_sites_are_held_out_together_is_refused_before_anything_learns(
    photos_dir: Path, tmp_path: Path
) -> None:
    photos = load_photos(photos_dir)
    fold = site_fold(photos, ("balcony", "fireplace"), 0)  # what sees the sea is a balcony, too
    sites = np.unique(photos.site[fold == 0])[:2]
    sea = (photos.labels["balcony"] == 1) & np.isin(photos.site, sites)
    lines = [f"{path},{int(shows)}" for path, shows in zip(photos.paths, sea, strict=True)]
    (tmp_path / "seaview.csv").write_text("\n".join(["path,label", *lines]))
    options = ("--out", tmp_path / "bundle", "--cache", tmp_path / "cache", *FINETUNE)
    code, said = run_fit(photos_dir, *options, "--head", f"seaview={tmp_path / 'seaview.csv'}")
    assert code == 2 and "head seaview: its classes come from too few sites to hold one out" in said


@pytest.mark.usefixtures("no_learning")
def test_a_photo_that_cannot_be_decoded_is_refused_before_anything_learns(
    photos_dir: Path, tmp_path: Path
) -> None:
    photo = photos_dir / f"web_homes/home{HOMES}/0.jpg"  # of split listing, which nothing learns from
    before = photo.read_bytes()
    photo.write_bytes(before[:200])
    try:
        options = ("--out", tmp_path / "bundle", "--cache", tmp_path / "cache", *FINETUNE)
        code, said = run_fit(photos_dir, *options)
    finally:
        photo.write_bytes(before)
    assert code == 2 and f"{photo} cannot be used" in said


def test_shares_that_leave_nothing_to_learn_from_are_refused(photos_dir: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "bundle", "--cache", tmp_path / "cache", *FINETUNE)
    code, said = run_fit(photos_dir, *options, "--share", "web_homes=0")
    assert code == 2 and "--share: nothing is left to learn from" in said and "Traceback" not in said


def test_a_side_that_the_backbone_cannot_learn_from_is_refused_before_photos_are_read(
    photos_dir: Path, tmp_path: Path
) -> None:
    options = ("--out", tmp_path / "bundle", "--cache", tmp_path / "cache", "--jobs", "1", "--samples", "64")
    backbone = ("--backbone", "timm:test_vit", "--weights", "none", "--finetune", "all")
    code, said = run_fit(photos_dir, *options, *backbone, "--learn-size", "100")
    assert code == 2 and "timm:test_vit cannot see a picture of 100x100" in said
    assert said.endswith("correct --learn-size\n") and said.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_of_two_sites_each_is_held_out_once(photos_dir: Path, tmp_path: Path) -> None:
    photos = load_photos(photos_dir)
    two = replace(photos, site=np.where(photos.group < "home2", "one", "other"))
    names, backbone = ("balcony", "fireplace"), load_backbone("timm:tf_efficientnet_lite0", "none", size=64)
    fold = site_fold(two, names, 0)
    work = finetunings(two, names, backbone, FitOptions(photos_dir, tmp_path), fold)
    assert [len(np.unique(two.site[one.held])) for one in work] == [1, 1, 0]
    assert work[-1].lessons.rows.tolist() == np.flatnonzero(two.split == "train").tolist()


FIT = """
import os, signal, sys, time
from functools import partial
from multiprocessing import active_children
from threading import Thread
from enrich.errors import SignalError
from training.fit.multitask import _run

def interrupt():
    while len(active_children()) < 2:
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    if sys.argv[1] == "pass":
        Thread(target=interrupt).start()
    try:
        _run([partial(exec, sys.argv[1])] * 4, 2)
    except SignalError as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
"""


@pytest.mark.parametrize(
    ("number", "send", "code"),
    [
        (signal.SIGKILL, os.kill, -signal.SIGKILL),
        (signal.SIGTERM, os.kill, -signal.SIGTERM),
        (signal.SIGINT, os.kill, 130),
        (signal.SIGINT, os.killpg, 130),  # as a terminal sends Ctrl-C
    ],
)
def test_finetunings_side_by_side_end_with_the_command_that_was_killed(
    number: signal.Signals, send: Callable[[int, int], None], code: int, tmp_path: Path
) -> None:
    job = f"import os, time; open('{tmp_path}/' + str(os.getpid()), 'w').close(); time.sleep(600)"
    fit = subprocess.Popen(
        [sys.executable, "-c", FIT, job], stderr=subprocess.PIPE, start_new_session=True, text=True
    )

    def at_work() -> list[int]:
        started = (int(file.name) for file in tmp_path.iterdir())
        return [pid for pid in started if _commandline(pid)]

    try:
        until(lambda: len(at_work()) == 2, "two are at work")
        send(fit.pid, number)
        _, said = fit.communicate(timeout=60)
        assert fit.returncode == code
        assert number != signal.SIGINT or said == STOPPED
        until(lambda: not at_work(), "all have ended", 20)
    finally:
        for pid in (fit.pid, *at_work()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_ctrl_c_while_finetunings_are_starting_is_one_line() -> None:
    fit = subprocess.run(
        [sys.executable, "-c", FIT, "pass"], stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    assert (fit.returncode, fit.stderr) == (130, STOPPED)


def test_a_finetuning_that_was_ended_from_outside_is_one_line() -> None:
    ended = partial(exec, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(StoppedError, match=r"perhaps for lack of memory.*fewer --jobs"):
        _run([ended] * 2, 2)  # type: ignore[list-item]
    assert not active_children()


def _commandline(pid: int) -> bytes:
    """Of a process that is there and has not ended; else nothing."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
