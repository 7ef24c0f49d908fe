"""Seconds of a discovery over unchanged listings, and its share of plain reading.

    python benchmarks/discovery.py [--listings 100000] [--photos 25] [--signed]

Compared within one run: the whole discovery (fingerprints in Postgres, compared with state) against computing
the fingerprints alone, and against reading all image rows into Python. `--signed`: URLs carry a signature
that has to be stripped from each, which is most of the work then.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable

from bench_database import fill, fresh_database, server
from sqlalchemy import text

from enrich.settings import load_settings
from enrich.source.discover import discover
from enrich.source.portal import Source
from enrich.state.database import Database
from training.markdown import table


def timed(work: Callable[[], object], repeat: int = 2) -> float:
    """The quickest of a few."""
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--photos", type=int, default=25)
    parser.add_argument("--signed", action="store_true")
    options = parser.parse_args()
    query = "?X-Amz-Date=1&w=9" if options.signed else ""
    with server() as home:
        url = fresh_database(home)
        fill(
            url,
            options.listings,
            options.photos,
            "https://img.example/{listing}/{photo}.jpg" + query,
        )
        settings = load_settings(database_url=url, index_columns=("city", "price"))
        database = Database(url)
        source = Source(database, settings)
        start = time.perf_counter()
        assert discover(source, database, settings, 1).new == options.listings
        first = time.perf_counter() - start
        database.run(lambda c: c.execute(text("UPDATE enrichment.listing SET updated_at_done = updated_at")))
        database.run(lambda c: c.execute(text("UPDATE enrichment.listing SET photo_fp_done = photo_fp")))

        rows = options.listings * options.photos

        def unchanged() -> None:
            found = discover(source, database, settings, 2)
            assert found.unchanged == options.listings, found

        def fingerprints() -> None:
            after, size = None, settings.page_size
            while page := source.page(after, size):
                after = page[-1].id

        def plain() -> None:
            images = text("SELECT listing_id, position, url, version FROM public.listing_images")
            assert database.run(lambda c: sum(1 for _ in c.execute(images))) == rows

        whole, alone, reading = timed(unchanged), timed(fingerprints), timed(plain, 1)
        database.close()
    print(f"{options.listings:,} listings x {options.photos} images, {os.cpu_count()} cores\n")
    measured = {
        "discovery, all unchanged": whole,
        "fingerprints alone": alone,
        "all image rows into Python": reading,
        "first discovery, all new": first,
    }
    print(
        table(
            ["", "seconds", "image rows/s", "discovery against it"],
            [[name, f"{s:.1f}", f"{rows / s:,.0f}", f"{whole / s:.2f}"] for name, s in measured.items()],
        )
    )
    print(
        f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
