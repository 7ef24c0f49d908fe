"""`compare --cache-features`: fixed draws of a photo, seen once by the backbone, and results that say so."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch

from tests.integration.test_compare import kill_during
from tests.support.comparing import draw_prepared, run_train
from training.compare import display
from training.compare.plan import Choice, Recipe, make_plans
from training.compare.results import BEST, RunKey, read_predictions, read_results, read_run
from training.compare.run import build, kept_of
from training.data.prepared import read_prepared
from training.models.architectures import MODES, Network, WeightSource
from training.trainer.loading import Loader

ARCHITECTURE = "timm:test_resnet"
OPTIONS = (
    *("--architecture", ARCHITECTURE, "--weights", "none", "--input-size", "32", "--device", "cpu"),
    *("--task", "balcony", "--epochs", "4", "--batch", "7", "--rate", "0.1", "--mode", MODES[0]),
)
"""20 training photos in batches of 7: the last of an epoch has 6."""


def run_folder(out: Path) -> Path:
    return out / "runs" / RunKey("balcony", ARCHITECTURE, MODES[0]).folder


def weights(out: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run_folder(out) / BEST)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_prepared(tmp_path_factory.mktemp("compare") / "prepared")


@pytest.fixture(scope="module")
def kept(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two draws a photo."""
    out = tmp_path_factory.mktemp("kept") / "results"
    code, said = run_train("compare", prepared, "--out", out, *OPTIONS, "--cache-features", "2")
    assert code == 0, said
    return out


def test_as_many_draws_as_epochs_are_the_protocol_itself(prepared: Path, tmp_path: Path) -> None:
    for out, more in ((tmp_path / "protocol", ()), (tmp_path / "kept", ("--cache-features", "4"))):
        assert run_train("compare", prepared, "--out", out, *OPTIONS, *more)[0] == 0
    protocol, kept = (weights(tmp_path / name) for name in ("protocol", "kept"))
    for name, tensor in protocol.items():
        np.testing.assert_allclose(kept[name], tensor, rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(
        *(
            read_results(tmp_path / name).epochs.drop(columns=["seconds", "images_per_second"])
            for name in ("protocol", "kept")
        ),
        rtol=1e-4,
    )


def test_results_say_how_many_draws_there_were(kept: Path) -> None:
    assert read_results(kept).runs["cache_features"].tolist() == [2]
    assert read_run(run_folder(kept))["hyperparameters"]["cache_features"] == 2
    assert len(read_predictions(run_folder(kept))) == 10
    files = sorted(path.name for path in (kept / "features").glob("*/*.npy"))
    assert files == ["draw1.npy", "draw2.npy", "validation.npy"]


def test_what_is_left_is_said_while_the_first_draw_is_made(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "SECONDS", 0.0)
    out = tmp_path / "results"
    code, said = run_train("compare", prepared, "--out", out, *OPTIONS, "--cache-features", "2")
    first, second, *_ = said.splitlines()
    assert code == 0 and first.endswith("step=0/3 left=measuring left_of_all=measuring")
    assert re.search(r"step=0/3 left=\d+s left_of_all=\d+s$", second)


def test_with_kept_features_no_photo_is_seen_again(
    prepared: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rate learns from the same files."""
    out = tmp_path / "results"
    out.mkdir()
    (out / "features").symlink_to(kept / "features")
    seen = Network.features

    def only_features(network: Network, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        assert pictures.ndim == 2, "a picture was seen"
        return seen(network, pictures)

    monkeypatch.setattr(Network, "features", only_features)
    options = (*OPTIONS, "--cache-features", "2", "--rate", "0.01")
    code, said = run_train("compare", prepared, "--out", out, *options)
    assert code == 0, said
    assert (weights(out)["head.balcony.weight"] != weights(kept)["head.balcony.weight"]).any()


def test_killed_and_resumed_ends_as_undisturbed(prepared: Path, kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    compare = ("compare", prepared, "--out", out, *OPTIONS, "--cache-features", "2", "--save-seconds", "0")
    kill_during("step", 6, *compare)
    assert run_train(*compare, "--resume")[0] == 0
    for name in (BEST, "run.json", "predictions.csv"):
        assert (run_folder(out) / name).read_bytes() == (run_folder(kept) / name).read_bytes()


def test_runs_by_the_protocol_and_with_fixed_draws_are_not_mixed(prepared: Path, kept: Path) -> None:
    code, said = run_train("compare", prepared, "--out", kept, *OPTIONS, "--resume")
    assert code == 2 and "is a run with another cache_features (2, here None)" in said
    code, said = run_train("compare", prepared, "--out", kept, *OPTIONS, "--resume", "--cache-features", "3")
    assert code == 2 and "is a run with another cache_features (2, here 3)" in said


def test_where_all_weights_learn_no_features_can_be_kept(prepared: Path, tmp_path: Path) -> None:
    options = (*OPTIONS[:-1], MODES[1], "--cache-features", "2")
    code, said = run_train("compare", prepared, "--out", tmp_path / "results", *options)
    assert (code, said.count("\n")) == (2, 1) and "--cache-features is for --mode feature_extraction" in said


def test_features_are_kept_by_network_weights_and_photos(prepared: Path, tmp_path: Path) -> None:
    """And by the seed that their draws come from; what learns from them does not matter."""
    cpu = torch.device("cpu")

    def kept_in(folder: Path = prepared, seed: int = 0, rate: float = 0.1, **choice: Any) -> Path:
        own = {
            "architectures": (ARCHITECTURE,),
            "modes": (MODES[0],),
            "tasks": ("balcony",),
            "size": 32,
        } | choice
        recipe = Recipe(rate=rate, cache_features=2)
        plan = make_plans(read_prepared(folder), Choice(**own, seeds=(seed,)), WeightSource("none"), recipe)[
            0
        ]
        network = build(plan, cpu)
        return kept_of(plan, network, Loader(plan.preprocessing, 7, 0, cpu), tmp_path).folder

    other = draw_prepared(tmp_path / "other", train=11)
    changed = [
        {"folder": other},
        {"seed": 1},
        {"size": 64},
        {"tasks": ("rooms",)},
        {"architectures": ("timm:test_efficientnet",)},
    ]
    assert kept_in(rate=0.01) == kept_in()
    assert len({kept_in(), *(kept_in(**one) for one in changed)}) == 1 + len(changed)
