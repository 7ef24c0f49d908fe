"""The commands that repeat a comparison, from what its results folders say."""

import shlex
from typing import Any

import pandas as pd

from training import thesis
from training.report.gathered import Gathered, in_order


def commands(gathered: Gathered) -> str:
    """`prepare` and `compare` of every results folder, a line each; "" where no folder tells enough."""
    lines = []
    for name, settings in gathered.settings.items():
        own = gathered.runs[(gathered.runs["folder"] == name) & gathered.runs["place"].notna()]
        timings = gathered.timings[gathered.timings["folder"] == name]
        if settings:
            prepared = settings.get("dataset", {}).get("options", {})
            lines.append(_line("prepare PHOTOS --out PREPARED", prepared))
        for (weights, epochs, precision), runs in own.groupby(["weights", "epochs", "precision"], sort=False):
            options = _chosen(runs) | settings.get("recipe", {})
            options |= {"epochs": epochs, "precision": precision, "weights": weights}
            options["input_size"] = settings.get("choice", {}).get("size")
            lines.append(_line(f"compare PREPARED --out {shlex.quote(name)} --resume", options))
        for (steps, batch), rounds in timings.groupby(["steps", "batch"], sort=False):
            options = {"timing_steps": steps, "rounds": rounds["round"].nunique(), "batch": batch}
            options |= _chosen(rounds)
            lines.append(_line(f"compare PREPARED --out {shlex.quote(name)} --resume", options))
    return "\n".join(dict.fromkeys(lines))


def _chosen(rows: pd.DataFrame) -> dict[str, Any]:
    """Architectures, tasks, modes and seeds of runs or timings."""
    return {
        "architecture": in_order(rows["architecture"], thesis.ARCHITECTURES),
        "task": in_order(rows["task"], thesis.TASKS),
        "mode": in_order(rows["mode"], thesis.MODES),
        "seed": sorted(set(rows["seed"])) if "seed" in rows else [],
    }


def _line(command: str, options: dict[str, Any]) -> str:
    words = ["enrich-train", command]
    for key, value in options.items():
        option = f"--{key.removesuffix('s') if key == 'tasks' else key}".replace("_", "-")
        for one in value if isinstance(value, list | tuple) else [value]:
            if one not in (None, ""):
                words += [option, shlex.quote(str(one))]
    return " ".join(words)
