"""The page of an evaluation: what was asked, every figure with its interval, the pictures."""

# ruff: noqa: E501  (lines of a page, not of code)

from collections.abc import Sequence
from typing import Any

from enrich.model.head import Head
from training.markdown import table

Figures = dict[str, Any]


def write_report(metrics: Figures, heads: Sequence[Head]) -> str:
    """`report.md` from the content of metrics.json."""
    parts = [_opening(metrics)]
    for head in heads:
        figures = metrics["heads"][head.name]
        parts.append(_binary(head, figures) if head.kind == "binary" else _classes(head, figures))
    return "\n".join(parts)


def _opening(metrics: Figures) -> str:
    bundle, photos = metrics["bundle"], metrics["photos"]
    chosen = ", ".join(f"{name} {value}" for name, value in photos["chosen"].items() if value) or "all rows"
    warnings = "".join(f"\n> **Mind:** {line}.\n" for line in metrics["warnings"])
    remarks = "".join(f"\n- {line}" for line in metrics["remarks"])
    unreadable = "".join(
        f"\n- could not be read: {status} ({count})" for status, count in photos["unreadable"].items()
    )
    return f"""# Evaluation of bundle {bundle["name"]}

Bundle `{bundle["bundle_id"][:12]}…` on {photos["photos"]} photos of {photos["groups"]} groups ({chosen}), through the serving path:
decode, score ({metrics["device"]}, {metrics["precision"]}), aggregate. Brackets are exact (Clopper-Pearson) 95 % intervals; photos
of one home resemble each other, so intervals over photos are narrower than they should be. Homes are groups of at least
{photos["least_photos"]} labelled photos{_of(photos["homes"])}; a home has an attribute if one of its photos shows it.
{warnings}{remarks}{unreadable}
"""


def _of(prefixes: Sequence[str]) -> str:
    return f" of {', '.join(prefixes)}" if prefixes else ""


def _binary(head: Head, figures: Figures) -> str:
    photos, listings, name = figures["photos"], figures["listings"], head.name
    rows = [
        _photo_row(collection, figure)
        for collection, figure in {"all": photos, **figures["collections"]}.items()
    ]
    header = ["photos of", "photos", "with", "accuracy", "AUC", "average precision", "precision", "recall"]
    return f"""## {name}

Photos, at the threshold {head.true_threshold:.4f} from which one makes a listing true:

{table(header, rows)}

Recall of photos at precision 0.95, with the threshold that gives it here: {number(photos["recall_at_precision_95"])}.
{_below(head, photos)}
Accuracy at probability 0.5: {share(photos["accuracy_at_half"])}. Calibration error {number(photos["calibration_error"])}.

{_listings(listings)}
![precision against recall]({name}_precision_recall.png)

![reliability]({name}_reliability.png)

![the worst mistakes]({name}_mistakes.png)
"""


def _below(head: Head, photos: Figures) -> str:
    if not head.false_threshold:
        return "It never says *no*: the threshold `false` is 0."
    lacking = share(photos["negative_precision"])
    return f"Of the photos below {head.false_threshold:.4f} (`false`), {lacking} lack it."


def _photo_row(name: str, figure: Figures) -> list[str]:
    return [
        name,
        str(figure["photos"]),
        str(figure["with"]),
        share(figure["accuracy"]),
        number(figure["roc_auc"]),
        number(figure["average_precision"]),
        share(figure["precision"]),
        share(figure["recall"]),
    ]


def _listings(figures: Figures) -> str:
    if not figures["homes"]:
        return "No group has enough labelled photos to be evaluated as a listing.\n"
    outcomes = [
        [words, *(str(counts[answer]) for answer in ("true", "unknown", "false"))]
        for words, counts in figures["outcomes"].items()
    ]
    elsewhere = [
        [prevalence, number(one["precision"]), number(one["negative_precision"])]
        for prevalence, one in figures["at_prevalence"].items()
    ]
    return f"""Listings: {figures["homes"]} homes, {figures["with"]} with it (prevalence {figures["prevalence"]}), {figures["median_photos"]:.0f} photos in the median.

{table(["homes", "true", "unknown", "false"], outcomes)}

- precision of **true**: {share(figures["precision"])}; recall: {share(figures["recall"])}
- precision of **false**: {share(figures["negative_precision"])}
- by the highest photo: average precision {number(figures["average_precision"])}, AUC {number(figures["roc_auc"])}, recall at precision 0.95 {number(figures["recall_at_precision_95"])}
- by the published confidence: average precision {number(figures["confidence"]["average_precision"])}, calibration error {number(figures["calibration_error"])}

The same error rates where another share of the homes has it:

{table(["prevalence", "precision of true", "precision of false"], elsewhere)}
"""


def _classes(head: Head, figures: Figures) -> str:
    rows = [
        [
            name,
            str(one["photos"]),
            share(one["recall"]),
            share(one["precision"]),
            f"{one['threshold']:.3f}" if one["publish"] else "not published",
            share(one["precision_over_threshold"]),
            share(one["recall_over_threshold"]),
        ]
        for name, one in figures["classes"].items()
    ]
    header = ["class", "photos", "accuracy", "precision", "counts from", "precision there", "recall there"]
    listings = [
        [name, str(one["homes"]), share(one["recall"]), share(one["precision"])]
        for name, one in figures["listings"].items()
        if name != "homes"
    ]
    collections = [
        [name, str(one["photos"]), share(one["accuracy"])] for name, one in figures["collections"].items()
    ]
    return f"""## {head.name}

{share(figures["accuracy"])} of the photos right. Calibration error {number(figures["calibration_error"])}.

{table(header, rows)}
{_section("Listings: homes with such a photo, and how many of them the document names", ["class", "homes", "recall", "precision"], listings)}
{_section("By collection", ["photos of", "photos", "accuracy"], collections)}
![confusion]({head.name}_confusion.png)

![reliability]({head.name}_reliability.png)
"""


def _section(title: str, header: list[str], rows: list[list[str]]) -> str:
    return f"\n{title}:\n\n{table(header, rows)}\n" if rows else ""


def share(figure: Figures) -> str:
    """`36 of 38, 0.947 [0.823, 0.994]`."""
    if not figure["of"]:
        return "0 of 0"
    return f"{figure['hits']} of {figure['of']}, {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def number(value: float | None) -> str:
    """Three digits, a dash where there is nothing to say."""
    return "–" if value is None else f"{value:.3f}"
