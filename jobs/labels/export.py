"""`enrich labels export`: what people said as a manifest to learn from, or photos for Label Studio to ask of.

Both write the photos beside it, as files named by their sha256. An export into the same folder again fetches
only what is not there yet.
"""

import csv
import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from enrich.atomic import new_file, writing
from enrich.errors import UsageError
from enrich.model.bundle import Bundle
from enrich.model.head import Head
from enrich.model.kind import WORDS
from enrich.records import which_photo
from enrich.state.exporting import scored_most
from enrich.state.labels import Label, Labels, Place, Taught
from enrich.state.overrides import Override
from enrich.state.queue import complete_scores
from jobs.labels.label_studio import interface, task
from jobs.labels.photos import save_photos
from jobs.run.services import Records

PHOTOS = "photos"  # the folder of the files


@dataclass(slots=True)
class Exported:
    """What an export wrote."""

    photos: int
    failures: Counter[str]
    """Why photos that belong to it are not there."""
    unproven: dict[str, list[str]] = field(default_factory=dict)
    """Head -> ids of listings that a person says have it, with no photo known to show it."""


def export_manifest(records: Records, folder: Path) -> Exported:
    """Write `manifest.csv` for `enrich-train fit`: one row per photo that a person's word says something of.

    What people said of a photo comes first, but for one that was said to show X before its listing was said
    to lack it. By `has_X=false`, no photo of the listing shows X; by `has_X=true`, the one does that made the
    model say so, too. Its other photos stay unlabelled, because nobody said which of them shows X.

    Raises:
        UsageError: the folder cannot be written to, or nothing that people said is about a photo.
    """
    rows, unproven = _rows(records)
    if not rows:
        raise UsageError(
            "there is nothing to export: no word of a person says what a photo shows. Override attributes "
            "(`enrich override`; has_X=true that the model did not see needs --photo POSITION), or label "
            "photos (`enrich labels import`)"
        )
    _usable(folder)
    spoken_of = {sha: place for sha, (place, _) in rows.items()}
    labels = Labels(records.database)
    sold = labels.sold({place.listing for place in spoken_of.values()})
    elsewhere = labels.places([sha for sha, place in spoken_of.items() if place.listing in sold])
    places = spoken_of | elsewhere
    saved = save_photos(records.settings, records.source, places, folder / PHOTOS)
    heads = [head.name for head in records.bundle.heads]
    told = [column for head in records.bundle.heads for column in _told(head)]
    columns = ["path", "group", "split", *heads, "position", "url", *told]
    with (
        writing(str(folder / "manifest.csv")),
        new_file(folder / "manifest.csv") as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for sha, (place, said) in rows.items():
            if name := saved.names.get(sha):
                fixed = {"path": f"{PHOTOS}/{name}", "group": place.listing, "split": "train"}
                writer.writerow(fixed | {"position": place.position} | said)
    return Exported(len(saved.names), saved.failures, unproven)


def export_tasks(records: Records, folder: Path, photos: int) -> Exported:
    """Write `tasks.json` and `labelling.xml` for Label Studio: photos that nobody labelled, with the model's
    answers.

    Half of the `photos` are those whose answer is least sure, in turns of the yes-or-no heads; half are drawn
    at random.

    Raises:
        UsageError: the folder cannot be written to, or no photo is scored by the current bundle.
    """
    labels = Labels(records.database)
    bundle = _as_scored(records)
    models = [member.model_id for member in bundle.members]
    places = labels.places(_chosen(bundle, labels, photos))
    if not places:
        raise UsageError(
            "no photo of a listing was scored by the current bundle and not labelled yet: `enrich run` first"
        )
    _usable(folder)
    saved = save_photos(records.settings, records.source, places, folder / PHOTOS)
    scores = complete_scores(records.queue, sorted(saved.names), models)
    tasks = [
        task(bundle, scores[sha], places[sha], f"{folder.resolve().name}/{PHOTOS}/{name}")
        for sha, name in sorted(saved.names.items())
        if sha in scores
    ]
    written = {
        "tasks.json": json.dumps(tasks, indent=1, ensure_ascii=False),
        "labelling.xml": interface(records.bundle.heads),
    }
    for name, content in written.items():
        with writing(str(folder / name)), new_file(folder / name) as part:
            part.write_text(content, encoding="utf-8")
    return Exported(len(tasks), saved.failures)


def _as_scored(records: Records) -> Bundle:
    """The bundle in the arithmetic in which most photos were scored: this machine may have another one."""
    made = {one.members[0].model_id: one for one in records.bundle.in_all_arithmetics}
    return made[scored_most(records.database, list(made))]


def _usable(folder: Path) -> None:
    with writing(str(folder)):
        (folder / PHOTOS).mkdir(parents=True, exist_ok=True)


def _rows(records: Records) -> tuple[dict[str, tuple[Place, dict[str, Any]]], dict[str, list[str]]]:
    """sha256 -> where it is shown, and the cells of its row; and head -> listings that no photo proves.

    A photo that several listings show belongs to the first one of which somebody said something; what was
    said of the others counts as well, where nothing was said of that one.
    """
    labels, unproven = Labels(records.database), dict[str, list[str]]()
    rows: dict[str, tuple[Place, dict[str, Any]]] = {}
    after = ""
    while page := labels.taught(after):
        after = page[-1].id
        given = labels.of(sorted({photo["sha256"] for listing in page for photo in listing.photos}))
        words = records.overrides.of([listing.id for listing in page])
        for listing in page:
            said = {override.field: override for override in words.get(listing.id, ())}
            for photo in listing.photos:
                cells = _cells(records.bundle.heads, listing, photo, said, given.get(photo["sha256"], {}))
                if any(cells[head.name] != "" for head in records.bundle.heads):
                    place = Place(listing.id, photo["key"], photo["position"])
                    _, known = rows.setdefault(photo["sha256"], (place, cells))
                    _add(known, cells, records.bundle.heads)
            for head in records.bundle.heads:
                shown = (rows[p["sha256"]][1][head.name] for p in listing.photos if p["sha256"] in rows)
                word = said.get(f"has_{head.name}")
                if word and word.value is True and 1 not in shown:
                    unproven.setdefault(head.name, []).append(listing.id)
    return rows, unproven


def _add(known: dict[str, Any], cells: Mapping[str, Any], heads: Sequence[Head]) -> None:
    for head in heads:
        if known[head.name] == "":
            known.update({name: cells[name] for name in (head.name, *_told(head))})


def _told(head: Head) -> list[str]:
    """The columns that say what was said of a head."""
    return [f"{who}_{head.name}" for who in ("person", "model")]


def _cells(
    heads: Sequence[Head],
    listing: Taught,
    photo: Mapping[str, Any],
    said: Mapping[str, Override],
    labels: Mapping[str, Label],
) -> dict[str, Any]:
    cells: dict[str, Any] = {"url": photo["url"]}
    answers = listing.answers.get(which_photo(photo), {})
    for head in heads:
        word, label = said.get(head.rules.answer_field(head.name)), labels.get(head.name)
        if label and word and _taken_back(label, word):
            label = None
        value = label.value if label else _learnt(head, listing, photo, word.value if word else None)
        cells[head.name] = int(value) if isinstance(value, bool) else value
        cells[f"person_{head.name}"] = _text(word.value) if word else ""
        chance = answers.get(f"{head.name}_probability")
        kind = answers.get(f"{head.name}_type")
        cells[f"model_{head.name}"] = " ".join(
            str(part) for part in (kind, None if chance is None else round(chance, 4)) if part is not None
        )
    return cells


def _taken_back(label: Label, word: Override) -> bool:
    """Whether a photo was said to show what its listing was said to lack since."""
    return label.value is True and word.value is False and label.at is not None and word.at > label.at


def _learnt(head: Head, listing: Taught, photo: Mapping[str, Any], said: Any) -> bool | str:
    """What a photo shows by what a person said of its listing; "" where that says nothing of it."""
    if not head.rules.is_yes_or_no or not isinstance(said, bool):
        return ""
    if said is False:
        return False
    found = listing.model["evidence"].get(head.name)
    sure = listing.model["fields"].get(head.rules.answer_field(head.name)) is True
    decided = found and which_photo(found) == which_photo(photo)
    return True if sure and decided else ""


def _text(said: Any) -> str:
    return " ".join(said) if isinstance(said, tuple) else WORDS[said]


def _chosen(bundle: Bundle, labels: Labels, photos: int) -> list[str]:
    """The photos that are worth a look, each once."""
    asked = [
        (member.model_id, head.name)
        for member in bundle.members
        for head in member.heads
        if head.rules.is_yes_or_no
    ]
    doubtful = [labels.doubtful(model, head, photos) for model, head in asked]
    turns = (sha for turn in zip_longest(*doubtful) for sha in turn if sha is not None)
    chosen = dict.fromkeys(islice(dict.fromkeys(turns), photos // 2 if asked else 0))
    model = bundle.members[0].model_id
    start = secrets.token_hex(32)
    drawn = labels.unlabelled(model, start, photos) + labels.unlabelled(model, "", photos)
    rest = (sha for sha in dict.fromkeys(drawn) if sha not in chosen)
    return [*chosen, *islice(rest, photos - len(chosen))]
