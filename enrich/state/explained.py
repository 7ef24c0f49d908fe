"""Why Postgres lets nobody in, in words for people."""

import re

from enrich.errors import SourceError, UnreachableError

REFUSED = (
    (r"password authentication failed|no password supplied|authentication failed", "wrong user or password"),
    (r'database "[^"]*" does not exist|no such database', "no such database"),
    (r'role "[^"]*" does not exist', "no such user"),
    (r"no pg_hba.conf entry", "the server does not let this user in from here (pg_hba.conf)"),
    (r"permission denied for database", "the user may not connect to this database: GRANT CONNECT"),
)
AWAY = (
    (r"could not translate host name|Name or service not known", "no such host"),
    (r"Connection refused|No such file or directory", "nothing answers there; Postgres may not be running"),
    (r"timeout expired|timed out|No route to host|unreachable", "the host does not answer"),
)
TLS = ((r"SSL|certificate", "TLS does not work as set up (sslmode, sslrootcert)"),)


def explained(reason: str, where: str, setting: str, *, may_pass: bool = True) -> SourceError:
    """What the driver says of a connection that failed, and what to look at.

    A server that refuses is there, whatever other addresses of its name say: that goes first. What is in none
    of our words may be any of these in the server's language, and pass, where the driver knows no better.
    """
    meanings = (
        (kind, meaning)
        for kind, said in ((SourceError, REFUSED), (UnreachableError, AWAY), (SourceError, TLS))
        for words, meaning in said
        if re.search(words, reason, re.IGNORECASE)
    )
    kind, meaning = next(meanings, (UnreachableError if may_pass else SourceError, reason))
    return kind(f"cannot connect to Postgres at {where}: {meaning}. Check {setting}")
