"""Every error that ends a command, with its exit code.

::

    EnrichError                     a message for people: what is wrong, where, what to do
    ├── UsageError          exit 2  wrong usage or settings; nothing was changed
    │   ├── SettingsError           a setting cannot be read or contradicts another
    │   ├── SourceError             the portal's tables are not as the job needs them
    │   │   └── UnreachableError    no Postgres answers at the start: its URL is wrong, or it is away
    │   ├── SchemaError             our schema is missing or of another version: run `enrich migrate`
    │   ├── BundleError             the model bundle is broken, incomplete or fails its hashes
    │   └── IndexSetupError         the index cannot be used as set up (concrete index, mapping, privileges)
    ├── StoppedError        exit 3  the run stopped itself rather than write or delete rubbish
    │   ├── RemovalGuardError       more documents would be removed than ENRICH_MAX_REMOVED allows
    │   ├── FlipLimitError          more filters would change than --max-flips allows
    │   ├── LockLostError           a lock could not be kept: another process may have taken over
    │   ├── ErrorBudgetError        too many transient photo failures
    │   └── OutageError             no answer from Postgres or the index for ENRICH_OUTAGE_SECONDS
    ├── BusyError           exit 75 another run holds the lock
    └── SignalError         exit 130 by SIGINT, 143 by SIGTERM: stopped before all was done

Failures of one photo or one document are values (`records.PhotoStatus`, `records.WriteStatus`), never
exceptions: one bad thing stays one bad thing.
"""

from typing import Any


class EnrichError(Exception):
    """Base of all errors whose message is meant for the person at the keyboard."""

    exit_code = 1
    report: Any = None
    """What the job had done by then, where it was on record."""


class UsageError(EnrichError):
    """Wrong usage or settings."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting cannot be read or contradicts another."""


class SourceError(UsageError):
    """The portal's tables are not as the job needs them, or cannot be reached."""


class UnreachableError(SourceError):
    """No Postgres answers where one should be, or none in words that we know: it may be away."""


class SchemaError(UsageError):
    """The schema `enrichment` is missing or of another version."""


class BundleError(UsageError):
    """The model bundle is broken, incomplete, or fails its hashes."""


class IndexSetupError(UsageError):
    """The index cannot be reached or used as set up."""


class StoppedError(EnrichError):
    """The run stopped itself."""

    exit_code = 3


class RemovalGuardError(StoppedError):
    """More documents would leave the index than `ENRICH_MAX_REMOVED` allows."""


class FlipLimitError(StoppedError):
    """More filters would change than `--max-flips` allows."""


class LockLostError(StoppedError):
    """A lock could not be renewed in time: another process may hold it, so nothing is written under it."""


class ErrorBudgetError(StoppedError):
    """Too large a share of the recent photo requests failed for passing reasons."""


class OutageError(StoppedError):
    """Postgres or the index gave no answer for `ENRICH_OUTAGE_SECONDS`."""


class BusyError(EnrichError):
    """Another process holds the lock that this command needs."""

    exit_code = 75


class SignalError(EnrichError):
    """A signal stopped the job before all was done; what was done is kept."""

    exit_code = 143

    def __init__(self, message: str, exit_code: int = 143) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def reason(error: BaseException) -> str:
    """What a library's error says, in one line: its first one, or the name of its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]
