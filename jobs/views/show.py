"""`enrich show ID`: everything needed to see why a listing has the values it has."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from enrich.model.aggregate import logits_of
from enrich.model.bundle import Bundle
from enrich.model.head import Head
from enrich.model.kind import WORDS, Floats
from enrich.model.seen import Seen, seen_of
from enrich.records import Photo, PhotoResult, PhotoScore, PhotoStatus
from enrich.state.history import history
from enrich.state.queue import complete_scores
from enrich.state.summary import ListingDetails, details
from jobs.run.services import Records
from jobs.views import answer, console, table, whole

CHANGES = 20  # of a listing's answers that are told


def explain(services: Records, id: str) -> dict[str, Any]:
    """All that is known of one listing, JSON-ready.

    `photos`: per photo its status and `probabilities` {head: p} or {head: {class: p}}, by the current bundle
    and after its temperature; empty where no score of it is on record. `why`: {head: text}, what the model's
    answers rest on; empty where they are another bundle's. `arithmetic`: that of the bundle whose scores and
    thresholds these are; the one that the listing was made in, where the bundle has it.

    Raises:
        UsageError: no such listing.
    """
    found = details(services.database, id)
    row = found.listing
    bundle = _as_made(services.bundle, row["model_ids"] or ())
    results = _results(services, bundle, found)
    kept = (
        "status", "error", "attempts", "not_before", "pending_since", "worker", "lease_expires",
        "updated_at", "enriched_at", "bundle_id", "revision", "published_revision", "publish_status",
        "publish_error", "columns", "attributes", "model_attributes",
    )  # fmt: skip
    made_with_it = row["bundle_id"] == bundle.bundle_id
    return {
        "id": id,
        **{name: row[name] for name in kept},
        "current_bundle": bundle.bundle_id,
        "arithmetic": bundle.arithmetic,
        "heads": {head.name: head.kind for head in bundle.heads},
        "thresholds": {
            head.name: {"true": head.true_threshold, "false": head.false_threshold}
            for head in bundle.heads
            if head.rules.is_yes_or_no
        },
        "why": (
            _why(bundle, results, services.settings.min_photos_false, row["model_attributes"])
            if made_with_it
            else {}
        ),
        "overrides": [asdict(override) for override in found.overrides],
        "history": [asdict(change) for change in history(services.database, id, CHANGES)],
        "photos": [
            {
                **photo,
                "probabilities": _probabilities(bundle, result.score),
                "next_try": found.photos.get(photo["key"], {}).get("next_try"),
                "failures": result.failures,
            }
            for photo, result in zip(row["photos"], results, strict=True)
        ],
    }


def _as_made(bundle: Bundle, models: Sequence[str]) -> Bundle:
    """The bundle in the arithmetic of these models: a machine with another one may have made the listing."""
    found = (
        one for one in bundle.in_all_arithmetics if {member.model_id for member in one.members} >= set(models)
    )
    return next(found, bundle)


def _results(services: Records, bundle: Bundle, found: ListingDetails) -> list[PhotoResult]:
    """The listing's photos as they were aggregated, with their scores by the bundle."""
    models = [member.model_id for member in bundle.members]
    results = []
    for photo in found.listing["photos"]:
        known = found.photos.get(photo["key"], {})
        shown = Photo(photo["position"], photo["url"], photo["key"], photo["url"], photo["version"])
        failures = known.get("failures", 0)
        result = PhotoResult(shown, PhotoStatus(photo["status"]), photo["sha256"], failures=failures)
        # While a failure may pass, the scores of earlier bytes stand in.
        results.append(replace(result, sha256=known.get("sha256")) if result.transient else result)
    scores = complete_scores(services.queue, sorted({r.sha256 for r in results if r.sha256}), models)
    return [replace(result, score=scores.get(result.sha256 or "")) for result in results]


def _why(
    bundle: Bundle, results: Sequence[PhotoResult], min_photos_false: int, kept: Mapping[str, Any]
) -> dict[str, str]:
    seen = seen_of(results, min_photos_false)
    return {
        head.name: _because(head, logits_of(member, head, seen), seen, kept)
        for member in bundle.members
        for head in member.heads
    }


def _because(head: Head, logits: Floats, seen: Seen, kept: Mapping[str, Any]) -> str:
    """What the answer rests on; of the same photos, only another setting says no where this one does not."""
    because = head.rules.explained(head, logits, seen)
    if head.rules.is_yes_or_no and kept["photos_seen"] == len(seen.photos):
        field = head.rules.answer_field(head.name)
        answers = {
            found.get(field) for found in (kept["fields"], head.rules.answer(head, logits, seen).fields)
        }
        if answers == {False, None}:
            because += " (the answer kept is of another ENRICH_MIN_PHOTOS_FALSE; enrich backfill renews it)"
    return because


def _probabilities(bundle: Bundle, score: PhotoScore | None) -> dict[str, Any]:
    if score is None:
        return {}
    return {
        head.name: head.rules.plain(head, head.probabilities(score.by_model[member.model_id][head.name]))
        for member in bundle.members
        for head in member.heads
    }


def show_listing(listing: Mapping[str, Any], heads: Sequence[Head]) -> None:
    """Print an explained listing for people; `heads` are those of the bundle that explained it."""
    out = console()
    out.print(f"[bold]{escape(listing['id'])}[/]  {_standing(listing)}")
    if listing["error"]:
        out.print(f"  {escape(listing['error'])}")
    out.print(_publication(listing))
    enriched = listing["attributes"] is not None
    out.print(_attributes(listing, heads) if enriched else "Not enriched yet.")
    for override in listing["overrides"]:
        note = f": {override['note']}" if override["note"] else ""
        who = f"{override['by'] or 'someone'}, {override['at']:%Y-%m-%d %H:%M}"
        out.print(f"  {override['field']} was set to {told(override['value'])} by {escape(who + note)}")
    if not enriched:
        return
    out.print(_photos(listing, heads))
    if listing["history"]:
        out.print(_history(listing["history"]))


def _standing(listing: Mapping[str, Any]) -> str:
    parts = [listing["status"]]
    if listing["not_before"]:
        parts.append(f"next try {listing['not_before']:%Y-%m-%d %H:%M} UTC")
    if listing["worker"]:
        dead = listing["lease_expires"] <= datetime.now(UTC)
        parts.append(f"{'left by' if dead else 'in the hands of'} {escape(listing['worker'])}")
    if listing["attempts"]:
        parts.append(f"{listing['attempts']} attempts")
    return ", ".join(parts)


def _publication(listing: Mapping[str, Any]) -> str:
    revision, published = listing["revision"], listing["published_revision"]
    if revision is None:
        return "nothing to publish yet"
    state = "published"
    if revision != published:
        waits = {"awaiting": "awaits the portal's document", "refused": "refused by the index"}
        state = f"not published ({waits.get(listing['publish_status'], 'waits for the next publish')})"
    if listing["publish_error"]:
        state += f": {escape(listing['publish_error'])}"
    bundle = listing["bundle_id"] or "-"
    stale = "" if bundle == listing["current_bundle"] else " (not the current one)"
    return f"revision {revision} {state}; made with bundle {bundle[:12]}{stale}"


def _attributes(listing: Mapping[str, Any], heads: Sequence[Head]) -> Table:
    """One row per head: what is published, what the model says and why, and the photo that decided."""
    published, model = (flat(listing[name]) for name in ("attributes", "model_attributes"))
    found = listing["model_attributes"]["evidence"]
    overridden = {override["field"] for override in listing["overrides"]}
    shown = table(*whole("attribute", "published", "the model", "because", "decided by"))
    for head in heads:
        kind, name = head.rules, head.name
        field = kind.answer_field(name)
        decided = f"photo {found[name]['position']}: {escape(found[name]['url'])}" if name in found else "-"
        if field in overridden:
            decided = f"a person; the model: {decided}"
        says = (answer(kind, name, document) for document in (published, model))
        shown.add_row(field, *says, escape(listing["why"].get(name, "made with another bundle")), decided)
    attributes = listing["attributes"]
    shown.caption = (
        f"{attributes['photos_seen']} of {attributes['photo_count']} photos seen, "
        f"{attributes['photos_failed']} failed"
    )
    return shown


def flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as a document has them."""
    return {**attributes["fields"], **attributes["counts"]}


def _photos(listing: Mapping[str, Any], heads: Sequence[Head]) -> Table:
    names = [head.name for head in heads]
    shown = table(Column("#", justify="right"), "status", *names, *whole("url"), title="photos")
    for photo in listing["photos"]:
        status = photo["status"]
        if photo["error"]:
            status += f": {photo['error']}"
        if photo["next_try"]:
            status += f" (next try {photo['next_try']:%Y-%m-%d %H:%M} UTC)"
        cells = [_chance(head, photo["probabilities"].get(head.name)) for head in heads]
        shown.add_row(str(photo["position"]), escape(status), *cells, escape(photo["url"]))
    return shown


def _history(changes: Sequence[Mapping[str, Any]]) -> Table:
    columns = whole("since (UTC)", "attribute", "before", "after", "by")
    shown = table(*columns, title="what was published, latest first")
    for one in changes:
        before = "" if one["first"] else told(one["before"])
        after = told(one["after"])
        if one["confidence"] is not None and one["cause"] != "person":
            after += f" {one['confidence']:.2f}"
        since = f"{one['at']:%Y-%m-%d %H:%M}"
        shown.add_row(since, one["field"], *map(escape, (before, after, author(one))))
    return shown


def told(value: Any) -> str:
    """An answer in words: true, false, unknown, or classes."""
    return ", ".join(value) or "-" if isinstance(value, list | tuple) else WORDS[value]


def author(change: Mapping[str, Any]) -> str:
    """Whose answer a change of the history is."""
    who = change["person"] or "someone"
    if change["cause"] == "person":
        return who
    bundle = (change["bundle_id"] or "-")[:12]
    return f"model {bundle}, as {who} took theirs back" if change["cause"] == "cleared" else f"model {bundle}"


def _chance(head: Head, plain: Any) -> str:
    """What a photo says to a head; bold where it is enough for the listing's answer."""
    if plain is None:
        return ""
    text, enough = head.rules.photo_shown(head, plain)
    return f"[bold green]{escape(text)}[/]" if enough else escape(text)
