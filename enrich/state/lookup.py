"""What to say of a listing that is not known."""

from sqlalchemy import Connection, text

from enrich.errors import UsageError

_ALIKE = text("SELECT id FROM listing WHERE lower(id) = lower(:id) ORDER BY id LIMIT 1")


def unknown_listing(connection: Connection, id: str) -> UsageError:
    """No listing has this id; names the one whose id differs in upper and lower case only."""
    alike = connection.scalar(_ALIKE, {"id": id})
    if alike is None:
        return UsageError(
            f"no listing {id!r} is known: check the id, or run `enrich run` so that it is found"
        )
    return UsageError(f"no listing {id!r} is known, but {alike!r} is: write it in the same letters")
