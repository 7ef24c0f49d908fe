"""What a report tells: read from state, as it is when it is asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from enrich.errors import UsageError
from enrich.model.head import Head
from enrich.model.kind import WORDS, overridable
from enrich.records import PhotoStatus, which_photo
from enrich.state import period as periods
from enrich.state.outbox import Refusal
from enrich.state.period import Came, Failed, Period
from enrich.state.runs import Run
from enrich.state.summary import summary
from jobs.run.services import Records
from jobs.views import words
from jobs.views.show import explain
from jobs.views.status import took

HOMES = 24
DOUBTFUL, NEAR = 4, 0.2  # of each head, and how near to where its answer turns
FAILURES = 20
BINS = 20
STAGES = ("read", "fetch", "decode", "rescore", "score", "aggregate", "save")
_ENRICHING = ("run", "backfill", "rescore")
FINE = [str(status) for status in PhotoStatus if status.ok]


@dataclass(frozen=True, slots=True)
class Home:
    """A listing, what is to be said of it, and the photo that shows it."""

    id: str
    columns: Mapping[str, Any]
    tags: tuple[tuple[str, str], ...]
    """(kind of tag, words)."""
    photo: Mapping[str, Any] | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How sure a head is of the listings of a time."""

    head: str
    counts: Sequence[int]
    turns: Sequence[float]


@dataclass(frozen=True, slots=True)
class Report:
    runs: Sequence[Run]
    """Oldest first."""
    period: Period
    figures: Mapping[str, float]
    failures: Mapping[str, int]
    """Photo status -> photos, of all runs."""
    stages: Mapping[str, float]
    """Stage -> seconds, summed over parallel work; in the order of the work."""
    answers: Sequence[tuple[str, int, int]]
    """Filter, listings that have it now and did not before, listings that lost it."""
    histograms: Sequence[Histogram]
    homes: Sequence[Home]
    homes_in_all: int
    doubtful: Sequence[Home]
    failed: Sequence[Failed]
    quarantined: Sequence[tuple[str, int]]
    refused: Sequence[Refusal]


def runs_of(records: Records, number: int | None, days: int | None) -> tuple[list[Run], Period]:
    """The runs that a report is of, oldest first, and the time that they took.

    Raises:
        UsageError: there is no such run.
    """
    now = datetime.now(UTC)
    if days is not None:
        since = now - timedelta(days=days)
        found = [run for run in records.runs.since(since) if run.kind in _ENRICHING]
        return found, Period(since, now)
    if number is not None:
        chosen = records.runs.numbered(number)
        if chosen is None:
            raise UsageError(f"there is no run {number}: `enrich status --json` lists the last ones")
    else:
        last = records.runs.runs(1, _ENRICHING) or records.runs.runs(1)
        if not last:
            raise UsageError("there is no run yet: start one with `enrich run`")
        chosen = last[0]
    ended = chosen.finished_at
    if ended is None and chosen.kind == "run":  # killed, where another one started: they never overlap
        ended = records.runs.followed(chosen)
    return [chosen], Period(chosen.started_at, ended or now)


def gather(records: Records, runs: Sequence[Run], period: Period) -> Report:
    """Everything that the page tells."""
    database, heads = records.database, records.bundle.heads
    came, in_all = periods.came(database, period, HOMES)
    summed: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for run in runs:
        summed.update(_counts(run))
        failures.update(run.figures.get("failures", {}))
        for figures in (run.figures, _ahead(run)):
            stages.update(figures.get("stage_seconds", {}))
    known = summary(database)
    return Report(
        runs=runs,
        period=period,
        figures=summed,
        failures=failures,
        stages={name: stages[name] for name in STAGES if stages[name]},
        answers=[
            (words(one.word) if one.word else _head(one.field), one.gained, one.lost)
            for one in periods.tally(database, period)
        ],
        histograms=list(_histograms(records, heads, period)),
        homes=_homes(records, came),
        homes_in_all=in_all,
        doubtful=_doubtful(records, heads, period),
        failed=periods.failed(database, period, FINE, FAILURES),
        quarantined=known.quarantine_reasons,
        refused=known.refusals,
    )


def _ahead(run: Run) -> Mapping[str, Any]:
    """What a cluster did before; the run's own figures count these photos as known."""
    return run.figures.get("ray") or {}


def _counts(run: Run) -> dict[str, float]:
    figures, ahead = run.figures, _ahead(run)
    found = figures.get("discovery", {})
    documents = figures.get("documents", {})
    return {
        **{name: figures.get(name, 0) for name in ("listings", "photos")},
        **{
            name: figures.get(name, 0) + ahead.get(name, 0)
            for name in ("fetched", "unchanged", "scored", "bytes")
        },
        "cached": max(figures.get("cached", 0) - ahead.get("fetched", 0) - ahead.get("unchanged", 0), 0),
        **{name: documents.get(name, 0) for name in ("written", "removed", "refused")},
        "new": found.get("new", 0),
        "seconds": took(run) or 0.0,
    }


def _gained(change: Came) -> list[str]:
    """The filters that find the listing now and did not before, in words."""
    if isinstance(change.after, list):
        before = change.before if isinstance(change.before, list) else []
        return [words(one) for one in change.after if one not in before]
    return [_head(change.field)]


def _head(field: str) -> str:
    found = overridable(field)
    return found[1] if found else field


def _homes(records: Records, came: Mapping[str, list[Came]]) -> list[Home]:
    known = periods.listings(records.database, list(came))
    homes = []
    for id, changes in came.items():
        if id not in known:
            continue
        row = known[id]
        shown = next((row["attributes"]["evidence"].get(_head(c.field)) for c in changes), None)
        homes.append(Home(id, row["columns"], tuple(_tags(changes)), _decided(row["photos"], shown or {})))
    return homes


def _tags(changes: Iterable[Came]) -> Iterable[tuple[str, str]]:
    for change in changes:
        sure = f" {change.confidence:.0%}" if change.after is True and change.confidence is not None else ""
        who = ", said by a person" if change.cause == "person" else ""
        for name in _gained(change):
            yield ("yes" if change.after is True else "plain"), f"{name}{sure}{who}"


def _decided(photos: Sequence[Mapping[str, Any]], evidence: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The photo that is the evidence, else the first one that was seen."""
    seen = [photo for photo in photos if photo["sha256"]]
    meant = which_photo(evidence)
    return next((photo for photo in seen if which_photo(photo) == meant), next(iter(seen), None))


def _histograms(records: Records, heads: Sequence[Head], period: Period) -> Iterable[Histogram]:
    for head in heads:
        if ranked := head.rules.ranked_by(head.name):
            counts = periods.confidences(records.database, period, ranked, BINS)
            if any(counts):
                yield Histogram(head.name, counts, head.rules.turns(head))


def _doubtful(records: Records, heads: Sequence[Head], period: Period) -> list[Home]:
    """Listings nearest to where an answer turns, each with the photo that speaks most for a yes."""
    homes = []
    for head in heads:
        ranked, turns = head.rules.ranked_by(head.name), head.rules.turns(head)
        if not ranked or not turns:
            continue
        for id, sure in periods.nearest(records.database, period, ranked, turns[0], DOUBTFUL):
            if abs(sure - turns[0]) > NEAR:
                continue
            told = explain(records, id)
            answer = told["attributes"]["fields"].get(head.rules.answer_field(head.name))
            word = WORDS[answer]
            kind = {"true": "yes", "false": "no", "unknown": "unsure"}[word]
            best = max(
                (photo for photo in told["photos"] if photo["sha256"]),
                key=lambda photo: photo["probabilities"].get(head.name) or 0.0,
                default=None,
            )
            tags = ((kind, f"{head.name}: {word}"), ("plain", f"{sure:.0%}, turns at {turns[0]:.0%}"))
            homes.append(Home(id, told["columns"], tags, best, told["why"].get(head.name, "")))
    return homes
