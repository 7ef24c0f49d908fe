"""The model card: what the bundle was made from, what it can do, and what it must not be used for.

Every figure is read from the manifest, so that the card cannot say more than the bundle.
"""

# ruff: noqa: E501  (lines of a page, not of code)

from pathlib import Path
from typing import Any

from enrich.model.arithmetic import Measured
from enrich.model.bundle import Bundle
from enrich.model.head import MIN_BACKING, Head
from training.markdown import table


def write_card(bundle: Bundle, path: Path) -> None:
    """Write the model card of a bundle that `fit` made, as Markdown."""
    training = bundle.manifest["training"]
    parts = [_opening(bundle, training), _data(training), _comparison(training)]
    for head in bundle.heads:
        parts.append(_binary(head) if head.kind == "binary" else _classes(head))
    parts += [_listing(training), arithmetics_section(bundle), LIMITS]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")


def _opening(bundle: Bundle, training: dict[str, Any]) -> str:
    heads = ", ".join(f"`{head.name}`" for head in bundle.heads)
    return f"""# Model card: {bundle.name}

Made {bundle.manifest["created"]}, bundle `{bundle.bundle_id[:12]}…`; written by the fit itself, so change the fit, not
this page. Heads: {heads}, linear, on the backbone `{bundle.members[0].backbone}` {_how(training)}.

{_notice(bundle)}{_seen_before(training)}All figures on this page come from one command:

```
{training["command"]} --card docs/model-card.md
```

"Held out" means: predicted by a model that saw no photo of that site ({training["folds"]} folds of whole sites; a site is one web
site, or one home of a larger data set). "Cross-fitted" means that the threshold, too, was chosen without that site. Brackets
are exact (Clopper-Pearson) 95 % intervals.
"""


def _notice(bundle: Bundle) -> str:
    return f"**{bundle.notice[:1].upper()}{bundle.notice[1:]}.**\n" if bundle.notice else ""


def _how(training: dict[str, Any]) -> str:
    if "frozen_on" in training:
        base = training["frozen_on"]
        return f"of the\nbundle *{base['name']}* (`{base['bundle'][:12]}…`), as it is"
    return f"with ImageNet weights\n(Apache-2.0), {_learnt(training)}"


def _seen_before(training: dict[str, Any]) -> str:
    learnt = training.get("frozen_on", {}).get("learnt")
    if not learnt:
        return ""
    return (
        "**Not held out**: the heads did not see the photos that they are evaluated on, but the backbone may have.\n"
        f"{'; '.join(learnt)}.\n\n"
    )


def _learnt(training: dict[str, Any]) -> str:
    if training["finetune"] == "none":
        return "frozen, rounded to half precision before anything was fitted or measured"
    part = "its upper stages" if training["finetune"] == "top" else "all of it"
    mean = f" {training['runs']} times, the weights averaged," if training["runs"] > 1 else ","
    return f"{part} and all heads finetuned jointly{mean} shipped in half precision"


def _comparison(training: dict[str, Any]) -> str:
    rows = [
        [name, how, figure["photos"], figure["homes"], f"{figure['found']} of {figure['of']}"]
        for name, pair in training["comparison"].items()
        if name in training["binary"]
        for how, figure in pair.items()
    ]
    if not rows:
        return ""
    target, homes = training["targets"]["true_precision"], training["targets"]["homes"]
    return f"""## What finetuning is worth

The same folds, once with linear heads on the frozen backbone and once finetuned: average precision of the held-out
photos of `{homes}` and of its homes by their highest photo, and the homes found at a precision of {target}
(on logits as they come, with the threshold chosen on these homes). The recipe was chosen among four in these folds: the
gain is a little flattered by that.

{table(["head", "backbone", "photos", "homes", "homes found"], rows)}

{_ablations(training)}"""


def _ablations(training: dict[str, Any]) -> str:
    comparison, heads = training["comparison"], training["binary"]
    if "ablations" not in comparison:
        return ""
    columns = [f"{head}, {what}" for head in heads for what in ("photos", "homes", "homes found")]
    rows = [
        [label, *(cell for head in heads for cell in _figure(by_head[head]))]
        for label, by_head in comparison["ablations"].items()
    ]
    apart = [
        [
            collection,
            head,
            f"{one['with']} of {one['photos']}",
            *(one[how][key] for key in ("average_precision", "roc_auc") for how in ("unseen", "other_sites")),
        ]
        for collection, by_head in comparison["cross_source"].items()
        for head, one in by_head.items()
    ]
    return f"""## What the photos, crops and backbones are worth

These are linear heads on frozen backbones, measured in the same folds. The backbone is Lite0 at 224 px where none is named.

{table(["heads learnt from", *columns], rows)}

Learnt without a whole collection and evaluated on it, beside folds that had learnt from other sites of it (frozen backbone):

{table(["collection", "head", "with it", "average precision, unseen", "other sites seen", "ROC area, unseen", "other sites seen"], apart)}
"""


def _figure(figure: dict[str, Any]) -> list[str]:
    return [f"{figure['photos']:.3f}", f"{figure['homes']:.3f}", f"{figure['found']} of {figure['of']}"]


def _data(training: dict[str, Any]) -> str:
    heads = training["binary"]
    rows = [
        [name, *(c[key] for key in ("photos", "trained_on", "groups", "sites", *heads))]
        for name, c in training["collections"].items()
    ]
    header = ["collection", "photos", "trained on", "homes", "sites", *heads]
    licences = "\n".join(f"- {count} photos: {name}" for name, count in training["licences"].items())
    return f"""## Photos

{table(header, rows)}

"Homes" are single photos in collections of scenes. Licences, as their publishers state them:

{licences}
"""


def _binary(head: Head) -> str:
    metrics = head.metrics
    homes, true, false, simulated = (metrics[key] for key in ("homes", "true", "false", "simulated"))
    chosen, fair = true["at_threshold"], true["cross_fitted"]
    photo_rows = [
        [
            name,
            f["photos"],
            f["with"],
            f.get("average_precision", "–"),
            f"{f['over_threshold_with']} of {f['with']}",
            f"{f['over_threshold_without']} of {f['photos'] - f['with']}",
        ]
        for name, f in metrics["photos"].items()
    ]
    rule = head.aggregation
    elsewhere = ", ".join(
        f"{_number(value)} at a prevalence of {share}" for share, value in true["precision_elsewhere"].items()
    )
    return f"""## {head.name}

Evaluated on {homes["homes"]} whole homes of {homes["sites"]} sites, {homes["with"]} of them with it (prevalence {homes["prevalence"]}), {homes["median_photos"]:.0f} photos in the median.

- **true** from photo probability {head.true_threshold:.4f}: the lowest threshold with a listing-level precision ≥ {true["target"]} both on these
  homes as they come (alone: {true["on_homes_alone"]:.4f}) and on simulated listings of {simulated["chosen_at"]} photos at a prevalence of
  {true["prevalence"]} (alone: {true["on_simulated_alone"]:.4f}). On these homes: precision {_share(chosen["precision"])}, at prevalence {true["prevalence"]}
  {_number(chosen["precision_at_prevalence"])}; recall {_share(chosen["recall"])}.
- Cross-fitted, the figure to expect elsewhere: precision {_share(fair["precision"])}, at prevalence {true["prevalence"]} {_number(fair["precision_at_prevalence"])};
  recall {_share(fair["recall"])}.
- Where fewer homes have it, more of the finds are wrong. The same error rates make a precision of
  {elsewhere}.
  For another threshold fit with `--prevalence`, or derive it from homes of your own: `enrich-train evaluate --rethreshold`.
{_backing(head)}
{_false(head, false)}
- Average precision of homes by their highest photo: {homes["average_precision"]}.
- `{head.name}_confidence`: {_pooling(rule.method, rule.k)}, then slope {rule.slope:.3f} and intercept {rule.intercept:.3f}, fitted at prevalence {true["prevalence"]}.
  Cross-fitted log loss of what was tried: {", ".join(f"{name} {loss}" for name, loss in metrics["aggregation_log_loss"].items())}.

Simulated listings ({simulated["listings"]} of each size, a share of {simulated["prevalence"]} with it, 1 to 3 of their photos showing it; from held-out photos):

{_simulated(simulated)}

Behind them are {simulated["positive_homes"]["of"]} homes with it, found: {_share(simulated["positive_homes"])}; and photos that do not show it of {simulated["negative_homes_over"]["of"]} homes,
with one over the threshold: {_share(simulated["negative_homes_over"])}.

Held-out photos at that threshold:

{table(["collection", "photos", "with", "average precision", "found of those with", "wrongly of those without"], photo_rows)}
"""


def _backing(head: Head) -> str:
    homes = head.backing_homes
    if head.precision_basis == "homes":
        return f"- {homes} held-out homes that came out as *yes* back the precision."
    return (
        f"- **Simulated**: only {homes} held-out homes came out as *yes*. Precision {head.precision_target} is an estimate: {MIN_BACKING} such\n"
        "  homes, none of them wrong, would confirm it."
    )


def _simulated(figures: dict[str, Any]) -> str:
    rows = [
        [size, *(_number(one[key]) for key in ("precision", "recall", "negative_precision"))]
        for size, one in figures["by_photos"].items()
    ]
    return table(["photos", "precision of true", "recall", "precision of false"], rows)


def _false(head: Head, false: dict[str, Any]) -> str:
    if head.false_threshold == 0.0 or "cross_fitted" not in false:
        return "- It never says *no*: no threshold for **false** was good enough."
    fair = false["cross_fitted"]
    return (
        f"- **false** where all photos stay below {head.false_threshold:.4f}, chosen on {false['homes']} homes of "
        f"{false['photos']} photos or more for a negative\n  predictive value ≥ {false['target']}. Cross-fitted: "
        f"{_share(fair['negative_precision'])}, at the expected prevalence {_number(fair['negative_precision_at_prevalence'])}."
    )


def _pooling(method: str, k: int) -> str:
    return {"max": "the highest photo", "topk_mean": f"the mean of the {k} highest photos"}.get(
        method, "one minus the chance that no photo shows it"
    )


def _classes(head: Head) -> str:
    metrics = head.metrics
    rows = [
        [
            kind.name,
            "yes" if kind.publish else "no",
            f"{kind.threshold:.3f}",
            _share(metrics["classes"][kind.name]["precision"]),
            _share(metrics["classes"][kind.name]["recall"]),
        ]
        for kind in head.classes
    ]
    accuracy = [[name, _share(share)] for name, share in metrics["accuracy"].items()]
    names = [kind.name for kind in head.classes]
    confusion = [[name, *row] for name, row in zip(names, metrics["confusion"], strict=True)]
    return f"""## {head.name}

On {metrics["photos"]["photos"]} held-out photos of {metrics["photos"]["homes"]} homes. A class is given where it is the most probable one and
reaches its threshold: the lowest with a precision of photos ≥ {metrics["photos"]["target"]}, chosen on these photos. A class that
cannot reach it is not published; nor are those that are no answer to a buyer.

{table(["class", "published", "threshold", "precision", "recall"], rows)}

Accuracy of the most probable class, held out:

{table(["collection", "accuracy"], accuracy)}

Truth in rows, most probable class in columns:

{table(["", *names], confusion)}
"""


def _listing(training: dict[str, Any]) -> str:
    figures = training["listing_split"]
    if not figures:
        return ""
    lines = []
    for name, figure in figures.items():
        if not isinstance(figure, dict):
            continue
        if "with" in figure:
            outcomes = "; ".join(
                f"{figure[truth]['true']} true, {figure[truth]['unknown']} unknown, {figure[truth]['false']} false of the "
                f"{sum(figure[truth].values())} {truth} it"
                for truth in ("with", "without")
            )
            lines.append(f"- `{name}`: {outcomes}.")
        else:
            found = ", ".join(f"{kind} {f['found']} of {f['homes']}" for kind, f in figure.items())
            lines.append(f"- `{name}`, found of the homes that have such a photo: {found}.")
    return f"""## Whole runs on homes never trained on

The {figures["homes"]} homes of split `listing` ({figures["photos"]} photos), through decoding, scoring and aggregation as in a nightly run:

{chr(10).join(lines)}
"""


def arithmetics_section(bundle: Bundle) -> str:
    """Every arithmetic of the bundle beside fp32; empty where there is only fp32."""
    rows = []
    for member in bundle.members:
        for head in member.heads:
            faster = {
                name: one.figures.heads[head.name]
                for name, one in member.variants.items()
                if one.figures is not None and head.name in one.figures.heads
            }
            if faster:
                exact = next(iter(faster.values())).fp32
                rows.append([head.name, "fp32", *_measured(exact), "–"])
            rows += [
                [head.name, name, *_measured(one.here), f"{one.drift.max:.3f} / {one.drift.p999:.3f}"]
                for name, one in faster.items()
            ]
    if not rows:
        return ""
    header = [
        "head",
        "arithmetic",
        "average precision of photos",
        "precision of homes",
        "recall of homes",
        "drift",
    ]
    names = [name for name in bundle.arithmetics if name != "fp32"]
    taken = ", ".join(f"`{name}`: {bundle.flaw(name) or 'yes'}" for name in names)
    return f"""## Arithmetics

Each has temperatures and thresholds of its own, fitted on what it says of held-out homes. Average precision is of photos (`room`: the
mean over the published classes). Homes are counted with thresholds that were chosen without them. Drift is by how much the
probabilities of a photo differ from fp32's: at most, and at the 99.9th percentile.

{table(header, rows)}

Whether precision `auto` may take it: {taken}.
"""


def _measured(figures: Measured) -> list[str]:
    counts = [
        "–" if one is None else f"{one.hits} of {one.of}" for one in (figures.precision, figures.recall)
    ]
    return [f"{figures.average_precision:.3f}", *counts]


LIMITS = """## Known failures

- A small object counts for little in features averaged over the whole photo: balconies on a façade seen from afar, and
  balconies seen through a door, are mostly missed. What is missed is *unknown*, not *false*.
- Decks and patios at ground level, porches and views through large windows look like balconies: what tells them apart, how
  high above the ground they are, is often not in the picture. One site's house on a meadow makes most of the highest false
  alarms. Range hoods, dark openings, niches, an oil lamp or an outdoor fire look like fireplaces; stoves at the edge of a
  picture are missed. The tables above count them.
- The safety-net photos all show a net and the catalogue fireplaces a studio: the figures of `web_safetynets` and
  `web_catalog` say nothing about homes.
- Labels were made by looking and hold 1 to 3 % errors, most of them in balconies seen small.
- The thresholds hold for homes like those above: the photo counts, prevalence and kinds of site stated there. More photos
  per home mean more chances for a false `true`.

## Not to be used for

- Prices, insurance, safety or any decision about a person or a home without someone looking at the evidence photo.
- Photos other than those of homes, and production without retraining on photos that you may use.
"""


def _share(share: dict[str, Any]) -> str:
    if not share["of"]:
        return "none predicted"
    return f"{_number(share['value'])} ({share['hits']} of {share['of']}) [{share['low']:.2f}, {share['high']:.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
