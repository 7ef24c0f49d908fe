"""What the results of listings that are saved together say of the photos that they share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enrich.records import MAY_LAST, PhotoResult, PhotoStatus

RETRY_HOURS = (1, 6, 24)  # until the next try after the first, second, further failures in a row
NEXT_TRY = """(SELECT min(p.next_try) FROM listing_photo AS held JOIN photo AS p USING (key)
  WHERE held.listing_id = l.id)"""
"""SQL: when the first of the failed photos of listing `l` is to be asked for again."""
_ITS_OWN = ", ".join(f"'{status.value}'" for status in sorted(MAY_LAST))
MAY_BE_FORGIVEN = f"(p.next_try IS NOT NULL AND p.status NOT IN ({_ITS_OWN}))"
"""SQL: a failure that may pass, and of a kind that an outage of its host brings about."""

Rows = Mapping[str, tuple[str, str | None]]
"""URL key -> (status, sha256) of the row on record."""


@dataclass(slots=True)
class Settled:
    """What comes of saving some listings one after the other."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """URL key -> the columns of `photo` that the last result leaves; `seen`: what is known of its bytes is
    among them."""
    changed: dict[str, str] = field(default_factory=dict)
    """URL key -> sha256 now, of photos that had other bytes, or a failure, on record."""
    current: list[bool] = field(default_factory=list)
    """Of each listing, whether its good results are what is on record in the end."""


def by_key(results: Iterable[PhotoResult]) -> dict[str, PhotoResult]:
    """One result per key: a good one outdoes a failure, and of good ones one that was asked for counts."""
    return {r.photo.key: r for r in sorted(results, key=lambda r: (r.status.ok, r.requested))}


def settle(listings: Sequence[Mapping[str, PhotoResult]], on_record: Rows) -> Settled:
    """Save listings (URL key -> result) in thought, in their order; `on_record`: the photos known before."""
    settled = Settled()
    rows = dict(on_record)
    holders: dict[str, list[tuple[int, str | None]]] = {}
    for number, results in enumerate(listings):
        settled.current.append(True)
        for key, result in results.items():
            sha = result.sha256 if result.status.ok else None
            status, seen = rows.get(key, (None, None))
            other = status is not None and seen != sha
            newer = other and seen is not None
            if not result.requested or (newer and result.status is PhotoStatus.UNCHANGED):
                # Not asked for; or another worker saw newer bytes since we asked: its answer stands.
                if newer and sha is not None:
                    settled.current[number] = False
            else:
                settled.rows[key] = row = _row(result, settled.rows.get(key))
                rows[key] = row["status"], row["sha256"] if row["seen"] else seen
                if sha is not None:
                    for holder, held in holders.get(key, ()):
                        settled.current[holder] &= held == sha
                    if other or status not in (None, PhotoStatus.OK):
                        settled.changed[key] = sha
            holders.setdefault(key, []).append((number, sha))
    return settled


def clean(value: str | None) -> str | None:
    """Text from outside as Postgres can keep it: no NUL, no lone surrogates."""
    return value and value.replace("\0", "�").encode("utf-8", "replace").decode()


def _row(result: PhotoResult, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """A failure that may pass keeps the bytes last seen, and the validators that belong to them.

    After one that lasts they are not the photo any more: their scores may not stand in when it next fails.
    """
    good = result.status.ok
    failures = 0 if good else max(result.failures, 1)
    row = {
        "key": result.photo.key,
        "status": PhotoStatus.OK.value if good else result.status.value,
        "version": result.photo.version,
        "failures": failures,
        "retry_hours": RETRY_HOURS[min(failures, len(RETRY_HOURS)) - 1] if result.transient else None,
        "error": None if good else clean(result.error),
    }
    if good:
        etag, modified = (_validator(v) for v in (result.validators.etag, result.validators.last_modified))
        return row | {"seen": True, "sha256": result.sha256, "etag": etag, "last_modified": modified}
    if not result.transient:
        return row | {"seen": True, "sha256": None, "etag": None, "last_modified": None}
    kept = {name: (earlier or {}).get(name) for name in ("sha256", "etag", "last_modified")}
    return row | {"seen": bool(earlier and earlier["seen"])} | kept


def _validator(value: str | None) -> str | None:
    """A validator is only of use as it was sent; one that cannot be kept so is dropped."""
    return value if value == clean(value) else None
