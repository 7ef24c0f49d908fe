"""Seconds and write-ahead log of completing listings: the first time, and when one photo's status changed.

    python benchmarks/completing.py [--listings 10000] [--photos 25] [--groups 1 32]

One thread on an embedded server of its own; every listing has photos of its own. Claims are not counted.
CPU time is this process's alone.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator

from bench_database import execute, fresh_database, server
from sqlalchemy import text

from enrich.records import (
    Attributes,
    Claim,
    Evidence,
    ListingPhotos,
    ListingResult,
    Photo,
    PhotoResult,
    PhotoScore,
    PhotoStatus,
    Validators,
)
from enrich.source.urls import url_key
from enrich.state.database import Database
from enrich.state.listings import Listings
from training.markdown import table

ADD = (
    "INSERT INTO enrichment.listing (id, photo_fp, doc_fp) SELECT l, 'fp', 'fp' FROM generate_series(1, {}) l"
)
ASK_AGAIN = "UPDATE enrichment.listing SET requested = requested + 1, status = 'pending'"
CLAIM_SIZE = 100


def result(claim: Claim, photos: int, failed: int) -> ListingResult:
    """A listing with photos of its own, of which the first `failed` are asked for and time out."""
    found = []
    for position in range(photos):
        url = f"https://img.example/{claim.id}/{position}.jpg"
        photo, key = Photo(position, url, url_key(url), url), url_key(url)
        score = PhotoScore(key, position, {"m" * 64: {"balcony": (1.25,), "room": (0.5, -2.0, 1.5, 0.25)}})
        if position < failed:
            late = PhotoResult(photo, PhotoStatus.TIMEOUT, key, score, requested=True, failures=1)
            found.append(late)
        else:
            good = Validators(f'"{key[:16]}"')
            found.append(PhotoResult(photo, PhotoStatus.OK, key, score, good, requested=failed == 0))
    attributes = Attributes(
        {"has_balcony": True, "balcony_confidence": 0.9312, "room_types": ["kitchen"]},
        {"balcony": Evidence(found[-1].photo.shown_url, photos - 1, 0.9312)},
        {"room_counts": {"kitchen": photos}},
        photos,
        photos - failed,
        failed,
    )
    source = ListingPhotos(claim.id, "fp", None, tuple(r.photo for r in found))
    return ListingResult(claim, source, tuple(found), attributes, "bundle")


def claims(state: Listings) -> Iterator[Claim]:
    while claimed := state.claim(CLAIM_SIZE):
        yield from claimed


def measured(database: Database, work: Callable[[], None]) -> tuple[float, float, float]:
    """(seconds, CPU-seconds, MB of write-ahead log) of some work, from a fresh checkpoint."""
    position = text("SELECT pg_current_wal_lsn() - '0/0'")
    with database.engine.connect() as connection:
        connection.exec_driver_sql("CHECKPOINT")
        before = connection.scalar(position)
    start, used = time.perf_counter(), time.process_time()
    work()
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return seconds, used, float(database.run(lambda c: c.scalar(position)) - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listings", type=int, default=10_000)
    parser.add_argument("--photos", type=int, default=25)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 32], help="listings per transaction")
    options = parser.parse_args()
    rows = []
    with server() as home:
        for group in options.groups:
            url = fresh_database(home)
            execute(url, ADD.format(options.listings))
            database = Database(url)
            state = Listings(database, lease_seconds=86_400, max_attempts=5)
            for name, failed in (("first completion", 0), ("one status changed", 1)):
                held = list(claims(state))

                def work(
                    state: Listings = state,
                    held: list[Claim] = held,
                    group: int = group,
                    failed: int = failed,
                ) -> None:
                    for start in range(0, len(held), group):
                        some = held[start : start + group]
                        found = [result(claim, options.photos, failed) for claim in some]
                        assert len(state.complete(found)) == len(some)

                seconds, used, megabytes = measured(database, work)
                each = (used / options.listings, megabytes / options.listings)
                rows.append([name, str(group), f"{seconds:.1f}", *(f"{1000 * share:.2f}" for share in each)])
                execute(url, ASK_AGAIN)
            database.close()
    print(f"{options.listings:,} listings x {options.photos} photos, {os.cpu_count()} cores\n")
    print(table(["", "group", "seconds", "CPU ms per listing", "WAL kB per listing"], rows))


if __name__ == "__main__":
    main()
