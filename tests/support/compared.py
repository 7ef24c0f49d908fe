"""Results folders made up for the report: rows as `compare` writes them, and the thesis's own."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from training import thesis
from training.compare.results import (
    PREDICTIONS,
    RUN,
    SETTINGS,
    EpochRow,
    RunKey,
    RunRow,
    TimingRow,
    add_rows,
    read_results,
    write_text,
)

RUN_ROW = RunRow(
    *("balcony", "resnet18", "finetuning", 0, "imagenet", 30, 100.0, 2, 0.9),
    *(1000, 250, 224, 11_177_538, 11_177_538, "fp32", "a GPU"),
)
TIMING_ROW = TimingRow("balcony", "resnet18", "finetuning", 1, 20, 32, 100.0, 200.0, 10.0, "a GPU", 4)
SETTINGS_TEXT = {
    "choice": {"architectures": [], "size": 0},
    "weights": "imagenet",
    "recipe": {"epochs": 30, "batch": 32, "rate": 0.001, "momentum": 0.9, "precision": "fp32"},
    "dataset": {"digest": "d" * 64, "options": {"split": "thesis", "seed": 0, "tasks": ["balcony"]}},
    "versions": {"torch": "2.15.0"},
}


def thesis_rows() -> list[RunRow]:
    """The thesis's 30 runs, as rows of one's own."""
    rows = []
    for run in read_results(thesis.FOLDER).runs.itertuples():
        seconds, accuracy = float(run.seconds), float(run.best_val_accuracy)
        size = 299 if run.architecture == "inception_v3" else RUN_ROW.input_size
        row = replace(RUN_ROW, task=run.task, architecture=run.architecture, mode=run.mode, input_size=size)
        rows.append(replace(row, seconds=seconds, best_val_accuracy=accuracy))
    return rows


def results_folder(folder: Path, runs: Iterable[RunRow], timings: Iterable[TimingRow] = ()) -> Path:
    """A results folder of rows alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for rows in (list(runs), list(timings)):
        if rows:
            add_rows(folder, rows)
    return folder


def add_epochs(folder: Path, run: RunRow, losses: Iterable[float] = (0.7, 0.5, 0.4)) -> None:
    """Epochs of a run, with these validation losses."""
    rows = [
        EpochRow(
            *(run.task, run.architecture, run.mode, run.seed, n),
            *(loss + 0.1, 0.8, loss, 0.7 + 0.05 * n, 1.0, 100.0),
        )
        for n, loss in enumerate(losses, 1)
    ]
    add_rows(folder, rows)


def add_predictions(folder: Path, run: RunRow, counts: dict[tuple[str, str], int], **said: object) -> Path:
    """A run's folder with so many photos of each (truth, predicted), two photos a home; returns it.

    `said`: what run.json says besides the digest of the data set.
    """
    own = folder / "runs" / RunKey(run.task, run.architecture, run.mode, run.seed or 0).folder
    own.mkdir(parents=True)
    classes = list(dict.fromkeys(truth for truth, _ in counts))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "group", "truth", "predicted", *(f"p_{name}" for name in classes)])
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    for n, (truth, predicted) in enumerate(pairs):
        shares = [float(name == predicted) for name in classes]
        writer.writerow([f"photos/{n}.jpg", f"home-{n // 2}", truth, predicted, *shares])
    write_text(own / PREDICTIONS, text.getvalue())
    write_text(own / RUN, json.dumps({"dataset_digest": "d" * 64} | said))
    return own


def add_settings(folder: Path, **other: object) -> None:
    """settings.json as `compare` writes it."""
    write_text(folder / SETTINGS, json.dumps(SETTINGS_TEXT | other))
