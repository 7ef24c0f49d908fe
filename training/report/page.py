"""The page of a comparison, in Markdown, from what was gathered, drawn and computed."""

# ruff: noqa: E501  (lines of a page, not of code)

from collections.abc import Sequence
from dataclasses import dataclass

from training import thesis
from training.report.confusion import Confusion, class_tables
from training.report.findings import RULES, accuracy_findings, findings_table, time_findings
from training.report.gathered import KINDS, SCRATCH, UNSTATED, Gathered
from training.report.provenance import missing, what_was_run
from training.report.ratios import epoch_table, ratio_tables, times_of
from training.report.tables import best_models, result_tables


@dataclass(frozen=True)
class Drawn:
    """The figures: title and link of each."""

    curves: tuple[tuple[str, str], ...]
    matrices: tuple[tuple[str, str], ...]


def page(gathered: Gathered, reference: Gathered | None, found: Sequence[Confusion], drawn: Drawn) -> str:
    """The whole page.

    `reference`: the thesis's runs, set beside ours; None where `gathered` is the thesis itself.
    """
    parts = [_opening(gathered, reference)]
    if len(gathered.runs):
        parts += ["## The best model on these photos", best_models(gathered)]
    parts += ["## Findings", _findings(gathered), "## What was run", what_was_run(gathered, found)]
    if len(gathered.runs):
        tables = result_tables(gathered, reference)
        parts += ["## Training time and highest accuracy", _notes(gathered, reference), tables]
    parts += ["## Training times in relation", _relations(gathered, reference)]
    if drawn.curves:
        parts += ["## Loss and accuracy over the epochs", CURVES, *_figures(drawn.curves)]
    if found:
        parts += ["## Classes", _classes(found), *_figures(drawn.matrices)]
    parts += ["## Missing", missing(gathered, found)]
    return "\n\n".join(parts) + "\n"


CURVES = (
    "Solid: validation. Dashed: training, on augmented photos. An architecture has one colour in all figures."
)

EPOCH_SECONDS = """Seconds of an epoch, training and validation, for as many photos as the thesis had (FE: feature extraction,
FT: finetuning):"""

ROUNDS = "Ratios are taken within a round: their median, and the lowest and highest in brackets."

CLASSES = """Validation photos at each run's best epoch: the share of a class that was recognised, with its exact
(Clopper–Pearson) 95 % interval. The intervals take photos as independent of each other; photos of one home are not, and
the best epoch was chosen on these very photos, so the truth is wider and a little lower."""


def _opening(gathered: Gathered, reference: Gathered | None) -> str:
    if reference is None:
        return """# The thesis's comparison

The figures of the thesis itself, computed and drawn by the same code as a comparison of one's own
(`enrich-train report --thesis`): five architectures, two modes, three tasks, on one Tesla K80."""
    folders = " ".join(gathered.settings)
    return f"""# The thesis's comparison, repeated

Made by `enrich-train report {folders} --out …` from what `enrich-train compare` measured; nothing here is written by hand.
The thesis: five architectures pretrained on ImageNet, {thesis.EPOCHS} epochs, one Tesla K80, its own photos. Ours are other photos
on another machine, so the figures stand beside each other, but are not expected to be equal."""


def _findings(gathered: Gathered) -> str:
    parts, runs = [], gathered.runs
    for kind in KINDS:
        for peers, own in runs[runs["kind"] == kind].groupby("peers", sort=False):
            parts.append(f"Accuracy, {peers} (runs: {len(own)}):")
            if kind == SCRATCH:
                parts.append(
                    "The thesis's networks were pretrained, so networks from scratch decide nothing."
                )
            parts.append(findings_table(accuracy_findings(own)))
    for times in times_of(gathered):
        parts += [f"Time, {times.source}:", findings_table(time_findings(times))]
    return "\n\n".join([*parts, RULES])


def _notes(gathered: Gathered, reference: Gathered | None) -> str:
    lines = [
        "Time is the wall clock of a whole run (minutes and seconds), accuracy the highest of any epoch."
    ]
    kinds = set(gathered.runs["kind"])
    if reference is not None:
        lines.append(
            f"Runs are of {thesis.EPOCHS} epochs where nothing else is said; times of other numbers of epochs are not set off "
            "against the thesis's. A dash: not run, or nothing to compare with."
        )
    if SCRATCH in kinds:
        lines.append(
            "**From scratch** means random initial weights: these accuracies are not comparable with pretrained ones, "
            "the thesis's among them."
        )
    if UNSTATED in kinds:
        lines.append(f"{(gathered.runs['kind'] == UNSTATED).sum()} runs do not state their weights.")
    return "\n".join(lines)


def _relations(gathered: Gathered, reference: Gathered | None) -> str:
    theirs = times_of(reference)[0] if reference else None
    parts = []
    for times in times_of(gathered):
        parts.append(f"### {times.source[0].upper()}{times.source[1:]}")
        if times.of_epochs:
            parts += [EPOCH_SECONDS, epoch_table(times), ROUNDS]
        parts.append(ratio_tables(times, theirs))
    return "\n\n".join(parts)


def _classes(found: Sequence[Confusion]) -> str:
    tasks = dict.fromkeys(one.task for one in found)
    return "\n\n".join([CLASSES, *(class_tables(found, task) for task in tasks)])


def _figures(drawn: Sequence[tuple[str, str]]) -> list[str]:
    return [f"![{title}]({link})" for title, link in drawn]
