"""Yes-or-no heads: `has_X` and `X_confidence`."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from enrich.errors import UsageError
from enrich.model.head import Aggregation, Head
from enrich.model.kind import SIGNS, WORDS, Answer, Condition, Floats, Overridable, Overruled
from enrich.model.seen import Seen
from enrich.records import Evidence

_TRUTH: dict[str, bool | None] = {word: value for value, word in WORDS.items()}


class Binary(Overridable, word="binary"):
    """True when one photo reaches the `true` threshold; false when enough views were seen, nearly all of the
    listing's photos could be read and all stay below the `false` threshold; otherwise unknown.
    """

    is_yes_or_no = True
    field = "has_{}"

    def outputs(self, head: Head) -> int:
        return 1

    def problems(self, head: Head, thresholds: set[str]) -> Iterator[str]:
        if thresholds - {"true_at"} != {"true", "false"}:
            yield f"head {head.name!r} is binary: give it the thresholds 'true' and 'false', and no others"
        if head.classes:
            yield f"head {head.name!r} is binary but has classes; leave them out"
        for target in head.true_at:
            if not re.fullmatch(r"0\.\d{1,6}|1", target):
                yield f"head {head.name!r}: true_at names precisions such as '0.9', not {target!r}"
        if head.false_threshold > head.true_threshold:
            yield f"head {head.name!r}: threshold false is above true; swap them"

    def chances(self, scaled: Floats) -> Floats:
        return np.asarray(np.exp(-np.logaddexp(0.0, -scaled)))

    def answer(self, head: Head, logits: Floats, seen: Seen) -> Answer:
        fields: dict[str, Any] = dict.fromkeys(self.fields(head.name))
        if not seen.photos:
            return Answer(fields)
        field, confidence = fields
        by_photo = head.probabilities(logits)[:, 0]
        best = int(by_photo.argmax())
        per_view = np.full(max(seen.views) + 1, -np.inf)
        np.maximum.at(per_view, list(seen.views), logits[:, 0] / head.temperature)
        fields[confidence] = round(listing_probability(head.aggregation, per_view), 4)
        fields[field] = self._says(head, by_photo[best], seen)
        if not fields[field]:
            return Answer(fields)
        photo = seen.photos[best].photo
        return Answer(fields, Evidence(photo.shown_url, photo.position, round(float(by_photo[best]), 4)))

    def _says(self, head: Head, highest: float, seen: Seen) -> bool | None:
        if highest >= head.true_threshold:
            return True
        enough = seen.view_count >= seen.min_photos_false and seen.nearly_all
        return False if enough and highest < head.false_threshold else None

    def fields(self, name: str) -> dict[str, str]:
        return {f"has_{name}": "boolean", f"{name}_confidence": "float"}

    def columns(self, name: str) -> dict[str, str]:
        return {f"has_{name}": "boolean", f"{name}_confidence": "double precision"}

    def condition(self, head: Head, value: str | None) -> Condition:
        return Condition(f"has_{head.name}", True)

    def ranked_by(self, name: str) -> str | None:
        return f"{name}_confidence"

    def turns(self, head: Head) -> tuple[float, ...]:
        """Thresholds are on a photo's probability; these are of listings of which one photo reaches them."""
        marks = dict.fromkeys((head.true_threshold, head.false_threshold))
        return tuple(
            round(listing_probability(head.aggregation, np.array([math.log(mark / (1 - mark))])), 4)
            for mark in marks
            if 0 < mark < 1
        )

    def shown(self, name: str, document: Mapping[str, Any]) -> str:
        sign, confidence = SIGNS[document.get(f"has_{name}")], document.get(f"{name}_confidence")
        return sign if confidence is None else f"{sign} {confidence:.2f}"

    def plain(self, head: Head, chances: Floats) -> float:
        return float(chances[0])

    def photo_shown(self, head: Head, plain: float) -> tuple[str, bool]:
        return f"{plain:.3f}", plain >= head.true_threshold

    def why(self, head: Head, logits: Floats, seen: Seen) -> str:
        highest = float(head.probabilities(logits).max())
        says = self._says(head, highest, seen)
        chance, true, false = _apart(highest, head.true_threshold, head.false_threshold)
        yes, no = f"yes from {true}", f"no below {false}"
        if says is not None:
            return f"{chance}, {yes if says else no}"
        if head.false_threshold == 0.0:
            return f"{chance}, {yes}; this model never says no"
        if highest >= head.false_threshold:
            return f"{chance}, between the thresholds: {yes}, {no}"
        if seen.view_count < seen.min_photos_false:
            few = f"too few photos seen: {seen.view_count} of the {seen.min_photos_false} that no takes"
        else:
            few = f"only {len(seen.photos)} of {seen.total} photos could be seen, and no takes nine tenths"
        return f"{chance}, {no}, but {few}"

    def read_override(self, head: Head, text: str) -> bool | None:
        if text not in _TRUTH:
            raise UsageError(f"has_{head.name}={text}: write true, false or unknown")
        return _TRUTH[text]

    def check_override(self, name: str, value: Any) -> bool | None:
        if value is None or isinstance(value, bool):
            return value
        raise UsageError(f"has_{name} is true, false or unknown, not {value!r}")

    def overrule(self, name: str, value: Any, model: Mapping[str, Any]) -> Overruled:
        """A person is sure: what they say is the confidence, too. The model's is kept as evidence."""
        confidence = model.get(f"{name}_confidence")
        evidence = {} if confidence is None else {"model_confidence": confidence}
        sure = None if value is None else float(value)
        return {f"has_{name}": value, f"{name}_confidence": sure}, evidence


def listing_probability(rule: Aggregation, logits: Floats) -> float:
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


def _apart(*chances: float) -> list[str]:
    """The chances with the fewest digits, two at least, at which different ones look different."""
    for digits in range(2, 18):
        texts = [f"{chance:.{digits}f}" for chance in chances]
        if len(set(texts)) == len(set(chances)):
            break
    return texts
