"""Commands by which a person has a say: overrides of listings, labels of photos."""

import sys
from dataclasses import replace

import typer

from enrich.errors import UsageError
from enrich.settings import load_settings
from enrich.state.labels import Label, Labels
from enrich.state.overrides import Said
from jobs.cli import options as opt
from jobs.cli.app import app
from jobs.cli.parse import person, read_assignment, read_said

labels = typer.Typer(no_args_is_help=True, help="What people say of photos: out for training, and in.")
app.add_typer(labels, name="labels")


@app.command()
def override(
    id: opt.MaybeId = None,
    assignments: opt.Assignments = None,
    clear: opt.Clear = None,
    note: opt.Note = None,
    by: opt.By = None,
    photo: opt.Shows = None,
    table: opt.Overriding = None,
    everything: opt.AllOverrides = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Say yourself what a listing has. It outranks the model now and after every later run.

    The next publish takes it to the index.
    """
    from jobs.run.services import open_records
    from jobs.views.overrides import show_overrides

    if [id is not None, table is not None, everything].count(True) != 1:
        raise UsageError("name one listing, or say --list, or --import FILE.csv")
    if id is not None and not assignments and not clear:
        raise UsageError("say what to override, such as has_balcony=false, or --clear has_balcony")
    settings = load_settings()
    with open_records(settings) as records:
        heads, who = records.bundle.heads, person(by, settings)
        if everything:
            show_overrides(records.overrides, as_json)
            return
        if table is not None:
            read = read_said(table, heads, who)
            records.overrides.set_all(replace(one, id=records.source.spelled(one.id)) for one in read)
            sys.stdout.write(f"{len(read)} overrides set\n")
        if id is not None:
            id = records.source.spelled(id)
            given = [read_assignment(text, heads) for text in assignments or []]
            shown = _shown(Labels(records.database), id, photo, given, who)
            records.overrides.set_all(Said(id, field, value, note, who) for field, value in given)
            Labels(records.database).put(shown)
            for field, _ in given:
                sys.stdout.write(f"{id}: {field} is now yours to say\n")
            cleared = {field: records.overrides.clear_override(id, field, who) for field in clear or []}
            for field, found in cleared.items():
                sys.stdout.write(f"{id}: {field} {'is the model’s again' if found else 'had no override'}\n")
            if not given and not any(cleared.values()):
                return
    sys.stdout.write("`enrich publish`, or the next run, takes it to the index\n")


def _shown(
    known: Labels, id: str, position: int | None, given: list[tuple[str, object]], who: str | None
) -> list[Label]:
    """The labels of the photo that shows what a person says the listing has."""
    if position is None:
        return []
    photos = known.by_place([id])
    shas = photos.get((id, position), set())
    if not shas:
        places = ", ".join(str(place) for _, place in sorted(photos)) or "none"
        raise UsageError(
            f"--photo {position}: no photo of {id} that was seen has this position; there are {places}"
        )
    if len(shas) > 1:
        raise UsageError(
            f"--photo {position}: {len(shas)} photos of {id} share this position: name the one meant by its "
            "url in a table for `enrich labels import`"
        )
    heads = [
        field.removeprefix("has_") for field, value in given if field.startswith("has_") and value is True
    ]
    if not heads:
        raise UsageError("--photo says which photo shows something: say has_X=true beside it")
    return [Label(sha, head, True, who) for sha in shas for head in heads]


@labels.command("export")
def export_labels(
    folder: opt.LabelFolder,
    format: opt.LabelFormat = "manifest",
    photos: opt.LabelPhotos = 1000,
    verbose: opt.Verbose = False,
) -> None:
    """Write what people said, with the photos: a manifest for enrich-train, or tasks for Label Studio."""
    from jobs.labels.export import export_manifest, export_tasks
    from jobs.run.services import open_records
    from jobs.views.labels import show_exported

    with open_records(load_settings()) as records:
        tasks = format == "label-studio"
        exported = export_tasks(records, folder, photos) if tasks else export_manifest(records, folder)
    show_exported(exported, folder, tasks)


@labels.command("import")
def import_labels(file: opt.LabelFile, by: opt.By = None, verbose: opt.Verbose = False) -> None:
    """Record the labels of Label Studio's JSON export, or of a CSV file."""
    from jobs.labels.reading import import_labels as read
    from jobs.run.services import open_records

    settings = load_settings()
    with open_records(settings) as records:
        imported = read(records, file, person(by, settings))
    sys.stdout.write(f"{imported.labels} labels, {imported.changed} of them new or changed\n")
    if imported.unknown:
        sys.stdout.write(f"{imported.unknown} labels of photos that are not known here were left out\n")
