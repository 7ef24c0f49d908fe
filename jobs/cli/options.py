"""The options and arguments of the `enrich` command."""

import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from enrich.errors import UsageError
from enrich.index.query import MOST_HITS
from jobs.cli.guard import be_verbose

Verbose = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        callback=be_verbose,
        help="Log in detail, and show tracebacks of unexpected errors.",
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"enrich {version('listing-enrichment')}\n")
        raise typer.Exit


def _as_text(given: str | list[str] | None) -> str | list[str] | None:
    """What Postgres is to look up or to keep: bytes that are no text it cannot even be asked for."""
    for one in given if isinstance(given, list) else [given or ""]:
        try:
            one.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{one!r} is not UTF-8 text: have the terminal write UTF-8") from None
    return given


def _as_time(given: str) -> datetime:
    """A day or time as people write it: typer would take a bare number for the seconds since 1970."""
    try:
        if given.isdecimal():
            raise ValueError
        return datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(
            f"write {given!r} as a day, 2026-03-01, or a time, 2026-03-01T06:30"
        ) from None


Version = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Ids = Annotated[
    Path | None,
    typer.Option(
        "--ids",
        metavar="FILE",
        allow_dash=True,
        help="Only these listings: a file, one id a line; - is stdin.",
    ),
]
Revalidate = Annotated[
    bool, typer.Option("--revalidate", help="Ask the photo hosts whether photos changed behind their URLs.")
]
Photos = Annotated[
    Path | None,
    typer.Option(
        "--photos", metavar="DIR", help="Your own pictures instead: a folder with a folder per listing."
    ),
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the demo's database behind, to look around in.")]
Serve = Annotated[bool, typer.Option("--serve", help="Then show the homes in the page, until Ctrl-C.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Enrich at most so many listings.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the documents and deletes; write nothing.")]
AllowRemovals = Annotated[
    bool, typer.Option("--allow-removals", help="Remove documents beyond ENRICH_MAX_REMOVED, this once.")
]
Fix = Annotated[bool, typer.Option("--fix", help="Mend what differs; else it is only told.")]
KeepOld = Annotated[
    int, typer.Option("--keep", min=1, metavar="N", help="How many indices that served before are kept.")
]
Rollback = Annotated[bool, typer.Option("--rollback", help="Go back to the index that served before.")]
Since = Annotated[
    datetime | None,
    typer.Option(
        metavar="TIME",
        parser=_as_time,
        help="Only listings whose updated_at is at or after this time (in ENRICH_TIMEZONE).",
    ),
]
StaleBundle = Annotated[
    bool, typer.Option("--stale-bundle", help="Only listings made with another bundle than the current.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Fetch and score on a Ray cluster first: host:port of its head node, or local.",
    ),
]
MaxFlips = Annotated[
    str | None,
    typer.Option(
        "--max-flips",
        metavar="N|N%",
        help="With --stale-bundle: end before more listings than this change the same filter.",
    ),
]
BundleDryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="With --stale-bundle: show which filters would change; write nothing."),
]
Sample = Annotated[
    int | None,
    typer.Option(
        "--sample", min=1, metavar="N", help="Listings that --dry-run goes through, at most; default: 1000."
    ),
]
Has = Annotated[
    list[str] | None, typer.Option("--has", metavar="X", help="Listings that have X; may be repeated.")
]
Room = Annotated[
    list[str] | None,
    typer.Option("--room", metavar="TYPE", help="Listings that show such a room; may be repeated."),
]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="HEAD=CLASS", help="The same for any head with classes: room=kitchen."),
]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="COLUMN=VALUE", help="A copied column equals a value."),
]
Shown = Annotated[int, typer.Option(min=1, max=MOST_HITS, help="Listings shown at most.")]
Id = Annotated[str, typer.Argument(metavar="ID", callback=_as_text, help="The listing's id.")]
Named = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", callback=_as_text, help="Listings to try again.")
]
Everything = Annotated[
    bool, typer.Option("--all", help="All that are quarantined or wait to be tried again.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FIELD=VALUE]...",
        help="has_balcony=true, =false or =unknown; room_types=kitchen,bathroom",
    ),
]
Clear = Annotated[
    list[str] | None,
    typer.Option("--clear", metavar="FIELD", help="Let the model speak again; may be repeated."),
]
MaybeId = Annotated[str | None, typer.Argument(metavar="[ID]", callback=_as_text, help="The listing's id.")]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="NAME",
        callback=_as_text,
        help="Who says so; default: ENRICH_PERSON, else the login.",
    ),
]
Shows = Annotated[
    int | None,
    typer.Option(
        "--photo", metavar="POSITION", help="The photo that shows it, for the next model to learn from."
    ),
]
AllOverrides = Annotated[bool, typer.Option("--list", help="Show all overrides.")]
Overriding = Annotated[
    Path | None,
    typer.Option(
        "--import", metavar="FILE.csv", help="Set those of a table: listing_id, field, value, note, by."
    ),
]
LabelFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write to.")]
LabelFormat = Annotated[
    Literal["manifest", "label-studio"],
    typer.Option("--format", help="What people said, to learn from; or photos for Label Studio to ask of."),
]
LabelPhotos = Annotated[
    int, typer.Option("--photos", min=1, max=100_000, help="Photos for Label Studio, at most.")
]
LabelFile = Annotated[Path, typer.Argument(metavar="FILE", help="Label Studio's JSON export, or a CSV file.")]
Html = Annotated[Path, typer.Option("--html", metavar="FILE", help="The HTML file to write.")]
AlsoHtml = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write an HTML file with the photos instead.")
]
Numbered = Annotated[
    int | None, typer.Option("--run", min=1, metavar="N", help="The run of this number; default: the last.")
]
LastDays = Annotated[
    int | None, typer.Option("--days", min=1, max=3_650, metavar="N", help="Everything of the last N days.")
]
Pictures = Annotated[
    int, typer.Option("--photos", min=0, max=300, metavar="N", help="Photos in the file, at most.")
]
Parquet = Annotated[Path, typer.Argument(metavar="FILE.parquet", help="The file to write.")]
PerPhoto = Annotated[bool, typer.Option("--photos", help="A row per photo, not per listing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Delete; without it, only count.")]
Days = Annotated[
    int, typer.Option("--days", min=1, max=36_500, help="Only what has not been used for so many days.")
]
Note = Annotated[str | None, typer.Option(callback=_as_text, help="Why, for whoever looks at it later.")]
Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="The address that the page listens on.")]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65_535, help="The port of the page; 0 takes a free one.")
]
