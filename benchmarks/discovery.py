"""Seconds of a discovery over unchanged listings by how their URLs look, and its share of plain reading.

    python benchmarks/discovery.py [--listings 100000] [--photos 25] [--urls plain signed s3] [--plans]

Compared within one run, in turns: the whole discovery (fingerprints in Postgres, compared with state) with
plain URLs, with URLs of which one parameter is ignored, and with URLs as S3 signs them; against the ids and
the fingerprints alone, and against reading all image rows into Python. It ends with what Postgres spilled to
disk, and with `--plans` with the plans of the statements that read the portal.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_database import cpu_seconds, fill, fresh_database, server
from sqlalchemy import text

from enrich.settings import Settings, load_settings
from enrich.source import statements
from enrich.source.discover import discover
from enrich.source.pages import IDS
from enrich.source.portal import Source
from enrich.state.database import Database
from training.markdown import table

URLS = {
    "plain": "",
    "signed": "?X-Amz-Date=1&w=9",
    "s3": "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261128%2Feu-north-1"
    "%2Fs3%2Faws4_request&X-Amz-Date=20261128T030000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024&w=800",
}


@dataclass(frozen=True)
class Portal:
    """A portal of its own, all of whose listings are known to state and done."""

    database: Database
    source: Source
    settings: Settings
    listings: int
    rows: int
    first: tuple[float, float]
    """Seconds and CPU-seconds of the first discovery."""

    def unchanged(self) -> None:
        found = discover(self.source, self.database, self.settings, 2)
        assert found.unchanged == self.listings, found

    def chunks(self) -> Iterator[list[str]]:
        after, size = None, self.settings.page_size
        while ids := self.source.ids(after, IDS):
            yield from (ids[start : start + size] for start in range(0, len(ids), size))
            after = ids[-1]

    def ids(self) -> None:
        assert sum(map(len, self.chunks())) == self.listings

    def fingerprints(self) -> None:
        assert sum(len(self.source.by_ids(chunk)) for chunk in self.chunks()) == self.listings

    def plain(self) -> None:
        images = text("SELECT listing_id, position, url, version FROM public.listing_images")
        options = {"stream_results": True, "max_row_buffer": 10_000}
        read = self.database.run(lambda c: sum(1 for _ in c.execution_options(**options).execute(images)))
        assert read == self.rows

    def spilled(self) -> int:
        """Bytes of temporary files that Postgres wrote since the portal was filled."""
        count = text("SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()")
        return int(self.database.run(lambda c: c.scalar(count)))

    def plans(self) -> str:
        which = "l.id = ANY(CAST(:ids AS bigint[]))"
        page = {"which": which, "params": {"ids": [int(id) for id in next(self.chunks())]}}
        ids = {"which": "true", "params": {"after": None, "limit": IDS}}
        shown = []
        for statement, given in ((statements.IDS, ids), (statements.FINGERPRINTS, page)):
            rows = self.source._read(
                f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) {statement}", **given
            )
            shown += [line if len(line) < 160 else line[:157] + "..." for (line,) in rows] + [""]
        return "\n".join(shown)


def portal(home: Path, listings: int, photos: int, query: str) -> Portal:
    url = fresh_database(home)
    fill(url, listings, photos, "https://img.example/{listing}/{photo}.jpg" + query)
    settings = load_settings(database_url=url, index_columns=("city", "price"))
    database = Database(url)
    database.run(
        lambda c: c.execute(text("SELECT pg_stat_reset()"))
    )  # making the index wrote temporary files
    source = Source(database, settings)
    first = timed(home, lambda: discover(source, database, settings, 1))
    done = text("UPDATE enrichment.listing SET updated_at_done = updated_at, photo_fp_done = photo_fp")
    database.run(lambda c: c.execute(done))
    return Portal(database, source, settings, listings, listings * photos, first)


def timed(home: Path, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU-seconds of Postgres and of this process."""
    spent, start = cpu_seconds(home), time.perf_counter()
    work()
    return time.perf_counter() - start, cpu_seconds(home) - spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--photos", type=int, default=25)
    parser.add_argument("--urls", nargs="+", choices=URLS, default=list(URLS))
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--plans", action="store_true")
    options = parser.parse_args()
    with server() as home:
        portals = {name: portal(home, options.listings, options.photos, URLS[name]) for name in options.urls}
        rounds = [
            {name: timed(home, known.unchanged) for name, known in portals.items()}
            for _ in range(options.repeat)
        ]
        base = options.urls[0]
        least, least_cpu = (min(times[base][n] for times in rounds) for n in range(2))
        rows = []
        for name, known in portals.items():
            parts = {
                "**discovery, all unchanged**": tuple(min(t[name][n] for t in rounds) for n in range(2)),
                "ids alone": timed(home, known.ids),
                "ids and fingerprints alone": timed(home, known.fingerprints),
                "all image rows into Python": timed(home, known.plain),
                "first discovery, all new": known.first,
            }
            rows += [
                [name, what, f"{s:.1f}", f"{cpu:.1f}", f"{s / least:.2f}", f"{cpu / least_cpu:.2f}"]
                for what, (s, cpu) in parts.items()
            ]
        spilled = sum(known.spilled() for known in portals.values())
        print(f"{options.listings:,} listings x {options.photos} images, {os.cpu_count()} cores\n")
        against = [f"seconds against {base}", f"CPU against {base}"]
        print(table(["URLs", "", "seconds", "CPU-seconds", *against], rows))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\npeak memory of this process: {peak:.0f} MB; spilled to disk by Postgres: {spilled} bytes")
        if options.plans:
            print(f"\n```\n{portals[base].plans()}```")
        for known in portals.values():
            known.database.close()


if __name__ == "__main__":
    main()
