"""`enrich migrate`: our schema, and the views for the heads of the bundle."""

from enrich.model.bundle import load_bundle
from enrich.settings import Settings
from enrich.state.database import connect
from migrations import upgrade


def migrate(settings: Settings) -> tuple[str, str | None]:
    """Bring the schema `enrichment` up to date; where its database is, and the version reached.

    Raises:
        UsageError: database or bundle cannot be used as set up, or the role may not do what is needed.
    """
    heads = sorted(load_bundle(settings.bundle).heads, key=lambda head: head.kind)
    columns = {name: kind for head in heads for name, kind in head.rules.columns(head.name).items()}
    of_photos = {name: kind for head in heads for name, kind in head.rules.photo_columns(head.name).items()}
    numbers = [field for head in heads if (field := head.rules.ranked_by(head.name))]
    database, source = connect(settings)
    try:
        return database.place, upgrade(database.engine, columns, photo_columns=of_photos, numbers=numbers)
    finally:
        database.close()
        source.close()
