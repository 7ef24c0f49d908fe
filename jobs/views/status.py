"""`enrich status`: how things stand, and the last runs."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from enrich.model.bundle import Bundle
from enrich.model.head import Head, least_backing
from enrich.model.open import Choice
from enrich.settings import Settings
from enrich.state.backfills import Backfill
from enrich.state.runs import Run
from enrich.state.summary import Summary
from enrich.state.workers import Worker
from jobs.run.drift import read
from jobs.views import console, listed, table

WAITING = {"pending": "waiting", "leased": "being worked on", "retry": "in retry"}
_ENDED = {None: "did not end", 0: "done", 1: "done, with trouble", 75: "busy", 130: "stopped", 143: "stopped"}


def as_plain(summary: Summary, runs: Sequence[Run], night: Run | None, model: Choice) -> dict[str, Any]:
    """All of it for programs; `night`: the last run that was held against the nights before."""
    bundle = model.bundle
    return {
        **asdict(summary),
        "bundle": {
            "id": bundle.bundle_id,
            "name": bundle.name,
            "arithmetic": bundle.arithmetic,
            "arithmetic_why": model.why,
            "precision_basis": {
                head.name: head.precision_basis for head in bundle.heads if head.rules.is_yes_or_no
            },
        },
        "stale_listings": summary.stale(bundle.bundle_id),
        "drift": night and night.figures["drift"],
        "runs": [asdict(run) for run in runs],
    }


def show_status(
    summary: Summary, runs: Sequence[Run], night: Run | None, model: Choice, settings: Settings
) -> None:
    """Print it for people; `night` as for `as_plain`."""
    out, bundle = console(), model.bundle
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    statuses = {"done": summary.listings.get("done", 0)}
    statuses |= {name: summary.listings.get(status, 0) for status, name in WAITING.items()}
    statuses |= {name: summary.listings.get(name, 0) for name in ("quarantined", "gone")}
    orphaned = max(0, statuses["being worked on"] - sum(worker.listings for worker in summary.workers))
    statuses["being worked on"] -= orphaned  # their worker has died: the next run takes them
    statuses["waiting"] += orphaned
    facts.add_row("listings", ", ".join(f"{count:,} {name}" for name, count in statuses.items()))
    if summary.lag_seconds is not None:
        facts.add_row("oldest waiting", f"for {duration(summary.lag_seconds)}")
    for number, (reason, count) in enumerate(summary.quarantine_reasons):
        facts.add_row("quarantined for" if number == 0 else "", f"{count:,} × {escape(reason)}")
    counts = summary.outbox
    facts.add_row(
        "documents",
        f"{counts.unpublished:,} unpublished, of these {counts.awaiting:,} await the portal's document and "
        f"{counts.refused:,} were refused",
    )
    for number, refusal in enumerate(summary.refusals):
        told = f"{refusal.documents:,} × {refusal.reason} (listing {refusal.example})"
        facts.add_row("refused for" if number == 0 else "", escape(told))
    facts.add_row("index", f"{escape(settings.index)} ({settings.index_mode})")
    stale = summary.stale(bundle.bundle_id)
    made = f"; {stale:,} listings made with another: enrich backfill --stale-bundle" if stale else ""
    facts.add_row("bundle", f"{escape(bundle.name)} {bundle.bundle_id[:12]}{made}")
    facts.add_row("scores in", escape(str(model)))
    facts.add_row("precision of true", "; ".join(_claims(bundle)))
    for backfill in summary.backfills:
        facts.add_row(f"backfill #{backfill.id}", backfill_line(backfill))
    if night is not None:
        measures = list(read(night).values())
        facts.add_row(
            f"run #{night.id} found", escape(", ".join(str(m) for m in measures if not m.drifted)) or "-"
        )
        for measure in measures:
            if measure.drifted:
                told = f"{measure} of {measure.of:,}: look at what changed in photos, hosts or model"
                facts.add_row("[yellow]drift[/]", f"[yellow]{escape(told)}[/]")
    out.print(facts)
    if summary.workers:
        out.print(_workers(summary.workers))
    out.print(_runs(runs) if runs else "No run yet: start one with `enrich run`.")


def backfill_line(backfill: Backfill) -> str:
    """What was asked, and how far it got."""
    asked = ["all listings" if backfill.named is None else f"{backfill.named:,} listings named"]
    if backfill.since:
        asked.append(f"changed since {backfill.since:%Y-%m-%d %H:%M} UTC")
    if backfill.stale_bundle:
        asked.append(f"not made with bundle {backfill.stale_bundle[:12]}")
    if backfill.revalidate:
        asked.append("photos asked for again")
    if backfill.held:
        state = f"{backfill.marked:,} marked, ended {backfill.done_at:%Y-%m-%d %H:%M}: {backfill.held}"
    elif backfill.done_at:
        state = f"{backfill.marked:,} marked, done {backfill.done_at:%Y-%m-%d %H:%M}"
    elif backfill.marked_at:
        state = f"{backfill.marked:,} marked, {backfill.left:,} left"
    else:
        state = f"{backfill.marked:,} marked so far, {backfill.left:,} of them left"
    return f"{', '.join(asked)}: {state}; since {backfill.created_at:%Y-%m-%d %H:%M}"


def _claims(bundle: Bundle) -> list[str]:
    return [f"{head.name}: {_claim(head)}" for head in bundle.heads if head.rules.is_yes_or_no]


def _claim(head: Head) -> str:
    if head.precision_basis == "homes":
        target = "" if head.precision_target is None else f" (precision {head.precision_target:g})"
        return f"backed by real homes{target}"
    if head.precision_basis == "not stated":
        return "not stated"
    if head.precision_target is None or head.backing_homes is None:
        return "an estimate (too few real homes back it)"
    least = least_backing(head.precision_target)
    return (
        f"an estimate (precision {head.precision_target:g}: {least} held-out homes with "
        f"yes, none of them wrong, would confirm it, there are {head.backing_homes})"
    )


def _workers(workers: Sequence[Worker]) -> Table:
    in_hand = Column("listings in hand", justify="right")
    shown = table("host", "pid", "does", "since (UTC)", "last seen (UTC)", in_hand, title="at work now")
    for worker in workers:
        since, seen = (f"{time:%Y-%m-%d %H:%M:%S}" for time in (worker.started, worker.seen))
        host, pid = escape(worker.host), str(worker.pid)
        shown.add_row(host, pid, escape(worker.doing), since, seen, f"{worker.listings:,}")
    return shown


def _runs(runs: Sequence[Run]) -> Table:
    numbers = ("took", "listings", "photos", "photos/s", "written")
    counts = [Column(header, justify="right") for header in numbers]
    shown = table("started (UTC)", "kind", *counts, "photo failures", "ended", title="last runs")
    for run in runs:
        figures, seconds = run.figures, took(run)
        shown.add_row(
            f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            run.kind,
            "-" if seconds is None else duration(seconds),
            f"{figures.get('listings', 0):,}",
            f"{figures.get('photos', 0):,}",
            f"{figures.get('photos_per_second', 0):.1f}",
            f"{figures.get('documents', {}).get('written', 0):,}",
            listed(figures.get("failures", {})),
            escape(ended(run)),
        )
    return shown


def took(run: Run) -> float | None:
    """Seconds; None where it did not end."""
    return (run.finished_at - run.started_at).total_seconds() if run.finished_at else None


def ended(run: Run) -> str:
    """How a run ended, with the reason where there is one."""
    told = "under way" if run.under_way else _ENDED.get(run.exit_code, f"exit {run.exit_code}")
    return f"{told}: {run.error}" if run.error else told


def duration(seconds: float) -> str:
    """`2 d 3:04:05`, `4:05 min`, `5.6 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = timedelta(seconds=round(seconds))
    if whole < timedelta(hours=1):
        return f"{str(whole)[2:]} min"
    days = f"{whole.days} d " if whole.days else ""
    return f"{days}{timedelta(seconds=whole.seconds)} h"
