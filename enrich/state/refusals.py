"""What Postgres says of itself when it ends a command: that is no bug of ours, and no fault of a listing."""

import psycopg2
from sqlalchemy.exc import DBAPIError

from enrich.errors import EnrichError, OutageError, UsageError
from enrich.state.database import one_line, passing, sqlstate

FORBIDDEN = "42501"  # insufficient privilege
BROKEN = ("F0", "XX")  # its configuration, its own errors, corrupted data


def servers_state(error: BaseException) -> EnrichError | None:
    """What is wrong where Postgres cannot or will not do its part; None where the fault is ours."""
    if not isinstance(error, DBAPIError):
        return None
    state = sqlstate(error) or ""
    if state == FORBIDDEN:
        return UsageError(
            f"Postgres: {one_line(error)}. GRANT it, see docs/database.md; `enrich check` lists what "
            "is missing"
        )
    if isinstance(error.orig, psycopg2.Error) and (passing(error) or state.startswith(BROKEN)):
        return OutageError(f"Postgres: {one_line(error)}. Nothing is lost: start the command again later")
    return None
