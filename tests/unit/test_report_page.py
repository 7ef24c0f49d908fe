"""The report as files: figures and links, classes with intervals, what is missing, nothing half written."""

import errno
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.main import get_command

from enrich.errors import UsageError
from tests.support.compared import (
    RUN_ROW,
    add_epochs,
    add_predictions,
    add_settings,
    results_folder,
)
from tests.support.evaluating import run_train
from tests.unit.test_report import cells, section, written
from training import thesis
from training.compare.command import compare_command
from training.compare.results import RunRow, TimingRow
from training.data.prepare import prepare_command
from training.models.architectures import architecture_name
from training.report.command import report_command
from training.report.gathered import gather
from training.report.plots import colours, curve_figure

COUNTS = {
    ("balcony", "balcony"): 9,
    ("balcony", "indoor"): 1,
    ("indoor", "indoor"): 20,
    ("indoor", "balcony"): 0,
}
LITE = replace(RUN_ROW, architecture="timm:tf_efficientnet_lite0", weights="package", epochs=3)


def grid(tasks: Sequence[str] = thesis.TASKS) -> list[RunRow]:
    return [replace(RUN_ROW, task=task, mode=mode) for task in tasks for mode in thesis.MODES]


def images(page: Path) -> list[Path]:
    """What the page shows, as paths."""
    return [page.parent / link for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())]


def test_twelve_figures_where_epochs_are_there(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", grid())
    for run in grid():
        add_epochs(folder, run)
    written(tmp_path, folder)
    found = images(tmp_path / "report" / "report.md")
    assert [path.name for path in found] == [
        f"{metric}-{task}-{mode}.png"
        for task in thesis.TASKS
        for mode in ("feature-extraction", "finetuning")
        for metric in ("loss", "accuracy")
    ]
    assert all(path.stat().st_size < 60_000 for path in found)


@pytest.mark.parametrize(("mode", "said"), [("feature_extraction", True), ("finetuning", False)])
def test_a_frozen_backbone_that_sees_validation_photos_once_is_said(
    tmp_path: Path, mode: str, said: bool
) -> None:
    text = written(tmp_path, results_folder(tmp_path / "results", [replace(RUN_ROW, mode=mode)]))
    assert ("looks at the validation photos in its first epoch alone" in text) == said


def test_a_page_by_name_has_its_figures_in_a_folder_named_like_it(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    add_epochs(folder, RUN_ROW)
    page = tmp_path / "docs" / "thesis-comparison.md"
    report_command([folder], out=page)
    assert {path.relative_to(page.parent).as_posix() for path in images(page)} == {
        "thesis-comparison/loss-balcony-finetuning.png",
        "thesis-comparison/accuracy-balcony-finetuning.png",
    }
    assert {path.name for path in page.parent.iterdir()} == {page.name, page.stem}
    assert set(images(page)) == set((page.parent / page.stem).iterdir()), "and nothing else is left there"
    assert str(tmp_path) not in page.read_text(), "no path of this machine"
    before = {path: path.read_bytes() for path in images(page)}
    report_command([folder], out=page)
    assert {path: path.read_bytes() for path in images(page)} == before, "the same results, the same bytes"


def test_an_architecture_has_one_colour_whatever_else_was_run() -> None:
    few, many = colours(["densenet121", "timm:a"]), colours([*thesis.ARCHITECTURES, "timm:a", "timm:b"])
    assert few["densenet121"] == many["densenet121"] and few["timm:a"] == many["timm:a"]
    assert len(set(many.values())) == 7


def test_curves_from_scratch_have_figures_of_their_own(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "one", [RUN_ROW])
    add_epochs(folder, RUN_ROW)
    scratch = replace(RUN_ROW, weights="none")
    other = results_folder(tmp_path / "two", [scratch])
    add_epochs(other, scratch)
    text = written(tmp_path, folder, other)
    assert "![Balcony, finetuning, from scratch: loss](loss-balcony-finetuning-from-scratch.png)" in text
    assert len(images(tmp_path / "report" / "report.md")) == 4


def test_curves_show_the_epochs_validation_solid_and_training_dashed(tmp_path: Path) -> None:
    alexnet = replace(RUN_ROW, architecture="alexnet")
    folder = results_folder(tmp_path / "results", [RUN_ROW, alexnet])
    for run, losses in ((RUN_ROW, (0.7, 0.5, 0.4)), (alexnet, (0.9, 0.8))):
        add_epochs(folder, run, losses)
    axes = curve_figure(gather([folder]).epochs, "loss", "Loss", colours([])).axes[0]
    drawn = [
        (
            line.get_color(),
            line.get_linestyle(),
            np.asarray(line.get_xdata()).tolist(),
            np.asarray(line.get_ydata(), dtype=float).round(6).tolist(),
        )
        for line in axes.lines
    ]
    assert drawn == [
        ("tab:blue", "-", [1, 2, 3], [0.7, 0.5, 0.4]),
        ("tab:blue", "--", [1, 2, 3], [0.8, 0.6, 0.5]),
        ("tab:orange", "-", [1, 2], [0.9, 0.8]),
        ("tab:orange", "--", [1, 2], [1.0, 0.9]),
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss (cross-entropy)")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    alexnet = replace(RUN_ROW, architecture="alexnet")
    folder = results_folder(tmp_path / "results", [RUN_ROW, alexnet])
    add_epochs(folder, RUN_ROW)
    add_predictions(folder, RUN_ROW, COUNTS)
    lines = section(written(tmp_path, folder), "Missing").strip().splitlines()
    assert lines == [
        "- Runs of balcony, feature extraction.",
        "- Curves of loss and accuracy (no epochs.csv, or not in it) of balcony, finetuning: AlexNet.",
        "- Confusion matrices (no predictions.csv) of balcony, finetuning: AlexNet.",
        "- Runs of fireplace.",
        "- Runs of rooms.",
        "- Timings by steps (`compare --timing-steps`): the ratios are of whole runs.",
    ]


def test_epochs_without_a_figure_leave_a_gap_and_a_line(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    add_epochs(folder, RUN_ROW)
    table = (folder / "epochs.csv").read_text()
    (folder / "epochs.csv").write_text(table.replace(",0.7,", ",,"))
    text = written(tmp_path, folder)
    assert "- Figures of 1 epochs of balcony, finetuning, ResNet-18: gaps in its curves." in text


def test_classes_have_exact_intervals(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    add_predictions(folder, RUN_ROW, COUNTS)
    text = written(tmp_path, folder)
    # By the definition: P(X >= 9 | 0.55498) = P(X <= 9 | 0.99747) = 0.025 of 10; 0.025 ** (1 / 20) = 0.83157.
    assert [
        "ResNet-18",
        "90.0 % (9 of 10) [55.5, 99.7]",
        "100.0 % (20 of 20) [83.2, 100.0]",
        "96.7 % (29 of 30) [82.8, 99.9]",
    ] in cells(text)
    assert (tmp_path / "report" / "confusion-balcony-finetuning.png").is_file()


def test_names_with_pipes_or_line_breaks_keep_their_cells(tmp_path: Path) -> None:
    run = replace(RUN_ROW, task="view|outlook")
    folder = results_folder(tmp_path / "results", [run])
    add_predictions(folder, run, {("sea|lake", "sea|lake"): 9, ("no\nwater", "no\nwater"): 1})
    rows = [line for line in written(tmp_path, folder).splitlines() if line.startswith("|")]
    assert "| architecture | sea\\|lake | no water | all |" in rows
    assert any(line.startswith("| view\\|outlook | ResNet-18 |") for line in rows)


def test_a_home_with_a_carriage_return_in_its_name_is_counted(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    table = add_predictions(folder, RUN_ROW, COUNTS) / "predictions.csv"
    table.write_bytes(table.read_bytes().replace(b"home-0", b"home\r0"))
    assert "100.0 % (20 of 20)" in written(tmp_path, folder)


def test_names_with_dollars_are_drawn_as_they_are(tmp_path: Path) -> None:
    run = replace(RUN_ROW, task="price $$")
    folder = results_folder(tmp_path / "results", [run])
    add_epochs(folder, run)
    add_predictions(folder, run, {("$", "$"): 9, ("$$", "$$"): 1})
    assert "| architecture | $ | $$ | all |" in written(tmp_path, folder)
    assert len(images(tmp_path / "report" / "report.md")) == 3


def test_photos_are_counted_by_class(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    add_predictions(folder, RUN_ROW, COUNTS)
    add_settings(folder, dataset={"digest": "d" * 64, "options": {"split": "thesis"}})
    rows = cells(section(written(tmp_path, folder), "What was run"))
    seen = ["1000", "250 (balcony 10, indoor 20)", "15", "dddddddd"]
    assert ["balcony", "thesis", *seen] in rows


def test_a_split_that_is_not_the_thesis_s_is_said_in_every_row(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    add_predictions(folder, RUN_ROW, COUNTS)
    add_settings(folder, dataset={"digest": "d" * 64, "options": {"split": "group"}})
    text = written(tmp_path, folder)
    assert [row[0] for row in cells(section(text, "Balcony, finetuning"))[1:3]] == [
        "ResNet-18, split by group",
        "AlexNet",
    ]
    assert "pretrained, 30 epochs, split by group (runs: 1)" in text


def test_the_split_of_other_photos_is_not_taken_for_a_run_s(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    add_predictions(folder, RUN_ROW, COUNTS, dataset_digest="e" * 64)
    add_settings(folder, dataset={"digest": "d" * 64, "options": {"split": "group"}})
    assert list(gather([folder]).runs["split"]) == [""]


def test_the_commands_that_repeat_it_are_commands(tmp_path: Path) -> None:
    timing = TimingRow("balcony", "resnet18", "finetuning", 1, 20, 32, 100.0, 200.0, 10.0, "a GPU", 4)
    folder = results_folder(tmp_path / "results", [RUN_ROW, LITE], [timing])
    add_settings(folder)
    for run in (RUN_ROW, LITE):
        add_predictions(folder, run, COUNTS)
    lines = re.search(r"```\n(.*?)```", written(tmp_path, folder), re.DOTALL)
    assert lines is not None
    known: dict[str, Callable[..., None]] = {"prepare": prepare_command, "compare": compare_command}
    said = []
    for line in lines[1].splitlines():
        program, name, *words = shlex.split(line)
        app = typer.Typer()
        app.command()(known[name])
        said.append((program, name, get_command(app).make_context(name, words).params))
    assert [(program, name) for program, name, _ in said] == [
        ("enrich-train", "prepare"),
        *[("enrich-train", "compare")] * 3,
    ]
    prepare, full, lite, steps = (params for _, _, params in said)
    assert prepare["split"] == "thesis" and prepare["task"] == ["balcony"]
    assert (full["architecture"], full["epochs"], full["weights"]) == (["resnet18"], 30, "imagenet")
    assert (lite["architecture"], lite["epochs"], lite["weights"]) == ([LITE.architecture], 3, "package")
    assert (steps["timing_steps"], steps["rounds"], steps["out"]) == (20, 1, Path("results"))


def test_commands_name_architectures_of_torchvision_as_compare_takes_them(tmp_path: Path) -> None:
    run = replace(RUN_ROW, architecture="torchvision:resnet50")
    folder = results_folder(tmp_path / "results", [run, replace(run, architecture="torchvision:alexnet")])
    for name in ("torchvision:resnet50", "torchvision:alexnet"):
        add_predictions(folder, replace(run, architecture=name), COUNTS)
    text = written(tmp_path, folder)
    named = re.findall(r"--architecture (\S+)", text)
    assert [architecture_name(name) for name in named] == ["alexnet", "torchvision:resnet50"]


def test_the_command_says_how_many_draws_were_fixed(tmp_path: Path) -> None:
    run = replace(RUN_ROW, mode="feature_extraction", cache_features=8)
    folder = results_folder(tmp_path / "results", [run])
    add_settings(folder)
    add_predictions(folder, run, COUNTS)
    assert re.search(
        r"^enrich-train compare PREPARED .*--cache-features 8\b", written(tmp_path, folder), re.M
    )


def test_folders_of_one_name_keep_their_own_options(tmp_path: Path) -> None:
    folders = []
    for machine, run, rate in (("north", RUN_ROW, 0.001), ("south", LITE, 0.01)):
        folders.append(results_folder(tmp_path / machine / "results", [run]))
        add_settings(folders[-1], recipe={"epochs": 30, "rate": rate})
        add_predictions(folders[-1], run, COUNTS)
    text = written(tmp_path, *folders)
    rates = re.findall(r"--out (\S+) --resume --architecture (\S+) .*--rate (\S+)", text)
    assert rates == [("north/results", "resnet18", "0.001"), ("south/results", LITE.architecture, "0.01")]
    assert ["recipe.rate", "0.001", "0.01"] in cells(text)


def test_nothing_is_replaced_when_predictions_do_not_fit(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    add_epochs(folder, RUN_ROW)
    own = add_predictions(folder, RUN_ROW, COUNTS)
    written(tmp_path, folder)
    before = {path: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    table = (own / "predictions.csv").read_text()
    (own / "predictions.csv").write_text(table.replace("indoor,indoor", "patio,indoor"))
    add_epochs(folder, RUN_ROW, (0.1, 0.1, 0.1))
    with pytest.raises(
        UsageError, match=r"predictions\.csv names patio, but its classes are balcony, indoor"
    ):
        written(tmp_path, folder)
    assert {path: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(UsageError, match=r"--out .*report cannot be written"):
        written(tmp_path, folder)
    assert (tmp_path / "report").read_text() == "in the way"


def test_a_disk_that_is_full_is_no_mistake_in_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results_folder(tmp_path / "results", [RUN_ROW])

    def replaced(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report.md")

    monkeypatch.setattr(os, "replace", replaced)
    code, said = run_train("report", folder, "--out", tmp_path / "report")
    assert code == 3 and said.startswith("enrich-train: the disk is full") and len(said.splitlines()) == 1
