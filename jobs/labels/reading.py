"""`enrich labels import`: what people answered in Label Studio or in a table, as labels of photos."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enrich.atomic import reading
from enrich.errors import UsageError
from enrich.model.head import Head
from enrich.source.urls import strip_url, url_key
from enrich.state.labels import Label, Labels
from jobs.labels.label_studio import labels_of
from jobs.run.services import Records
from jobs.tables import read_table

ANSWERS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
NAMED = ("sha256", "url", "listing_id")
"""The columns of which a table has one, to say which photo a row is about; `position` beside the last."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import recorded."""

    labels: int
    changed: int
    """Of them: those that were not known yet, or otherwise."""
    unknown: int
    """Labels of photos that no listing here has shown, which are left out."""


def import_labels(records: Records, path: Path, by: str | None) -> Imported:
    """Record the labels of a JSON export of Label Studio (`.json`) or of a CSV file.

    `by`: who said it, where the file does not say so itself.

    Raises:
        UsageError: the file cannot be read, or has no label of a head of the bundle.
    """
    labels = Labels(records.database)
    heads = records.bundle.heads
    with reading(str(path)):
        text = path.read_text(encoding="utf-8-sig")
    read = _tasks(text, path, heads) if path.suffix == ".json" else _table(text, path, records, labels)
    if not read:
        names = ", ".join(head.name for head in heads)
        raise UsageError(f"{path} has no label for a head of the bundle; its heads are {names}")
    known = labels.known(sorted({label.sha256 for label in read}))
    found = [replace(label, by=label.by or by) for label in read if label.sha256 in known]
    return Imported(len(found), labels.put(found, newer=True), len(read) - len(found))


def _tasks(text: str, path: Path, heads: Sequence[Head]) -> list[Label]:
    try:
        return list(labels_of(json.loads(text), heads))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{path} is not Label Studio's JSON export of tasks that `enrich labels export` made: export the "
            "project there as JSON (not JSON-MIN)"
        ) from None


def _table(text: str, path: Path, records: Records, labels: Labels) -> list[Label]:
    columns, found = read_table(text, str(path))
    named = next((name for name in NAMED if name in columns), None)
    if named is None or (named == "listing_id" and "position" not in columns):
        raise UsageError(
            f"{path} does not say which photos it is about: it needs a column sha256, url, or listing_id and "
            f"position; it has {', '.join(columns) or 'none'}"
        )
    shas = _photos(found, named, path, records, labels)
    heads = [head for head in records.bundle.heads if head.name in columns]
    return [
        Label(sha, head.name, value, row.get("by") or None)
        for (number, row), sha in zip(found, shas, strict=True)
        for head in heads
        if (value := _value(row[head.name] or "", head, f"{path}, line {number}")) is not None
    ]


def _photos(
    rows: Sequence[tuple[int, Mapping[str, str | None]]],
    named: str,
    path: Path,
    records: Records,
    labels: Labels,
) -> list[str]:
    """The sha256 of the photo of each row; "" where no such photo is known."""
    if named == "sha256":
        return [(row[named] or "").strip().lower() for _, row in rows]
    if named == "url":
        ignored = records.settings.url_ignore_params
        keys = [url_key(strip_url((row[named] or "").strip(), ignored)) for _, row in rows]
        by_key = labels.by_key(sorted(set(keys)))
        return [by_key.get(key, "") for key in keys]
    places: list[tuple[str, int]] = []
    for number, row in rows:
        position = (row["position"] or "").strip()
        if not re.fullmatch(r"-?\d{1,10}", position):
            raise UsageError(f"{path}, line {number}: position {position!r} is not a whole number")
        places.append((records.source.spelled(row["listing_id"] or ""), int(position)))
    by_place = labels.by_place(sorted({id for id, _ in places}))
    found: list[str] = []
    for (number, _), place in zip(rows, places, strict=True):
        shas = by_place.get(place, set())
        if len(shas) > 1:
            raise UsageError(
                f"{path}, line {number}: {len(shas)} photos of {place[0]} share position {place[1]}: name "
                "the one meant by its url or sha256"
            )
        found.append(next(iter(shas), ""))
    return found


def _value(text: str, head: Head, where: str) -> Any:
    """A cell as a label; None where it is empty."""
    text = text.strip()
    if not text:
        return None
    if head.rules.is_yes_or_no:
        if text.lower() not in ANSWERS:
            raise UsageError(f"{where}: {head.name} is {text!r}; write 1, 0, or nothing for not looked at")
        return ANSWERS[text.lower()]
    known = [one.name for one in head.classes]
    if text not in known:
        raise UsageError(f"{where}: {head.name} is {text!r}; known are {', '.join(known)}, or nothing")
    return text
