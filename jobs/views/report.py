"""What `enrich run`, `backfill`, `rescore`, `publish`, `reconcile` and `reindex` print when they are done."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.markup import escape

from jobs.cli.terminal import readable
from jobs.run.dry_run import Rehearsed
from jobs.run.lifecycle import Difference, Reconciled, Reindexed
from jobs.run.record import Rescored, RunReport
from jobs.views import console, json_text, listed, print_json
from jobs.views.status import duration

_KINDS = {"changed": "with other photos", "documents": "with other columns", "revalidated": "to revalidate"}
"""What people call the kinds of `Discovery`, where that differs."""


def show_report(report: RunReport, *, as_json: bool) -> None:
    """Print what a job did."""
    if as_json:
        print_json({**report.as_json(), "exit_code": report.exit_code})
        return
    out = console()
    for line in report_lines(report):
        out.print(line, soft_wrap=True)  # ids stay whole, and a line one line


def report_lines(report: RunReport) -> list[str]:
    """What a job did, a line for each stage that had something to do."""
    plain = report.as_json()
    documents, took = f"documents  {_counts(plain['documents'])}", f"took       {duration(plain['seconds'])}"
    lines = []
    if report.discovery is not None:
        lines.append(_found(plain["discovery"]))
    if report.marked is not None:
        lines.append(f"marked     {report.marked:,} listings to be enriched again")
    if report.joined is not None:
        lines.append(f"joined     #{report.joined}, an unfinished backfill that asked for the same")
    if report.rescored is not None:
        lines.append(_rescored(report.rescored))
    if report.reconciled is not None:
        return [*_reconciled(report.reconciled, plain["documents"]), took]
    if report.reindexed is not None:
        return [*lines, *_reindexed(report.reindexed, documents), took]
    if not lines:  # publish only
        return [documents, took]
    if report.ahead is not None:
        lines.append(_on_ray(plain["ray"]))
    lines.append(
        f"enriched   {plain['listings']:,} listings; {plain['retry']:,} to be tried again, "
        f"{plain['quarantined']:,} newly quarantined"
    )
    lines.append(
        f"photos     {plain['photos']:,}: {plain['fetched']:,} fetched ({plain['bytes'] / 1e6:,.1f} MB), "
        f"{plain['unchanged']:,} not modified, {plain['cached']:,} already known; "
        f"{plain['scored']:,} scored; failed: {listed(plain['failures'])}"
    )
    lines.append(documents)
    lines += [f"drift      {measure} of {measure.of:,}" for measure in report.drift or () if measure.drifted]
    speed = f", {plain['photos_per_second']:.1f} photos/s" if plain["photos"] else ""
    lines.append(took + speed)
    spent = plain["stage_seconds"].items()
    worked = [f"{stage} {seconds:.1f}" for stage, seconds in spent if stage != "rescore" or plain["rescored"]]
    if worked:
        stages = ", ".join(worked)
        lines.append(f"work       {stages} (seconds, summed over parallel work)")
    return lines


def _on_ray(ahead: Mapping[str, Any]) -> str:
    return (
        f"on Ray     {ahead['photos']:,} photos: {ahead['fetched']:,} fetched "
        f"({ahead['bytes'] / 1e6:,.1f} MB), {ahead['unchanged']:,} not modified; {ahead['scored']:,} scored; "
        f"failed: {listed(ahead['failures'])}; {ahead['left']:,} left to this machine; took "
        f"{duration(ahead['seconds'])}, {ahead['photos_per_second']:.1f} photos/s "
        f"({ahead['fetchers']} fetchers, {ahead['scorers']} scorers)"
    )


def _found(discovery: Mapping[str, int]) -> str:
    named = {_KINDS.get(kind, kind): count for kind, count in discovery.items() if kind != "seen" and count}
    return f"found      {discovery['seen']:,} listings: {_counts(named) or 'nothing to do'}"


def _rescored(rescored: Rescored) -> str:
    line = f"rescored   {rescored.photos:,} photos from kept features"
    if rescored.left:
        line += (
            f"; {rescored.left:,} listings stay as another bundle made them, since features of their photos "
            "are missing or photos are due: `enrich backfill --stale-bundle` fetches those"
        )
    return line


def _reconciled(found: Reconciled, documents: Mapping[str, int]) -> list[str]:
    lines = [
        f"compared   {found.documents:,} documents; {found.waiting:,} listings wait for the next run anyway"
    ]
    for kind in ("missing", "stale", "orphaned", "altered"):
        differing: Difference = getattr(found, kind)
        more = ", …" if differing.count > len(differing.examples) else ""
        examples = f": {', '.join(map(escape, differing.examples))}{more}" if differing.count else ""
        lines.append(f"{kind:10} {differing.count:,}{examples}")
    if found.fixed or documents["written"] or documents["removed"]:
        lines.append(f"mended     {_counts(documents)}")
    elif found.differences:
        lines.append("nothing was written: `enrich reconcile --fix` mends this")
    return lines


def _reindexed(done: Reindexed, documents: str) -> list[str]:
    if done.serving is None:
        which = "same" if done.went_back else "old"
        return [f"{documents}; the {which} index goes on serving"]
    if done.went_back:
        lacks = f"it lacks {done.lacks:,} documents that changed since, which the next publish writes"
        lines = [f"serving    {done.serving} again, not {done.before}; {lacks}"]
        if done.contradiction is not None:
            lines.append(f"but        the settings ask for another index: {escape(done.contradiction)}")
        return lines
    begun = ", begun by an earlier reindex" if done.taken_up else ""
    lines = [
        documents,
        f"compared   {done.documents:,} documents by their number, {done.sampled:,} word by word",
        f"serving    {done.serving}{begun}",
    ]
    if done.before is not None:
        lines.append(f"kept       {done.before}: `enrich reindex --rollback` goes back to it")
    if done.removed:
        lines.append(f"removed    {', '.join(done.removed)}")
    return lines


def show_rehearsal(rehearsed: Rehearsed, *, as_json: bool) -> None:
    """Print what a run would do: a line per document and delete of the sample, then the figures."""
    documents, removed, counts = rehearsed.documents, rehearsed.removed, rehearsed.counts
    found = rehearsed.discovery.as_json()
    if as_json:
        told = {name: value for name, value in asdict(counts).items() if name != "answers"}  # none were got
        print_json({"discovery": found, "counts": told, "documents": documents, "removed": removed})
        return
    for document in documents:
        sys.stdout.write(f"put {json_text(document)}\n")
    for id in removed:
        sys.stdout.write(f"delete {readable(id)}\n")
    if len(documents) < counts.written or len(removed) < counts.removed:
        sys.stdout.write(f"… {counts.written - len(documents):,} more to put, ")
        sys.stdout.write(f"{counts.removed - len(removed):,} more to delete: --limit shows more\n")
    out = console()
    out.print(_found(found))
    out.print(
        f"would write {counts.written:,} documents and delete {counts.removed:,}; {counts.awaiting:,} await "
        f"the portal's document, {counts.refused:,} were refused; nothing was written"
    )


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in counts.items() if isinstance(value, int))
