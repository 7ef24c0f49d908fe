"""What `enrich backfill --stale-bundle --dry-run` prints."""

from dataclasses import asdict

from rich.markup import escape
from rich.table import Column

from jobs.run.foretell import Example, Foretold
from jobs.views import console, print_json, table, whole


def show_foretold(foretold: Foretold, *, as_json: bool) -> None:
    """Each filter's changes in the sample, their share, and a few listings to look at."""
    shares = {
        field: {change: count / foretold.sampled for change, count in by_change.items() if change}
        for field, by_change in foretold.flips.items()
    }
    if as_json:
        told_of = [
            {"field": field, "change": change, **asdict(example)}
            for (field, change), found in foretold.examples.items()
            for example in found
        ]
        changed = {field: by_change[""] for field, by_change in foretold.flips.items()}
        told = {name: getattr(foretold, name) for name in ("stale", "sampled", "failed")}
        heads = {name: sorted(getattr(foretold, name)) for name in ("lacking", "new")}
        print_json({**told, "changed": changed, **heads, "shares": shares, "examples": told_of})
        return
    out = console()
    out.print(
        f"{foretold.stale:,} listings were made with another bundle; {foretold.sampled:,} of them tried, "
        f"{foretold.failed:,} could not be"
    )
    if not foretold.flips:
        out.print("No filter of them would change; nothing was written.")
        return
    counts = [Column(header, overflow="fold", justify="right") for header in ("listings", "share")]
    changes = table(*whole("filter", "change"), *counts, *whole("such as", "decided by"))
    for field, by_change in sorted(foretold.flips.items()):
        changes.add_row(field, "any", f"{by_change['']:,}", f"{by_change[''] / foretold.sampled:.1%}", "", "")
        for change, share in sorted(shares[field].items(), key=lambda one: -one[1]):
            examples = foretold.examples[field, change]
            shown = ["\n".join(map(cell, examples)) for cell in (_listing, _evidence)]
            changes.add_row("", change, f"{by_change[change]:,}", f"{share:.1%}", *shown)
    out.print(changes)
    if foretold.lacking:
        out.print(f"The bundle has no head any more for {', '.join(sorted(foretold.lacking))}.")
    if foretold.new:
        out.print(f"New is {', '.join(sorted(foretold.new))}; --max-flips does not count it.")
    out.print(
        "Nothing was written. `enrich backfill --stale-bundle --max-flips …` rolls it out up to a bound."
    )


def _listing(example: Example) -> str:
    if example.confidence is None or example.confidence_before is None:
        return escape(example.listing_id)
    return escape(f"{example.listing_id} ({example.confidence_before:.2f} → {example.confidence:.2f})")


def _evidence(example: Example) -> str:
    return escape(example.evidence or "-")
