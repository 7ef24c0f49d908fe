"""Aggregate: from the scores of a listing's photos to its attributes.

Near-duplicate photos (the same bytes, or difference hashes at most `NEAR_DUPLICATE_BITS` apart) form one
*view* and count once, with the highest logit of their photos. A binary head is true when one photo reaches
its `true` threshold; false when enough views were seen, nearly all of the listing's photos could be read and
all stay below its `false` threshold; otherwise unknown. A class of a multiclass head is present when a view's
most probable class is it, at or above the class's threshold.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from enrich.model.bundle import Aggregation, Bundle, Head, probabilities
from enrich.records import Attributes, Evidence, PhotoResult

NEAR_DUPLICATE_BITS = 4
SEEN_SHARE_FALSE = 0.9  # of the listing's photos that must have been seen before an attribute may be false


def aggregate(bundle: Bundle, results: Sequence[PhotoResult], min_photos_false: int) -> Attributes:
    """Attributes of one listing from the results of all of its photos.

    `results` holds one entry per image row, seen or failed. Confidences are rounded to four digits, so that
    the noise of another batch does not make another document.
    """
    seen = sorted((r for r in results if r.score is not None), key=lambda r: (r.photo.position, r.photo.key))
    views = distinct_views([r.score.dhash for r in seen if r.score is not None])
    fields: dict[str, object] = {}
    evidence: dict[str, Evidence] = {}
    counts: dict[str, dict[str, int]] = {}
    may_be_false = len(set(views)) >= min_photos_false and len(seen) >= SEEN_SHARE_FALSE * len(results)
    for member in bundle.members:
        for head in member.heads:
            logits = np.array(
                [r.score.by_model[member.model_id][head.name] for r in seen if r.score is not None]
            )
            if head.kind == "binary":
                _binary(head, logits.reshape(-1), views, seen, may_be_false, fields, evidence)
            else:
                types, counts[f"{head.name}_counts"] = _multiclass(head, logits, views)
                fields[f"{head.name}_types"] = types if seen else None
    return Attributes(fields, evidence, counts, len(results), len(seen), len(results) - len(seen))


def distinct_views(hashes: Sequence[int]) -> list[int]:
    """For each 64-bit hash, the number of its view: that of the first one within `NEAR_DUPLICATE_BITS`."""
    bits = np.array(hashes, dtype=np.int64).view(np.uint64)
    first: list[int] = []
    views: list[int] = []
    for value in bits:
        distances = np.bitwise_count(bits[first] ^ value)
        near = np.flatnonzero(distances <= NEAR_DUPLICATE_BITS)
        if near.size:
            views.append(int(near[0]))
        else:
            views.append(len(first))
            first.append(len(views) - 1)
    return views


def _binary(
    head: Head,
    logits: NDArray[np.float64],
    views: Sequence[int],
    seen: Sequence[PhotoResult],
    may_be_false: bool,
    fields: dict[str, object],
    evidence: dict[str, Evidence],
) -> None:
    has, confidence = f"has_{head.name}", f"{head.name}_confidence"
    fields[has], fields[confidence] = None, None
    if not seen:
        return
    by_photo = np.array([probabilities(head, [logit])[0] for logit in logits])
    best = int(by_photo.argmax())
    per_view = np.full(max(views) + 1, -np.inf)
    np.maximum.at(per_view, views, logits / head.temperature)
    fields[confidence] = round(listing_probability(head.aggregation, per_view), 4)
    if by_photo[best] >= head.true_threshold:
        fields[has] = True
        photo = seen[best].photo
        evidence[head.name] = Evidence(photo.shown_url, photo.position, round(float(by_photo[best]), 4))
    elif may_be_false and by_photo[best] < head.false_threshold:
        fields[has] = False


def listing_probability(rule: Aggregation, logits: NDArray[np.float64]) -> float:
    """Calibrated probability that a listing has the attribute, from its views' logits (after temperature).

    The views are pooled (max; mean of the k highest; noisy-or, after Pearl 1988: one minus the product of the
    views' complements) and the pooled logit passes the listing-level Platt scaling of the bundle.
    """
    if rule.method == "max":
        pooled = float(logits.max())
    elif rule.method == "topk_mean":
        pooled = float(np.sort(logits)[-rule.k :].mean())
    else:
        log_none = float(-np.logaddexp(0.0, logits).sum())  # log of the product of the complements
        pooled = math.log(max(-math.expm1(log_none), 1e-12)) - log_none
    scaled = rule.slope * pooled + rule.intercept
    return float(1.0 / (1.0 + math.exp(-min(max(scaled, -60.0), 60.0))))


def _multiclass(
    head: Head, logits: NDArray[np.float64], views: Sequence[int]
) -> tuple[list[str], dict[str, int]]:
    by_class: dict[str, set[int]] = {}
    for row, view in zip(logits, views, strict=True):
        chances = probabilities(head, row)
        top = int(np.argmax(chances))
        kind = head.classes[top]
        if kind.publish and chances[top] >= kind.threshold:
            by_class.setdefault(kind.name, set()).add(view)
    return sorted(by_class), {name: len(found) for name, found in sorted(by_class.items())}
