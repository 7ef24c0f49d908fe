"""What a comparison still takes: reckoned from what was measured, and said from the first step on."""

from pathlib import Path

import pytest
import torch

from enrich.model.bundle import Preprocessing
from training.compare.display import Cost, Display, in_words, known_pace, multiplications, seconds_left
from training.compare.plan import Plan, Recipe
from training.compare.results import EpochRow, RunKey, RunRow, TimingRow, add_rows, read_results
from training.compare.run import Progress
from training.models.architectures import Network, WeightSource, preprocessing_of

FROZEN, TUNED = "feature_extraction", "finetuning"
DEVICE = "cpu (2 threads)"


def cost(mode: str, architecture: str = "resnet18", epochs: int = 3, draws: int | None = None) -> Cost:
    """A run on 100 training and 10 validation photos, of 5 multiplications a photo."""
    seen = Preprocessing((32, 32), "crop", "bilinear", (0.5,) * 3, (0.5,) * 3)
    recipe = Recipe(epochs=epochs, cache_features=draws)
    key = RunKey("balcony", architecture, mode)
    return Cost(Plan(key, ("balcony", "indoor"), seen, WeightSource("none"), recipe, ""), 5.0, 100, 10)


def test_a_run_costs_its_forward_and_backward_passes() -> None:
    assert cost(TUNED).whole == 3 * 5 * (3 * 100 + 10)
    assert cost(TUNED).until(1, seen=32) == 5 * (3 * 132 + 10)
    assert cost(FROZEN).whole == 5 * (3 * 100 + 10), "what it makes of validation photos is kept"
    assert cost(FROZEN, draws=2).whole == 5 * (2 * 100 + 10), "and of training photos, with fixed draws"
    assert cost(FROZEN, draws=2).until(1, seen=32) == cost(FROZEN, draws=2).until(2), "before its first step"
    assert cost(FROZEN, draws=2).until(2, seen=32) == cost(FROZEN, draws=2).whole
    assert cost(FROZEN, draws=8).whole == cost(FROZEN).whole, "more draws than epochs are not made"


def test_time_left_is_by_the_pace_of_each_kind_and_by_the_usual_one_for_others() -> None:
    work = [(("resnet18", TUNED), 100.0), (("alexnet", TUNED), 50.0)]
    assert seconds_left(work, {}) is None
    assert seconds_left(work, {("resnet18", TUNED): 2.0}) == 300.0
    assert seconds_left(work, {("resnet18", TUNED): 2.0, ("alexnet", TUNED): 1.0}) == 250.0
    assert seconds_left(work, {("a", TUNED): 1.0, ("b", TUNED): 3.0, ("c", TUNED): 100.0}) == 450.0
    assert seconds_left([], {("a", TUNED): 1.0}) == 0.0


def test_pace_is_known_from_finished_runs_and_from_timings_on_this_device(tmp_path: Path) -> None:
    run = RunRow("balcony", "resnet18", TUNED, 0, "none", 3, 93.0, 1, 0.9, 100, 10, 32, 1, 1, "fp32", DEVICE)
    timing = TimingRow("rooms", "alexnet", TUNED, 1, 2, 32, 4.0, 9.0, 10.0, DEVICE, 2)
    add_rows(tmp_path, [run])
    add_rows(tmp_path, [timing])
    costs = [cost(TUNED), cost(TUNED, "alexnet"), cost(FROZEN)]
    pace = known_pace(costs, read_results(tmp_path), DEVICE)
    assert pace == pytest.approx({("resnet18", TUNED): 93 / 4650, ("alexnet", TUNED): 1 / (4 * 15)})
    assert known_pace(costs, read_results(tmp_path), "a GPU") == {}


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [("resnet18", 1814), ("alexnet", 714), ("vgg11_bn", 7609), ("densenet121", 2834)],
)
def test_multiplications_are_those_published(architecture: str, millions: int) -> None:
    seen = preprocessing_of(architecture, "none")
    with torch.device("meta"):
        network = Network(architecture, 2, TUNED, seen)
    assert multiplications(network, seen.size) / 1e6 == pytest.approx(millions, rel=0.01)


def test_time_is_said_in_words() -> None:
    said = [in_words(seconds) for seconds in (None, 0.0, 0.01, 39.6, 720.0, 11_100.0)]
    assert said == ["measuring", "0s", "1s", "40s", "12min", "3h05min"]


def test_features_that_were_kept_before_are_no_measure_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a kill in the second of three draws: the first and the validation photos' are read at once."""
    now = 0.0
    monkeypatch.setattr("training.compare.display.time.monotonic", lambda: now)

    def ended(epoch: int) -> str:
        display.stepped(Progress(epoch, 4, 100))
        display.epoch(EpochRow("balcony", "resnet18", FROZEN, 0, epoch, 0.5, 0.8, 0.5, 0.8, 1.0, 100.0))
        return capsys.readouterr().err.split(" left=")[-1]

    display = Display([cost(FROZEN, epochs=4, draws=3)], 1, {})
    display.started(Progress())
    now = 0.1
    assert ended(1) == "measuring left_of_all=measuring\n"
    for photos in (32, 64, 96, 100):
        now += photos / 10
        display.stepped(Progress(2), photos)
    now = 20.0
    assert ended(2) == "20s left_of_all=20s\n", "one more draw, which takes as long"


def test_a_run_of_kept_features_alone_ends_with_nothing_left(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display([cost(FROZEN, epochs=1, draws=1)], 1, {})
    display.started(Progress())
    display.stepped(Progress(1, 4, 100))
    display.epoch(EpochRow("balcony", "resnet18", FROZEN, 0, 1, 0.5, 0.8, 0.5, 0.8, 1.0, 100.0))
    assert capsys.readouterr().err.endswith(" left=0s left_of_all=0s\n")
