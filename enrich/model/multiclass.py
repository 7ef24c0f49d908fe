"""Heads of several classes, of which a listing may show any number: `X_types` and `X_counts`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from enrich.errors import UsageError
from enrich.model.head import Head, HeadClass
from enrich.model.kind import SIGNS, Answer, Condition, Floats, Overridable, Overruled
from enrich.model.seen import Seen


class Multiclass(Overridable, word="multiclass"):
    """A class is present when a view's most probable class is it, at or above the class's threshold."""

    field = "{}_types"

    def outputs(self, head: Head) -> int:
        return len(head.classes)

    def problems(self, head: Head, thresholds: set[str]) -> Iterator[str]:
        if thresholds:
            yield f"head {head.name!r} is multiclass: give each class a threshold, and the head none"
        classes = {one.name for one in head.classes}
        if len(classes) < 2 or len(classes) < len(head.classes):
            yield f"head {head.name!r} needs two or more classes, each with a name of its own"

    def chances(self, scaled: Floats) -> Floats:
        weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))

    def answer(self, head: Head, logits: Floats, seen: Seen) -> Answer:
        by_class: dict[str, set[int]] = {}
        chances = head.probabilities(logits)
        highest = zip(chances.argmax(axis=1).tolist(), chances.max(axis=1).tolist(), seen.views, strict=True)
        for top, chance, view in highest:
            if _is_enough(head.classes[top], chance):
                by_class.setdefault(head.classes[top].name, set()).add(view)
        counts = {name: len(views) for name, views in sorted(by_class.items())}
        types = sorted(by_class) if seen.photos else None
        return Answer({f"{head.name}_types": types}, counts={f"{head.name}_counts": counts})

    def fields(self, name: str) -> dict[str, str]:
        return {f"{name}_types": "keyword"}

    def kept(self, name: str) -> tuple[str, ...]:
        return (f"{name}_counts",)

    def columns(self, name: str) -> dict[str, str]:
        return {f"{name}_types": "text[]"}

    def photo_columns(self, name: str) -> dict[str, str]:
        return {f"{name}_type": "text", **super().photo_columns(name)}

    def condition(self, head: Head, value: str | None) -> Condition:
        known = _published(head)
        if value is None or value not in known:
            raise UsageError(f"no {head.name} type {value!r}; there is: {', '.join(sorted(known)) or 'none'}")
        return Condition(f"{head.name}_types", value)

    def title(self, name: str) -> str:
        return f"{name} types"

    def shown(self, name: str, document: Mapping[str, Any]) -> str:
        types, counts = document.get(f"{name}_types"), document.get(f"{name}_counts") or {}
        if types is None:
            return SIGNS[None]
        return ", ".join(f"{one} ×{counts[one]}" if counts.get(one, 1) > 1 else one for one in types) or "-"

    def plain(self, head: Head, chances: Floats) -> dict[str, float]:
        return {one.name: float(p) for one, p in zip(head.classes, chances, strict=True)}

    def photo_shown(self, head: Head, plain: Mapping[str, float]) -> tuple[str, bool]:
        top = max(head.classes, key=lambda one: plain[one.name])
        return f"{top.name} {plain[top.name]:.2f}", _is_enough(top, plain[top.name])

    def why(self, head: Head, logits: Floats, seen: Seen) -> str:
        counts = self.answer(head, logits, seen).counts[f"{head.name}_counts"]
        found = (_rule(one) for one in sorted(head.classes, key=lambda one: one.name) if one.name in counts)
        return "; ".join(found) or "no class reached its threshold"

    def read_override(self, head: Head, text: str) -> tuple[str, ...]:
        given, known = tuple(part.strip() for part in text.split(",") if part.strip()), _published(head)
        for one in given:
            if one not in known:
                raise UsageError(f"{head.name}_types={text}: {one!r} is none of {', '.join(known)}")
        return given

    def check_override(self, name: str, value: Any) -> list[str]:
        if isinstance(value, list | tuple | set | frozenset) and all(isinstance(v, str) for v in value):
            return sorted(set(value))
        raise UsageError(f"{name}_types is a list of classes such as kitchen, bathroom, not {value!r}")

    def overrule(self, name: str, value: Any, model: Mapping[str, Any]) -> Overruled:
        return {f"{name}_types": list(value)}, {}


def _is_enough(top: HeadClass, chance: float) -> bool:
    return top.publish and bool(chance >= top.threshold)


def _rule(one: HeadClass) -> str:
    return f"{one.name} from {one.threshold:.2f}" if one.threshold else f"{one.name} at any probability"


def _published(head: Head) -> list[str]:
    return [one.name for one in head.classes if one.publish]
