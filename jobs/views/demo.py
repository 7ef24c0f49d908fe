"""What `enrich demo` prints: the homes as the model sees them, beside what their pictures show."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from enrich.model.head import Head
from enrich.settings import Settings
from jobs.demo.homes import Home
from jobs.views import answer, console, table


def show_start(homes: Sequence[Home], settings: Settings, photo_host: str) -> None:
    """Say what is about to happen, and that it touches nothing else."""
    pictures = sum(len(home.photos) for home in homes)
    out = console()
    out.print(f"[bold]{len(homes)} homes with {pictures} pictures[/]")
    out.print(f"  database   embedded Postgres in {settings.home}, a database made for this demo")
    out.print("  index      the embedded one, in the same database")
    out.print(f"  photos     {photo_host}")
    out.print("  DATABASE_URL and ELASTICSEARCH_URL are not used.\n")


def show_homes(
    homes: Sequence[Home],
    found: Mapping[str, Mapping[str, Any]],
    heads: Sequence[Head],
    min_photos_false: int,
) -> None:
    """Print what was found of each home; where the pictures are known, where the model is wrong."""
    ordered = sorted(heads, key=lambda head: not head.rules.is_yes_or_no)
    known = any(photo.shows for home in homes for photo in home.photos)
    told = table("listing", "photos", *(head.rules.title(head.name) for head in ordered))
    if known:
        told.add_column("really in the pictures")
    for home in homes:
        document = found.get(home.id, {})
        cells = [escape(home.id), f"{len(home.photos)}", *(_cell(home, document, head) for head in ordered)]
        if known:
            yes = [head.name for head in ordered if head.rules.is_yes_or_no and home.shows(head.name)]
            cells.append(", ".join(dict.fromkeys(yes + sorted(home.rooms_shown))))
        told.add_row(*cells)
    out = console()
    out.print()
    out.print(told)
    out.print(
        "✓ yes  ✗ no  ? unknown, for no home is said to lack something on fewer than "
        f"{min_photos_false} photos (ENRICH_MIN_PHOTOS_FALSE)"
    )
    if known:
        mistakes = [line for home in homes for line in _mistakes(home, found.get(home.id, {}), heads)]
        out.print("\n[bold]Where the model is wrong on these pictures[/]" if mistakes else "\nNo mistakes.")
        for line in mistakes:
            out.print(f"  {escape(line)}")


def _cell(home: Home, document: Mapping[str, Any], head: Head) -> str:
    """The answer, with what is wrong about it where it is known what the pictures show."""
    cell = answer(head.rules, head.name, document)
    if head.rules.is_yes_or_no:
        says, truth = document.get(head.rules.answer_field(head.name)), home.shows(head.name)
        if truth is not None and bool(says) != truth:
            return f"{cell} [red]{'wrong' if says else 'missed'}[/]"
        return cell
    missed, invented = _differing(home, document, head)
    wrong = [f"{one} [red]wrong[/]" for one in invented] + [f"{one} [red]missed[/]" for one in missed]
    return "; ".join([cell, *wrong])


def _differing(home: Home, document: Mapping[str, Any], head: Head) -> tuple[list[str], list[str]]:
    """Classes (missed, wrongly found); none where it is not known what the pictures show."""
    truth = home.rooms_shown if head.name == "room" else set()
    if not truth:
        return [], []
    types = document.get(head.rules.answer_field(head.name)) or []
    published = {kind.name for kind in head.classes if kind.publish}
    return sorted((truth & published) - set(types)), sorted(set(types) - truth)


def _mistakes(home: Home, document: Mapping[str, Any], heads: Sequence[Head]) -> list[str]:
    lines = []
    for head in heads:
        if not head.rules.is_yes_or_no:
            missed, invented = _differing(home, document, head)
            lines += [f"{home.id}: {kind} missed" for kind in missed]
            lines += [f"{home.id}: {kind} found, no picture shows one" for kind in invented]
        elif (truth := home.shows(head.name)) is not None:
            lines += _mistake(home, document, head, truth)
    return lines


def _mistake(home: Home, document: Mapping[str, Any], head: Head, truth: bool) -> list[str]:
    name, kind = head.name, head.rules
    says = document.get(kind.answer_field(name))
    if truth and not says:
        confidence = document.get(kind.ranked_by(name) or "")
        sure = "" if confidence is None else f" (confidence {confidence:.2f})"
        return [f"{home.id}: {name} missed{sure}"]
    decided = (document.get("evidence") or {}).get(name) or {}
    photo = next((p for p in home.photos if p.position == decided.get("position")), None)
    if not says or photo is None or photo.shows.get(name) != "0":
        return []
    wrong = "" if truth else ", and there is none"
    return [f"{home.id}: {name} seen in photo {photo.position}, which shows: {photo.shows['room']}{wrong}"]


def show_lower(target: str) -> None:
    """Say that lower thresholds follow, those for this precision of homes."""
    out = console()
    out.print(
        f"\n[bold]ENRICH_PRECISION_TARGET={target} enrich rescore[/], for filters that find more homes and"
    )
    out.print(
        f"are wrong about more of them ({float(target):.0%} of those found are expected to be right):\n"
    )


def show_more(
    homes: Sequence[Home],
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    heads: Sequence[Head],
) -> None:
    """Print which homes came to be found; where the pictures are known, whether that is right."""
    out = console()
    for head in (head for head in heads if head.rules.is_yes_or_no):
        answer_field = head.rules.answer_field(head.name)
        found, earlier = (
            [home for home in homes if documents.get(home.id, {}).get(answer_field)]
            for documents in (after, before)
        )
        new = [
            escape(home.id) + (" [red]wrong[/]" if home.shows(head.name) is False else "")
            for home in found
            if home not in earlier
        ]
        told = f"{len(found)} homes, {len(earlier)} before"
        out.print(f"  {escape(head.name):<10} {told}" + (f"; new: {', '.join(new)}" if new else ""))
        if missed := [escape(home.id) for home in homes if home.shows(head.name) and home not in found]:
            out.print(f"  {'':<10} still missed: {', '.join(missed)}")
    out.print("\nWithout the setting, [bold]enrich rescore[/] takes this back, as the demo does.")


def show_next_steps(settings: Settings, kept: str | None) -> None:
    """Say how to go on, with one's own listings, and in the demo where it was `kept`: the id of a home."""
    out = console()
    if kept:
        out.print("\n[bold]To look around in the demo[/] (its photos are no longer served)")
        out.print("  export ENRICH_EMBEDDED=true")
        out.print(f"  export ENRICH_HOME={escape(str(settings.home))}")
        out.print(f"  export ENRICH_INDEX_COLUMNS={escape(','.join(settings.index_columns))}")
        out.print("  unset DATABASE_URL ELASTICSEARCH_URL")
        out.print("  enrich status")
        out.print("  enrich search --has balcony")
        out.print(f"  enrich show {escape(kept)}")
    out.print("\n[bold]On your own listings[/]")
    out.print("  export DATABASE_URL=postgresql://user:password@host/database")
    out.print("  export ELASTICSEARCH_URL=http://host:9200")
    out.print("  enrich settings    what else can be set: names of your tables, columns to copy, ...")
    out.print("  enrich migrate     makes the schema enrichment; your tables are only read")
    out.print("  enrich check       verifies everything and writes nothing")
    out.print("  enrich run --limit 100 --dry-run")
    out.print("  enrich run")
