"""Milliseconds until the review queue has its next listing, in a portal of a million.

    python benchmarks/review.py [--listings 1000000] [--said 50000] [--repeat 20]

An embedded server of its own. People said something of one listing in twenty, and the last bundle changed one
in a hundred. Medians; with the index that `enrich migrate` makes, and without it.
"""

import argparse
import statistics
import time

from bench_database import execute, fresh_database, server

import migrations
from enrich.state.answers import Answers
from enrich.state.database import Database
from enrich.state.review import Question, queue
from enrich.state.schema import SCHEMA
from training.markdown import table

ASKED = [
    Question("balcony", "has_balcony", "balcony_confidence", (0.81, 0.12)),
    Question("fireplace", "has_fireplace", "fireplace_confidence", (0.74, 0.08)),
]
LISTINGS = """
INSERT INTO enrichment.listing (id, photo_fp, doc_fp, status, bundle_id, revision, photos, model_attributes)
SELECT l, 'fp', 'fp', 'done', 'bundle', 1,
       jsonb_build_array(jsonb_build_object('key', md5(l::text), 'url', repeat(md5(l::text), 4))),
       jsonb_build_object(
           'fields', jsonb_build_object(
               'has_balcony', l % 7 = 0, 'balcony_confidence', round(random()::numeric, 4),
               'has_fireplace', l % 9 = 0, 'fireplace_confidence', round(random()::numeric, 4),
               'room_types', '["kitchen", "bathroom", "bedroom"]'::jsonb),
           'evidence', '{{}}'::jsonb, 'counts', '{{}}'::jsonb, 'photos_seen', 12, 'photo_count', 12)
FROM generate_series(1, {listings}) AS l
"""
SAID = """
INSERT INTO enrichment.override (listing_id, field, value, created_by)
SELECT l * ({listings} / {said}), 'has_balcony', to_jsonb(l % 3 = 0), 'ann'
FROM generate_series(1, {said}) AS l
"""
FLIPPED = """
INSERT INTO enrichment.history (listing_id, field, before, after, bundle_id, bundle_before, cause)
SELECT l * 100 - 1, 'has_balcony', 'true', 'null', 'bundle', 'earlier', 'model'
FROM generate_series(1, {listings} / 100) AS l
"""


def measured(database: Database, repeat: int) -> list[str]:
    """Median milliseconds of the queue and of an answer, and how many listings the queue had."""
    asking, answering = [], []
    answers = Answers(database, "bob", [question.field for question in ASKED])
    for _ in range(repeat):
        start = time.perf_counter()
        found = queue(database, "bundle", "bob", ASKED, 100)
        asking.append(time.perf_counter() - start)
        start = time.perf_counter()
        answers.answer(found[0].id, found[0].question.field, None)
        answering.append(time.perf_counter() - start)
    milliseconds = [f"{1000 * statistics.median(some):.1f}" for some in (asking, answering)]
    return [*milliseconds, str(len(found))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listings", type=int, default=1_000_000)
    parser.add_argument("--said", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    with server() as home:
        url = fresh_database(home)
        given = {"listings": options.listings, "said": options.said}
        execute(url, *(one.format(**given) for one in (LISTINGS, SAID, FLIPPED)))
        execute(url, f"ANALYZE {SCHEMA}.listing, {SCHEMA}.override, {SCHEMA}.history")
        database = Database(url)
        rows = [["without the index", *measured(database, max(options.repeat // 10, 1))]]
        migrations.upgrade(url, numbers=[question.number for question in ASKED])
        rows.append(["as migrated", *measured(database, options.repeat)])
        database.close()
    print(f"{options.listings:,} listings, {options.said:,} of them overridden\n")
    print(table(["", "ms per queue of 100", "ms per answer", "found"], rows))


if __name__ == "__main__":
    main()
