"""Aggregate: from the scores of a listing's photos to its attributes; each head's kind has the rule."""

from collections.abc import Sequence

import numpy as np

from enrich.model.bundle import Bundle, Member
from enrich.model.head import Head
from enrich.model.kind import Floats
from enrich.model.seen import Seen, seen_of
from enrich.records import Attributes, PhotoResult


def aggregate(bundle: Bundle, results: Sequence[PhotoResult], min_photos_false: int) -> Attributes:
    """Attributes of one listing from the results of all of its photos.

    `results` holds one entry per image row, seen or failed. Confidences are rounded to four digits, so that
    the noise of another batch does not make another document.
    """
    seen = seen_of(results, min_photos_false)
    answers = {
        head.name: head.rules.answer(head, logits_of(member, head, seen), seen)
        for member in bundle.members
        for head in member.heads
    }
    return Attributes(
        {name: value for answer in answers.values() for name, value in answer.fields.items()},
        {name: answer.evidence for name, answer in answers.items() if answer.evidence},
        {name: counts for answer in answers.values() for name, counts in answer.counts.items()},
        len(results),
        len(seen.photos),
        len(results) - len(seen.photos),
    )


def logits_of(member: Member, head: Head, seen: Seen) -> Floats:
    """The head's logits [photos seen, outputs] by the model that it belongs to, before temperature."""
    rows = [r.score.by_model[member.model_id][head.name] for r in seen.photos if r.score is not None]
    return np.array(rows, dtype=np.float64).reshape(len(rows), head.outputs)
