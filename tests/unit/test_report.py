"""The report: the thesis's own figures come out as they went in, and every verdict follows from figures."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import UsageError
from tests.support.compared import (
    RUN_ROW,
    TIMING_ROW,
    add_epochs,
    add_predictions,
    add_settings,
    results_folder,
    thesis_rows,
)
from training import thesis
from training.compare.results import RunRow, add_rows
from training.report.command import page, report_command
from training.report.gathered import gather
from training.report.provenance import commands

# As the thesis prints them: training time and highest validation accuracy in %.
SIX_TABLES = """
| architecture | balcony FE | balcony FT | fireplace FE | fireplace FT | rooms FE | rooms FT |
| ResNet-18 | 3m37 94.63 | 6m06 96.56 | 2m06 80.05 | 3m31 79.24 | 2m33 93.75 | 4m16 96.35 |
| AlexNet | 3m18 94.27 | 3m37 95.41 | 1m55 76.00 | 2m08 77.35 | 2m18 93.22 | 2m34 94.79 |
| VGG-11-bn | 6m21 93.86 | 15m55 97.32 | 3m45 77.35 | 8m56 81.13 | 4m31 93.75 | 11m02 97.91 |
| DenseNet-121 | 5m59 96.94 | 13m55 97.70 | 3m35 73.58 | 7m55 85.53 | 4m20 96.87 | 9m53 97.91 |
| Inception v3 | 9m04 95.80 | 21m54 98.09 | 5m15 79.24 | 12m54 83.64 | 6m28 93.75 | 16m10 97.39 |
"""
HEADINGS = [
    f"{task}, {mode}"
    for task in ("Balcony", "Fireplace", "Rooms")
    for mode in ("feature extraction", "finetuning")
]
BETTER, ACCURATE = (
    "Finetuning beats feature extraction",
    "DenseNet-121 and Inception v3 are the most accurate",
)
HARDEST, COST = "Fireplaces are the hardest task", "Finetuning costs more time than feature extraction"
FASTEST = "AlexNet is the fastest"


def cells(text: str) -> list[list[str]]:
    """The rows of all Markdown tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    return re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]


def written(tmp_path: Path, *folders: Path) -> str:
    report_command(list(folders), out=tmp_path / "report")
    return (tmp_path / "report" / "report.md").read_text()


def reported(tmp_path: Path, rows: Iterable[RunRow]) -> str:
    """The report of these rows, without writing it."""
    ours = gather([results_folder(tmp_path / "results", rows)])
    return page(ours, gather([thesis.FOLDER]))


def verdicts(text: str) -> dict[str, tuple[str, str]]:
    """Finding -> what the figures say, and the verdict."""
    return {row[0]: (row[2], row[3].strip("*")) for row in cells(section(text, "Findings"))}


def printed() -> dict[str, list[list[str]]]:
    """Heading -> rows of architecture, time, accuracy, as the thesis prints them."""
    rows = cells(SIX_TABLES)[1:]
    return {
        heading: [[row[0], *row[n].split()] for row in rows] for n, heading in enumerate(HEADINGS, start=1)
    }


def test_it_opens_with_the_best_model_on_these_photos(tmp_path: Path) -> None:
    quick = replace(RUN_ROW, architecture="alexnet", best_val_accuracy=0.95, seconds=30.0)
    slow = replace(RUN_ROW, architecture="vgg11_bn", best_val_accuracy=0.95, seconds=90.0)
    rooms = replace(RUN_ROW, task="rooms", mode="feature_extraction", best_val_accuracy=0.8, seconds=61.0)
    text = reported(tmp_path, [RUN_ROW, slow, quick, rooms])
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "The best model on these photos"
    assert cells(section(text, "The best model on these photos"))[1:] == [
        ["balcony", "AlexNet", "finetuning", "0m30", "95.00", "3"],
        ["rooms", "ResNet-18", "feature extraction", "1m01", "80.00", "1"],
    ]


def test_the_thesis_s_six_tables_come_out_digit_for_digit(tmp_path: Path) -> None:
    report_command(None, out=tmp_path, of_thesis=True)
    text = (tmp_path / "report.md").read_text()
    for heading, rows in printed().items():
        assert cells(section(text, heading))[1:] == rows


def test_its_figures_as_results_of_one_s_own_stand_beside_themselves_without_a_difference(
    tmp_path: Path,
) -> None:
    text = written(tmp_path, results_folder(tmp_path / "results", thesis_rows()))
    for heading, rows in printed().items():
        beside = [[name, time, time, "+0m00", share, share, "+0.00"] for name, time, share in rows]
        assert cells(section(text, heading))[1:] == beside


def test_its_findings_follow_from_its_figures(tmp_path: Path) -> None:
    report_command(None, out=tmp_path, of_thesis=True)
    found = verdicts((tmp_path / "report.md").read_text())
    assert found[BETTER] == ("in 14 of 15 pairs; not: fireplace, ResNet-18", "held")
    assert found[COST] == ("1.1 to 2.5 times as much (15 pairs)", "held")
    assert found[ACCURATE][0].startswith("DenseNet-121 91.42 %, Inception v3 91.32 %, VGG-11-bn 90.22 %")
    assert found[ACCURATE][1] == "held"
    assert found[FASTEST] == ("AlexNet in 6 of 6 tables", "held")
    assert found[HARDEST][0].startswith("fireplace 79.31 %, rooms 95.57 %, balcony 96.06 %")
    assert found[HARDEST][1] == "held"


def test_the_thesis_s_ratios_are_those_of_its_times(tmp_path: Path) -> None:
    report_command(None, out=tmp_path, of_thesis=True)
    relation = (tmp_path / "report.md").read_text().partition("## Training times in relation")[2]
    frozen, tuned, modes = (cells(part) for part in relation.split(":\n\n")[1:4])
    assert ["Inception v3", "2.51", "2.50", "2.54"] in frozen
    assert ["AlexNet", "0.59", "0.61", "0.60"] in tuned
    assert ["ResNet-18", "1.69", "1.67", "1.67"] in modes and ["VGG-11-bn", "2.51", "2.38", "2.44"] in modes


def better(row: RunRow, by: float) -> RunRow:
    return replace(row, best_val_accuracy=row.best_val_accuracy + by)


def slower(row: RunRow, times: float) -> RunRow:
    return replace(row, seconds=row.seconds * times)


@pytest.mark.parametrize(
    ("finding", "verdict", "change"),
    [
        (
            BETTER,
            "held in part",
            lambda r: better(r, 0.1 * (r.mode != "finetuning" and r.task == "fireplace")),
        ),
        (BETTER, "did not hold", lambda r: better(r, -0.3 * (r.mode == "finetuning"))),
        (BETTER, "did not hold", lambda r: replace(r, best_val_accuracy=0.5)),
        (ACCURATE, "held in part", lambda r: better(r, 0.02 * (r.architecture == "vgg11_bn"))),
        (ACCURATE, "did not hold", lambda r: better(r, 0.02 * (r.architecture in ("vgg11_bn", "resnet18")))),
        (HARDEST, "did not hold", lambda r: better(r, -0.2 * (r.task == "rooms"))),
        (COST, "held in part", lambda r: slower(r, 1.1 if r.mode == "finetuning" else 1)),
        (COST, "did not hold", lambda r: slower(r, 1.2 if r.mode != "finetuning" else 1)),
        (
            FASTEST,
            "held in part",
            lambda r: slower(r, 0.4 if (r.task, r.architecture) == ("balcony", "vgg11_bn") else 1),
        ),
        (FASTEST, "did not hold", lambda r: slower(r, 9 if r.architecture == "alexnet" else 1)),
    ],
)
def test_other_figures_give_other_verdicts(
    finding: str, verdict: str, change: Callable[[RunRow], RunRow], tmp_path: Path
) -> None:
    assert verdicts(reported(tmp_path, map(change, thesis_rows())))[finding][1] == verdict


def test_what_was_not_run_has_no_verdict(tmp_path: Path) -> None:
    lite = replace(RUN_ROW, architecture="timm:tf_efficientnet_lite0", weights="package")
    found = verdicts(reported(tmp_path, [lite, replace(RUN_ROW, best_val_accuracy=0.8)]))
    assert {
        verdict for _, verdict in (found[name] for name in (BETTER, ACCURATE, HARDEST, COST, FASTEST))
    } == {"not tested"}
    assert found[HARDEST][0] == "not run: fireplace, rooms"
    assert found[ACCURATE][0].startswith(
        "not run: AlexNet, VGG-11-bn, DenseNet-121 and Inception v3; of what"
    )
    assert "timm:tf_efficientnet_lite0 90.00 %, ResNet-18 80.00 %" in found[ACCURATE][0]


LITE_TASKS = [
    replace(RUN_ROW, task=task, architecture="timm:tf_efficientnet_lite0", best_val_accuracy=share)
    for task, share in (("balcony", 0.9), ("fireplace", 0.7), ("rooms", 0.8))
]


def test_the_hardest_task_cannot_be_judged_on_architectures_that_the_thesis_had_not(tmp_path: Path) -> None:
    figures, verdict = verdicts(reported(tmp_path, LITE_TASKS))[HARDEST]
    assert verdict == "cannot be judged"
    assert figures.startswith("none of the thesis's five was run on all three tasks in one mode")
    assert "fireplace 70.00 %" in figures, "what was run is said all the same"


def test_other_architectures_do_not_sway_the_hardest_task(tmp_path: Path) -> None:
    hard = [replace(row, best_val_accuracy=0.1) if row.task == "rooms" else row for row in LITE_TASKS]
    assert verdicts(reported(tmp_path, [*thesis_rows(), *hard]))[HARDEST] == (
        "fireplace 79.31 %, rooms 95.57 %, balcony 96.06 % (means of 10 architectures and modes)",
        "held",
    )


def test_networks_from_scratch_are_called_so_and_decide_nothing(tmp_path: Path) -> None:
    scratch = [replace(row, weights="none") for row in thesis_rows()]
    text = reported(tmp_path, scratch)
    assert {verdicts(text)[name][1] for name in (BETTER, ACCURATE, HARDEST)} == {"not tested"}
    for heading in HEADINGS:
        ours = [row for row in cells(section(text, heading))[1:] if row[2] != "–"]
        assert len(ours) == 5 and all(row[0].endswith(", from scratch") for row in ours)
        assert all((row[4], row[6]) == ("–", "–") for row in ours), "no pretrained accuracy beside them"
    assert "not comparable with pretrained ones" in text


def test_pretrained_and_from_scratch_are_never_compared_with_each_other(tmp_path: Path) -> None:
    rows = thesis_rows()
    mixed = [replace(row, weights="none") if row.architecture == "vgg11_bn" else row for row in rows]
    text = reported(tmp_path, mixed)
    assert "pretrained, 30 epochs (runs: 24)" in text and "from scratch, 30 epochs (runs: 6)" in text


def test_another_number_of_epochs_is_said_and_its_time_not_set_off(tmp_path: Path) -> None:
    text = reported(tmp_path, [replace(RUN_ROW, epochs=10)])
    row = next(row for row in cells(section(text, "Balcony, finetuning")) if row[0] == "ResNet-18, 10 epochs")
    assert row == ["ResNet-18, 10 epochs", "6m06", "1m40", "–", "96.56", "90.00", "−6.56"]


def test_an_architecture_that_the_thesis_lacks_has_dashes_for_it(tmp_path: Path) -> None:
    lite = replace(RUN_ROW, architecture="timm:tf_efficientnet_lite0", weights="package")
    rows = cells(section(reported(tmp_path, [lite]), "Balcony, finetuning"))
    assert ["timm:tf_efficientnet_lite0", "–", "1m40", "–", "–", "90.00", "–"] in rows
    assert ["ResNet-18", "6m06", "–", "–", "96.56", "–", "–"] in rows, "the thesis's own stay"


def test_seeds_of_one_run_are_one_row_with_their_mean(tmp_path: Path) -> None:
    again = replace(RUN_ROW, seed=1, seconds=120.0, best_val_accuracy=0.92)
    rows = cells(section(reported(tmp_path, [RUN_ROW, again]), "Balcony, finetuning"))
    assert ["ResNet-18, mean of 2 seeds", "6m06", "1m50", "−4m16", "96.56", "91.00", "−5.56"] in rows


def test_torchvision_s_names_are_the_thesis_s(tmp_path: Path) -> None:
    text = reported(tmp_path, [replace(RUN_ROW, architecture="torchvision:resnet18")])
    assert ["ResNet-18", "6m06", "1m40", "−4m26", "96.56", "90.00", "−6.56"] in cells(text)


def test_timings_of_two_batches_are_two_sets_of_times(tmp_path: Path) -> None:
    rows = [TIMING_ROW, replace(TIMING_ROW, batch=64, epoch_seconds=8.0)]
    folders = [results_folder(tmp_path / f"{row.batch}", [], [row]) for row in rows]
    text = page(gather(folders), gather([thesis.FOLDER]))
    for batch in (32, 64):
        assert f"### Measured by timing steps on a GPU, 4 threads, batch {batch}\n" in text


def test_an_epoch_of_a_task_of_one_s_own_is_said_to_be_of_the_prepared_photos(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [], [TIMING_ROW, replace(TIMING_ROW, task="pool")])
    text = " ".join(page(gather([folder]), gather([thesis.FOLDER])).split())
    assert "for as many photos as the thesis had (FE: feature extraction, FT: finetuning); of pool" in text


def test_timings_by_steps_give_the_ratios_with_their_spread(tmp_path: Path) -> None:
    rounds = [(10.0, 5.0), (12.0, 5.0), (10.0, 4.0)]
    timings = [
        replace(TIMING_ROW, round=n, mode=mode, architecture=architecture, epoch_seconds=seconds * times)
        for n, (tuned, frozen) in enumerate(rounds, 1)
        for mode, seconds in (("finetuning", tuned), ("feature_extraction", frozen))
        for architecture, times in (("resnet18", 1), ("alexnet", 0.5))
    ]
    ours = gather([results_folder(tmp_path / "results", [RUN_ROW], timings)])
    text = page(ours, gather([thesis.FOLDER]))
    assert "### Measured by timing steps on a GPU, 4 threads, batch 32" in text
    assert "whole runs" not in text
    relation = text.partition("## Training times in relation")[2]
    assert ["ResNet-18", "1.69", "2.40 (2.00–2.50)"] in cells(relation)
    assert ["AlexNet", "0.59", "0.50"] in cells(relation)
    assert ["ResNet-18", "5.0", "10.0"] in cells(relation), "median seconds of an epoch"
    assert verdicts(text)[COST] == ("2.4 to 2.4 times as much (2 pairs)", "held")


def test_times_of_two_devices_are_not_mixed(tmp_path: Path) -> None:
    here = [replace(TIMING_ROW, mode=mode) for mode in thesis.MODES]
    there = [replace(row, device="cpu (4 threads)", epoch_seconds=99.0) for row in here]
    folders = [results_folder(tmp_path / f"{n}", [], rows) for n, rows in enumerate((here, there))]
    text = page(gather(folders), gather([thesis.FOLDER]))
    assert "### Measured by timing steps on a GPU, 4 threads, batch 32\n" in text
    assert "### Measured by timing steps on cpu (4 threads), batch 32\n" in text
    assert "9.90" not in text


def test_results_folders_are_merged(tmp_path: Path) -> None:
    one = results_folder(tmp_path / "one", [RUN_ROW])
    two = results_folder(tmp_path / "two", [replace(RUN_ROW, architecture="alexnet")])
    add_settings(two)
    text = written(tmp_path, one, two)
    tables = cells(section(text, "Balcony, finetuning"))
    assert [row[0] for row in tables if row[2] != "–"][1:] == ["ResNet-18", "AlexNet"]


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    one, two = (results_folder(tmp_path / name, [RUN_ROW]) for name in ("one", "two"))
    with pytest.raises(
        UsageError, match=r"the same run twice \(balcony, resnet18, finetuning, in one and two\)"
    ):
        gather([one, two])


def test_the_same_run_from_other_weights_is_another_run(tmp_path: Path) -> None:
    one = results_folder(tmp_path / "one", [RUN_ROW])
    two = results_folder(tmp_path / "two", [replace(RUN_ROW, weights="none")])
    assert len(gather([one, two]).runs) == 2


def test_runs_whose_weights_are_from_elsewhere_are_no_seeds_of_the_others(tmp_path: Path) -> None:
    lite = replace(RUN_ROW, architecture="timm:tf_efficientnet_lite0")
    rows = [lite, replace(lite, weights="package", best_val_accuracy=0.8), replace(lite, weights="")]
    folders = [results_folder(tmp_path / f"from-{row.weights}", [row]) for row in rows]
    for folder, row in zip(folders, rows, strict=True):
        add_epochs(folder, row)
    add_rows(folders[1], [replace(RUN_ROW, weights="package")])
    ours = gather(folders)
    told = cells(section(page(ours, gather([thesis.FOLDER])), "Balcony, finetuning"))
    shares = {"": "90.00", ", weights package": "80.00", ", weights not stated": "90.00"}
    named = {f"{lite.architecture}{weights}": share for weights, share in shares.items()}
    assert {row[0]: row[5] for row in told if row[5] != "–"} == {
        "architecture": "accuracy %, ours",
        "ResNet-18": "90.00",
        **named,
    }
    assert set(ours.epochs["label"]) == named.keys()
    assert ours.runs["peers"].nunique() == 3


def test_runs_on_other_photos_are_no_seeds_of_the_others_and_no_peers(tmp_path: Path) -> None:
    """As after `compare` on some photos, more photos prepared, and the rest of the comparison on these."""
    few = [RUN_ROW, replace(RUN_ROW, architecture="alexnet")]
    more = [
        replace(RUN_ROW, best_val_accuracy=0.8),
        replace(RUN_ROW, mode="feature_extraction", architecture="alexnet"),
        replace(RUN_ROW, task="rooms"),
    ]
    folders = []
    for name, rows, digest in (("few", few, "d" * 64), ("more", more, "e" * 64)):
        folders.append(folder := results_folder(tmp_path / name, rows))
        add_settings(folder, dataset={"digest": digest, "options": {"split": "thesis"}})
        for row in rows:
            add_epochs(folder, row)
            add_predictions(folder, row, {("balcony", "balcony"): 1}, dataset_digest=digest)
    ours = gather(folders)
    text = page(ours, gather([thesis.FOLDER]))
    rows = {row[0]: row[5] for row in cells(section(text, "Balcony, finetuning"))}
    assert rows["ResNet-18, data set dddddddd"] == "90.00"
    assert rows["ResNet-18, data set eeeeeeee"] == "80.00"
    assert "pretrained, 30 epochs, the thesis's split, data set dddddddd (runs: 2)" in text
    assert "pretrained, 30 epochs, the thesis's split, data set eeeeeeee (runs: 3)" in text
    assert verdicts(text)[BETTER][1] == "not tested", "AlexNet's two modes are of other photos"
    assert set(ours.epochs["label"]) == set(ours.runs["label"])


def test_a_run_is_of_the_split_that_it_says_itself(tmp_path: Path) -> None:
    """settings.json is of the last start alone: earlier ones may have been on photos split otherwise."""
    rows = [replace(RUN_ROW, seed=seed) for seed in range(3)]
    folder = results_folder(tmp_path / "results", rows)
    add_settings(folder, dataset={"digest": "e" * 64, "options": {"split": "thesis"}})
    for row, said in zip(rows, ({"split": "group"}, {}, {"dataset_digest": "e" * 64}), strict=True):
        add_predictions(folder, row, {("balcony", "balcony"): 1}, **said)
    runs = gather([folder]).runs.sort_values("seed")
    assert runs["split"].tolist() == ["group", "", "thesis"], "results of earlier versions: by their photos"
    assert "split by group" in runs["label"].iloc[0] and "split" not in runs["label"].iloc[1]


def test_photos_are_named_only_where_they_tell_runs_of_a_task_apart(tmp_path: Path) -> None:
    folders = []
    for row, digest in ((RUN_ROW, "d" * 64), (replace(RUN_ROW, task="rooms"), "e" * 64)):
        folders.append(folder := results_folder(tmp_path / row.task, [row]))
        add_predictions(folder, row, {("balcony", "balcony"): 1}, dataset_digest=digest)
    folders.append(results_folder(tmp_path / "unstated", [replace(RUN_ROW, seed=1)]))
    ours = gather(folders)
    assert set(ours.runs["label"]) == {"ResNet-18"} and ours.runs["peers"].nunique() == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"best_val_accuracy": None}, "balcony, resnet18, finetuning has nothing as best_val_accuracy"),
        ({"best_val_accuracy": 94.63}, "has 94.63 as best_val_accuracy, which must be a share from 0 to 1"),
        ({"seconds": None}, "has nothing as seconds, which must be above 0"),
        ({"seconds": float("nan")}, "holds a value that is no number"),
        ({"seconds": float("inf")}, "has inf as seconds"),
        ({"mode": "frozen"}, "has frozen as mode, which must be feature_extraction or finetuning"),
    ],
)
def test_impossible_figures_are_refused_with_their_run(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = results_folder(tmp_path / "results", [replace(RUN_ROW, **change)])
    with pytest.raises(UsageError, match=told):
        written(tmp_path, folder)
    assert not (tmp_path / "report").exists()


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no results: name a folder"):
        written(tmp_path, tmp_path / "empty")
    with pytest.raises(UsageError, match="is not a folder"):
        written(tmp_path, tmp_path / "nowhere")
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    (folder / "runs.csv").write_text((folder / "runs.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(UsageError, match="holds no finished run"):
        written(tmp_path, folder)
    (folder / "runs.csv").write_text("task,architecture\nbalcony,resnet18\n")
    with pytest.raises(UsageError, match="lacks the column"):
        written(tmp_path, folder)


def test_settings_that_are_no_json_are_refused(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    (folder / "settings.json").write_text("{")
    with pytest.raises(UsageError, match=r"settings\.json is not JSON"):
        written(tmp_path, folder)


@pytest.mark.parametrize("results", [None, [Path("results")]])
def test_either_results_or_the_thesis(results: list[Path] | None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the results folders, or --thesis"):
        report_command(results, out=tmp_path, of_thesis=results is not None)


def test_fixed_draws_are_called_so_and_stand_beside_nothing_of_the_thesis(tmp_path: Path) -> None:
    frozen = replace(RUN_ROW, mode="feature_extraction", best_val_accuracy=0.95)
    kept = results_folder(tmp_path / "kept", [replace(frozen, cache_features=8, best_val_accuracy=0.96)])
    text = page(gather([results_folder(tmp_path / "results", [frozen]), kept]), gather([thesis.FOLDER]))
    rows = cells(section(text, "Balcony, feature extraction"))
    assert ["ResNet-18, 8 fixed draws a photo", "3m37", "1m40", "–", "–", "96.00", "–"] in rows
    assert ["ResNet-18", "3m37", "1m40", "−1m57", "94.63", "95.00", "+0.37"] in rows
    assert "augmentation is 8 fixed draws a photo" in text
    assert "pretrained, 30 epochs (runs: 1)" in text
    assert "pretrained, 30 epochs, 8 fixed draws a photo (runs: 1)" in text


@pytest.mark.parametrize(
    ("told", "choice", "changed", "named"),
    [
        ({"rate": 0.01}, {}, {}, "rate 0.01"),
        ({"batch": 8, "momentum": 0.5}, {}, {}, "batch 8, momentum 0.5"),
        ({}, {}, {"precision": "bf16"}, "bf16"),
        ({}, {"size": 160}, {"input_size": 160}, "160 px"),
    ],
)
def test_runs_that_learnt_otherwise_are_no_seeds_of_the_others(
    told: dict[str, float], choice: dict[str, int], changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    usual = results_folder(tmp_path / "usual", [RUN_ROW])
    row = replace(RUN_ROW, best_val_accuracy=0.8, **changed)
    other = results_folder(tmp_path / "other", [row])
    for folder, learnt_by in ((usual, {}), (other, told)):
        by = {"batch": 32, "rate": 0.001} | learnt_by
        add_predictions(folder, row, {("balcony", "balcony"): 1}, hyperparameters=by)
        add_settings(folder, choice=choice)
    ours = gather([usual, other])
    rows = cells(section(page(ours, gather([thesis.FOLDER])), "Balcony, finetuning"))
    assert [row[5] for row in rows if row[0] == "ResNet-18"] == ["90.00"]
    assert [row[5] for row in rows if row[0] == f"ResNet-18, {named}"] == ["80.00"]
    assert ours.runs["peers"].nunique() == 2


@pytest.mark.parametrize("last", [0, 160])
def test_seeds_of_one_folder_that_saw_other_sizes_are_no_seeds_of_each_other(
    last: int, tmp_path: Path
) -> None:
    """What settings.json says is of the last start of `compare` only."""
    small = replace(RUN_ROW, seed=1, input_size=160, best_val_accuracy=0.8)
    folder = results_folder(tmp_path / "results", [RUN_ROW, small])
    for row, batch in ((RUN_ROW, 32), (small, 8)):
        add_predictions(folder, row, {("balcony", "balcony"): 1}, hyperparameters={"batch": batch})
    add_settings(folder, choice={"size": last}, recipe={"batch": 8 if last else 32, "rate": 0.001})
    ours = gather([folder])
    rows = cells(section(page(ours, gather([thesis.FOLDER])), "Balcony, finetuning"))
    assert [row[5] for row in rows if row[0] == "ResNet-18"] == ["90.00"]
    assert [row[5] for row in rows if row[0] == "ResNet-18, batch 8, 160 px"] == ["80.00"]
    own, other = re.findall(r"^enrich-train compare .*", commands(ours), re.M)
    assert "--seed 0 " in own and "--batch 32 " in own and "160" not in own
    assert "--seed 1 " in other and "--batch 8 " in other and other.endswith("--input-size 160")


def test_results_of_earlier_versions_say_nothing_of_fixed_draws(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    lines = (folder / "runs.csv").read_text().splitlines()
    assert all(line.rpartition(",")[2] in ("cache_features", "") for line in lines)
    (folder / "runs.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    assert "fixed draws" not in page(gather([folder]), gather([thesis.FOLDER]))
