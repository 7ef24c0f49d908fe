"""Photos per second of `enrich rescore` against full runs with the same model, all in one run.

    python benchmarks/rescore.py [--photos ../shared/photos] [--homes 25] [--copies 100]

The full runs fetch, decode and score real photos of whole homes, served over HTTP on loopback: in fp32, and
in the arithmetic that `auto` picks here. What the latter left in state is then copied under other ids, since
the real homes alone are done in an instant, and other heads on the same backbone are applied to all of it.
Everything is the whole command, on the embedded Postgres and index. CPU time is the process's and Postgres's.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_database import cpu_seconds, execute, fresh_database, server
from photo_host import photo_host
from pipeline import Home, homes, seeded
from sqlalchemy import create_engine, text

from enrich.model.bundle import Bundle, load_bundle
from enrich.model.open import choose
from enrich.model.writing import write_bundle
from enrich.settings import STARTER_BUNDLE, Settings, load_settings
from enrich.source.discover import discover
from enrich.source.portal import Source
from enrich.state.database import Database, parse_url
from jobs.run.nightly import RunOptions, run
from jobs.run.record import RunReport
from jobs.run.rescore import rescore
from jobs.run.stop import Stop
from training.markdown import table

COPY_SOURCE = (
    "INSERT INTO listings SELECT id + 1000000 * c, updated_at FROM listings, generate_series(1, {0}) c",
    "INSERT INTO listing_images SELECT listing_id + 1000000 * c, position, url || '?copy=' || c, version"
    " FROM listing_images, generate_series(1, {0}) c",
    "CREATE INDEX ON listing_images (listing_id)",
)
SHA = "encode(sha256(convert_to({}, 'UTF8')), 'hex')"
COPY_STATE = (
    f"""CREATE TEMP TABLE copied ON COMMIT DROP AS
        SELECT (l.id::int + 1000000 * c)::text AS id, one ->> 'sha256' AS original,
               {SHA.format("(one ->> 'url') || '?copy=' || c")} AS key,
               {SHA.format("(one ->> 'sha256') || '/' || c")} AS sha256,
               one || jsonb_build_object('url', (one ->> 'url') || '?copy=' || c) AS photo, number
        FROM enrichment.listing l, jsonb_array_elements(l.photos) WITH ORDINALITY AS p (one, number),
             generate_series(1, {{0}}) c
        WHERE l.id::int < 1000000""",
    "INSERT INTO enrichment.photo (key, status, sha256) SELECT DISTINCT key, 'ok', sha256 FROM copied",
    "INSERT INTO enrichment.listing_photo (key, listing_id) SELECT DISTINCT key, id FROM copied",
    """INSERT INTO enrichment.photo_score SELECT DISTINCT ON (c.sha256) c.sha256, model_id, dhash, scores
       FROM copied c JOIN enrichment.photo_score s ON s.sha256 = c.original""",
    """INSERT INTO enrichment.photo_embedding
       SELECT DISTINCT ON (c.sha256) c.sha256, feature_id, kind, scale, bytes
       FROM copied c JOIN enrichment.photo_embedding e ON e.sha256 = c.original""",
    """UPDATE enrichment.listing l SET
              status = 'done', photo_fp_done = l.photo_fp, updated_at_done = l.updated_at,
              bundle_id = o.bundle_id, attributes = o.attributes, model_attributes = o.model_attributes,
              photos = c.photos, revision = 1, pending_since = NULL
       FROM enrichment.listing o, (
           SELECT id, jsonb_agg(photo || jsonb_build_object('key', key, 'sha256', sha256) ORDER BY number)
           FROM copied GROUP BY id) c (id, photos)
       WHERE c.id = l.id AND o.id = (l.id::int % 1000000)::text AND l.id <> o.id""",
)


def other_heads(folder: Path) -> Bundle:
    """The starter bundle's backbone with heads that are a little less sure."""
    bundle = load_bundle(STARTER_BUNDLE)
    (member,) = bundle.members
    tensors: dict[str, Any] = bundle.tensors(member)
    tensors = {
        name: tensor.astype("float16") if name.startswith("backbone.") else tensor * 0.9
        for name, tensor in tensors.items()
    }
    manifest = {key: value for key, value in bundle.manifest.items() if key not in ("files", "format")}
    irs = {name: (bundle.folder / name).read_bytes() for name in bundle.manifest["files"]}
    del irs[member.weights]
    return write_bundle(folder, manifest, {member.weights: tensors}, irs)


def copy(url: str, copies: int, settings: Settings) -> int:
    """Copy what was enriched under other ids; how many photos there are then."""
    execute(url, *(statement.format(copies) for statement in COPY_SOURCE))
    database = Database(url)
    discover(Source(database, settings), database, settings, 0)
    execute(url, *(statement.format(copies) for statement in COPY_STATE))
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
        count = connection.scalar(text("SELECT count(*) FROM enrichment.photo_embedding"))
    engine.dispose()
    database.close()
    return int(count or 0)


@dataclass(frozen=True)
class Spent:
    """What a command took for its photos."""

    name: str
    photos: int
    seconds: float
    cpu: float

    def row(self, *others: "Spent") -> list[str]:
        speed, cpu = self.photos / self.seconds, 1e6 * self.cpu / self.photos
        ratios = [
            f"{speed * other.seconds / other.photos:.0f}, {1e6 * other.cpu / other.photos / cpu:.0f}"
            for other in others
        ]
        return [self.name, f"{speed:.0f}", f"{cpu:.0f}", *ratios]


def spent(name: str, home: Path, work: Callable[[], RunReport]) -> tuple[Spent, RunReport]:
    before, start = cpu_seconds(home), time.perf_counter()
    report = work()
    seconds = time.perf_counter() - start
    time.sleep(1)  # until the server has counted what its processes took that have ended
    return Spent(name, report.figures.photos, seconds, cpu_seconds(home) - before), report


def full_run(name: str, chosen: list[Home], host: str, root: Path, home: Path) -> tuple[Spent, Settings]:
    """A first run over these homes in an arithmetic, with the settings it ran with."""
    url = fresh_database(home)
    seeded(url, chosen, host, root)
    settings = load_settings(
        database_url=url, precision=name, allowed_private_hosts=("127.0.0.1",), log_interval=600
    )
    taken, report = spent(f"full run, {name}", home, lambda: run(settings, RunOptions(), Stop()))
    assert report.figures.scored and not report.figures.failures, report.as_json()
    return taken, settings


def measured(chosen: list[Home], root: Path, home: Path, copies: int) -> None:
    with photo_host(root) as (host, _):
        for name in ("fp32", "auto"):
            full_run(name, chosen[:2], host, root, home)  # converts the model
        exact, _ = full_run("fp32", chosen, host, root, home)
        fast, settings = full_run("auto", chosen, host, root, home)
    url = settings.database_url
    assert url is not None
    photos = copy(url.get_secret_value(), copies, settings)  # no host: whoever asked for a photo would fail
    settings = settings.model_copy(update={"bundle": other_heads(home / "other").folder})
    taken, report = spent("rescore", home, lambda: rescore(settings, None, Stop()))
    assert report.rescored is not None and not report.rescored.left and not report.figures.failures
    assert report.rescored.photos == photos and report.figures.listings == len(chosen) * (copies + 1)
    print(
        f"{fast.photos} photos fetched and scored, {photos} rescored; "
        f"auto is {choose(load_bundle(STARTER_BUNDLE), settings).bundle.arithmetic}\n"
    )
    heads = ["", "photos/s", "CPU µs per photo", "against fp32: speed, CPU", "against auto: speed, CPU"]
    print(table(heads, [[*exact.row(), "", ""], [*fast.row(exact), ""], taken.row(exact, fast)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--homes", type=int, default=25)
    parser.add_argument("--copies", type=int, default=100)
    options = parser.parse_args()
    root = options.photos.resolve()
    with server() as home:
        measured(homes(root, options.homes), root, home, options.copies)


if __name__ == "__main__":
    main()
