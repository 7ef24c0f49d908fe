"""`enrich show ID`: everything needed to see why a listing has the values it has."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from enrich.model.bundle import Bundle, Head, probabilities
from enrich.records import PhotoScore
from enrich.state.summary import details
from jobs.run.services import Records
from jobs.views import console, mark


def explain(services: Records, id: str) -> dict[str, Any]:
    """All that is known of one listing, JSON-ready.

    `photos`: per photo its status and `probabilities` {head: p} or {head: {class: p}}, by the current bundle
    and after its temperature; empty where no score of it is on record.

    Raises:
        UsageError: no such listing.
    """
    found = details(services.database, id)
    row, bundle = found.listing, services.bundle
    shas = [photo["sha256"] for photo in row["photos"] if photo["sha256"]]
    scores = services.state.scores(shas, [member.model_id for member in bundle.members])
    kept = (
        "status", "error", "attempts", "not_before", "pending_since", "lease_expires", "updated_at",
        "enriched_at", "bundle_id", "revision", "published_revision", "publish_status", "publish_error",
        "columns", "attributes", "model_attributes",
    )  # fmt: skip
    return {
        "id": id,
        **{name: row[name] for name in kept},
        "current_bundle": bundle.bundle_id,
        "heads": {head.name: head.kind for head in bundle.heads},
        "thresholds": {
            head.name: {"true": head.true_threshold, "false": head.false_threshold}
            for head in bundle.heads
            if head.kind == "binary"
        },
        "overrides": [asdict(override) for override in found.overrides],
        "photos": [
            {
                **photo,
                "probabilities": _probabilities(bundle, scores.get(photo["sha256"])),
                "next_try": found.photos.get(photo["key"], {}).get("next_try"),
                "failures": found.photos.get(photo["key"], {}).get("failures", 0),
            }
            for photo in row["photos"]
        ],
    }


def _probabilities(bundle: Bundle, score: PhotoScore | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for member in bundle.members:
        logits = score.by_model.get(member.model_id, {}) if score else {}
        for head in member.heads:
            if head.name in logits:
                found[head.name] = _by_class(head, logits[head.name])
    return found


def _by_class(head: Head, logits: tuple[float, ...]) -> float | dict[str, float]:
    chances = [round(float(chance), 4) for chance in probabilities(head, logits)]
    if head.kind == "binary":
        return chances[0]
    return dict(zip([kind.name for kind in head.classes], chances, strict=True))


def show_listing(listing: Mapping[str, Any]) -> None:
    """Print an explained listing for people."""
    out = console()
    out.print(f"[bold]{escape(listing['id'])}[/]  {_standing(listing)}")
    if listing["error"]:
        out.print(f"  {escape(listing['error'])}")
    out.print(_publication(listing))
    if listing["attributes"] is None:
        out.print("Not enriched yet.")
        return
    out.print(_attributes(listing))
    for override in listing["overrides"]:
        note = f": {override['note']}" if override["note"] else ""
        who = f"{override['by'] or 'someone'}, {override['at']:%Y-%m-%d %H:%M}"
        out.print(f"  {override['field']} was set by {escape(who + note)}")
    out.print(_photos(listing))


def _standing(listing: Mapping[str, Any]) -> str:
    parts = [listing["status"]]
    if listing["not_before"]:
        parts.append(f"next try {listing['not_before']:%Y-%m-%d %H:%M} UTC")
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


def _attributes(listing: Mapping[str, Any]) -> Table:
    """One row per head: what is published, what the model says, and the photo that decided."""
    fields, model = listing["attributes"]["fields"], listing["model_attributes"]["fields"]
    found = listing["model_attributes"]["evidence"]
    overridden = {override["field"] for override in listing["overrides"]}
    table = Table(header_style="bold")
    for title in ("attribute", "published", "the model", "decided by"):
        table.add_column(title, overflow="fold")
    for head, kind in listing["heads"].items():
        field = f"has_{head}" if kind == "binary" else f"{head}_types"
        decided = f"photo {found[head]['position']}: {escape(found[head]['url'])}" if head in found else "-"
        if field in overridden:
            decided = f"a person; the model: {decided}"
        says = mark(model.get(field), model.get(f"{head}_confidence")) if kind == "binary" else None
        table.add_row(field, _value(fields.get(field)), says or _value(model.get(field)), decided)
    attributes = listing["attributes"]
    table.caption = (
        f"{attributes['photos_seen']} of {attributes['photo_count']} photos seen, "
        f"{attributes['photos_failed']} failed"
    )
    return table


def _value(value: Any) -> str:
    if isinstance(value, list):
        return escape(", ".join(value)) or "none"
    return mark(value, None)


def _photos(listing: Mapping[str, Any]) -> Table:
    table = Table(title="photos", title_justify="left", header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("status")
    for head in listing["heads"]:
        table.add_column(head)
    table.add_column("url", overflow="fold")
    for photo in listing["photos"]:
        status = photo["status"]
        if photo["error"]:
            status += f": {photo['error']}"
        if photo["next_try"]:
            status += f" (next try {photo['next_try']:%Y-%m-%d %H:%M} UTC)"
        cells = [_chance(head, photo["probabilities"], listing) for head in listing["heads"]]
        table.add_row(str(photo["position"]), escape(status), *cells, escape(photo["url"]))
    return table


def _chance(head: str, chances: Mapping[str, Any], listing: Mapping[str, Any]) -> str:
    """A head's probability on one photo; bold where the photo is over the head's threshold."""
    chance = chances.get(head)
    if chance is None:
        return ""
    if isinstance(chance, dict):
        top = max(chance, key=lambda name: float(chance[name]))
        return f"{top} {chance[top]:.2f}"
    sure = chance >= listing["thresholds"][head]["true"]
    return f"[bold green]{chance:.3f}[/]" if sure else f"{chance:.3f}"
