"""The results folder of a comparison: what `compare` writes, `report` and `export` read.

::

    RESULTS/runs.csv       one row a finished run         RESULTS/epochs.csv    one row an epoch
    RESULTS/timings.csv    by `compare --timing-steps`    RESULTS/settings.json options, library versions
    RESULTS/runs/<task>__<architecture>__<mode>__s<seed>/
        run.json           everything that rebuilds the model
        best.safetensors   weights of the best validation epoch, by a bundle's names
        predictions.csv    validation photos at that epoch: path, group, truth, predicted, p_<class>…
        checkpoint.pt      only while the run is unfinished
    RESULTS/features/      what frozen backbones made of photos, by `compare --cache-features`

Several processes may write to one folder: rows are added under a lock, each time to a new file that then
takes the old one's place, so that a reader never meets half a row.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from enrich.atomic import new_file
from enrich.errors import UsageError
from training.data.labels import read_table
from training.trainer.loop import locked

RUNS, EPOCHS, TIMINGS, SETTINGS = "runs.csv", "epochs.csv", "timings.csv", "settings.json"
RUN, BEST, PREDICTIONS, CHECKPOINT = "run.json", "best.safetensors", "predictions.csv", "checkpoint.pt"
LOCK = ".lock"
"""Of a run's folder, and of the results."""


@dataclass(frozen=True)
class RunKey:
    """Names a run within a comparison."""

    task: str
    architecture: str
    """One of the thesis's five by its bare name, else `timm:<model>` or `torchvision:<model>`."""
    mode: str
    seed: int = 0

    @property
    def folder(self) -> str:
        """The run's folder within `RESULTS/runs`."""
        return f"{self.task}__{self.architecture.replace(':', '-')}__{self.mode}__s{self.seed}"


@dataclass(frozen=True)
class RunRow:
    """A finished run. `seconds`: wall clock of all epochs, validation included; accuracies 0..1.

    What need not be known (of runs that others made) is None and an empty field.
    """

    KEY = ("task", "architecture", "mode", "seed")
    task: str
    architecture: str
    mode: str
    seed: int | None
    weights: str | None
    epochs: int | None
    seconds: float
    best_epoch: int | None
    best_val_accuracy: float
    train_photos: int | None
    val_photos: int | None
    input_size: int | None
    parameters: int | None
    trainable_parameters: int | None
    precision: str | None
    device: str | None
    cache_features: int | None = None
    """Fixed draws of a photo, of which features were kept; None: a new draw every epoch, as by the protocol.
    Results of earlier versions lack this column."""


@dataclass(frozen=True)
class EpochRow:
    """An epoch of a run, counted from 1. `images_per_second`: training photos by the time training took."""

    KEY = ("task", "architecture", "mode", "seed", "epoch")
    task: str
    architecture: str
    mode: str
    seed: int | None
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float | None


@dataclass(frozen=True)
class TimingRow:
    """One round of steps. `epoch_seconds`: training and validation at these rates, for the photos that the
    thesis had for the task (of a task it does not know: for the prepared photos)."""

    KEY = ("task", "architecture", "mode", "round")
    task: str
    architecture: str
    mode: str
    round: int
    steps: int
    batch: int
    train_images_per_second: float
    val_images_per_second: float
    epoch_seconds: float
    device: str
    threads: int


Row = RunRow | EpochRow | TimingRow
_TABLES: dict[type[Row], str] = {RunRow: RUNS, EpochRow: EPOCHS, TimingRow: TIMINGS}


class Results(NamedTuple):
    """The tables of a results folder, with the columns of their row classes.

    A table whose file is not there is empty, with its columns. Whole numbers that may be empty are `Int64`.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    timings: pd.DataFrame


def read_results(folder: Path) -> Results:
    """Read the tables of `folder`. Raises UsageError: no results there, or a table that is not readable or
    lacks a column."""
    paths = {row: folder / name for row, name in _TABLES.items()}
    if not any(path.is_file() for path in paths.values()):
        raise UsageError(f"{folder} holds no results: name a folder that `enrich-train compare` wrote")
    return Results(*(_typed(_read_text(path, row), path, row) for row, path in paths.items()))


def read_run(folder: Path) -> dict[str, Any]:
    """A run's `run.json`; a UsageError where it is missing, or not JSON."""
    if not (folder / RUN).is_file():
        raise UsageError(f"{folder / RUN} is missing: name a folder within RESULTS/runs")
    return read_json(folder / RUN)


def read_json(path: Path) -> dict[str, Any]:
    """An object in JSON; a UsageError where it is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is not JSON ({error}): take it out, and make the run again") from None


def read_predictions(folder: Path) -> pd.DataFrame:
    """A run's `predictions.csv`: path, group, truth, predicted as text, `p_<class>` as numbers; a UsageError
    where it is missing or not readable."""
    path = folder / PREDICTIONS
    try:
        text = dict.fromkeys(("path", "group", "truth", "predicted"), str)
        return pd.read_csv(path, dtype=text, keep_default_na=False, lineterminator="\n")
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: the run has not finished") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise UsageError(f"{path} is not a readable CSV file: {str(error).strip()}") from None


def add_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Add `rows`, all of one class, to their table in `folder`; a row of the same key gives way.

    So an epoch that a killed run had written and makes again after its checkpoint stands there once.
    """
    row_class = type(rows[0])
    path = folder / _TABLES[row_class]
    added = pd.DataFrame([{name: _text(value) for name, value in asdict(row).items()} for row in rows])
    with locked(folder / LOCK):
        kept = _read_text(path, row_class)
        _typed(kept, path, row_class)  # refuses a table that was damaged
        table = pd.concat([kept, added]).drop_duplicates(list(row_class.KEY), keep="last")
        write_text(path, table.to_csv(index=False, lineterminator="\n"))


def write_text(path: Path, text: str) -> None:
    """Write the whole file at once: whoever looks finds the old one or the new one."""
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """The same, of JSON."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _read_text(path: Path, row: type[Row]) -> pd.DataFrame:
    """The columns of a table as text; of a file that is nowhere they are empty."""
    needed = [field.name for field in fields(row) if field.default is MISSING]
    names = [field.name for field in fields(row)]
    if not path.is_file():
        return pd.DataFrame(columns=names, dtype=str)
    return read_table(path, needed).reindex(columns=names, fill_value="")


def _typed(table: pd.DataFrame, path: Path, row: type[Row]) -> pd.DataFrame:
    """The table with numbers where the row class has them."""
    kinds = {field.name: str(field.type) for field in fields(row)}
    numbers = {
        name: "Int64" if "int" in kind else "float64" for name, kind in kinds.items() if "str" not in kind
    }
    try:
        columns = {name: pd.to_numeric(table[name].replace("", None)) for name in numbers}
        return table.assign(**columns).astype(numbers)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} holds a value that is no number: {error}") from None
