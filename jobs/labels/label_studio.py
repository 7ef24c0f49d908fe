"""Label Studio's JSON: tasks with the model's answers as predictions, and the answers of people.

Formats: https://labelstud.io/guide/predictions and https://labelstud.io/guide/export.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from enrich.model.bundle import Bundle
from enrich.model.head import Head
from enrich.records import PhotoScore
from enrich.state.labels import Label, Place

ANSWERS = {True: "yes", False: "no"}
LOCAL = "/data/local-files/?d="
"""Label Studio shows files below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT under this address."""


def interface(heads: Sequence[Head]) -> str:
    """The labelling interface: the photo, and a question per head."""
    lines = ["<View>", '  <Image name="image" value="$image"/>']
    for head in heads:
        lines.append(f"  <Header value={quoteattr(head.name)}/>")
        lines.append(f'  <Choices name={quoteattr(head.name)} toName="image" choice="single">')
        lines += [f"    <Choice value={quoteattr(answer)}/>" for _, answer in _values(head)]
        lines.append("  </Choices>")
    return "\n".join([*lines, "</View>", ""])


def task(bundle: Bundle, score: PhotoScore, place: Place, file: str) -> dict[str, Any]:
    """A photo to be labelled, `file` below the document root, with what the model says of it."""
    results, chances = [], []
    for member in bundle.members:
        for head in member.heads:
            found = head.probabilities(score.by_model[member.model_id][head.name])
            likely = bool(found[0] >= 0.5) if head.rules.is_yes_or_no else int(np.argmax(found))
            answer = ANSWERS[likely] if isinstance(likely, bool) else head.classes[likely].name
            chances.append(float(max(found[0], 1 - found[0]) if head.rules.is_yes_or_no else found.max()))
            shown = {"from_name": head.name, "to_name": "image", "type": "choices"}
            results.append({**shown, "value": {"choices": [answer]}})
    prediction = {"model_version": bundle.bundle_id[:12], "score": round(min(chances), 4), "result": results}
    told = {"listing_id": place.listing, "position": place.position, "sha256": score.sha256}
    return {"data": {"image": LOCAL + file, **told}, "predictions": [prediction]}


def labels_of(tasks: Sequence[Mapping[str, Any]], heads: Sequence[Head]) -> list[Label]:
    """What people answered, the earliest first: the last annotation of each task that was not cancelled.

    Answers to what is no head of the bundle, or no class of it, are left out.
    """
    answers = {head.name: {answer: value for value, answer in _values(head)} for head in heads}
    said = []
    for one in tasks:
        given = [found for found in one["annotations"] if not found.get("was_cancelled")]
        if not given:
            continue
        last = max(given, key=lambda found: str(found.get("updated_at") or found.get("created_at") or ""))
        for result in last["result"]:
            choices = result.get("value", {}).get("choices") or [None]
            known = answers.get(result.get("from_name"), {})
            if choices[0] in known:
                value = known[choices[0]]
                said.append(Label(one["data"]["sha256"], result["from_name"], value, _who(last), _when(last)))
    return sorted(said, key=lambda label: label.at or datetime.now(UTC))


def _values(head: Head) -> Iterator[tuple[bool | str, str]]:
    """What a label may say of the head, each with the answer that people give."""
    if head.rules.is_yes_or_no:
        yield from ANSWERS.items()
    else:
        yield from ((one.name, one.name) for one in head.classes)


def _who(annotation: Mapping[str, Any]) -> str | None:
    who = annotation.get("completed_by")
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id")
    return None if who is None else str(who)


def _when(annotation: Mapping[str, Any]) -> datetime | None:
    told = annotation.get("updated_at") or annotation.get("created_at")
    at = datetime.fromisoformat(told) if told else None
    return at.replace(tzinfo=UTC) if at and at.tzinfo is None else at
