"""Bytes per photo of kept features in Postgres, and how far they move probabilities.

python benchmarks/embeddings.py [--photos ../shared/photos] [--count 240]
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from bench_database import fresh_database, server
from sqlalchemy import text

from enrich.model.bundle import Bundle, load_bundle
from enrich.model.features import Kept, LinearHeads, feature_id, pack, unpack
from enrich.model.open import open_engine
from enrich.photos.decode import decode
from enrich.records import Output, PhotoScore
from enrich.settings import STARTER_BUNDLE, load_settings
from enrich.state import embeddings
from enrich.state.database import Database
from training.markdown import table

COPIES = 5  # of each photo, so that half-filled pages count for little
SIZE = text("SELECT pg_total_relation_size('photo_embedding')::float / count(*) FROM photo_embedding")


def outputs(root: Path, count: int, bundle: Bundle) -> list[Output]:
    """What the bundle's one member makes of `count` photos of whole homes, spread over all of them."""
    with (root / "manifest.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file) if row["path"].startswith("web_homes/")]
    engine = open_engine(bundle, load_settings(device="cpu"))
    made = []
    for path in paths[:: len(paths) // count][:count]:
        decoded = decode((root / path).read_bytes(), bundle.preprocessings, 10**8)
        made += engine.score([decoded.pixels])
    return [by_model[bundle.members[0].model_id] for by_model in made]


def bytes_per_photo(home: Path, made: list[Output], kind: Kept, feature: str) -> float:
    packed = [pack(output.features, kind) for output in made] * COPIES
    scores = [PhotoScore(f"{n:064x}", 0, {}, {feature: one}) for n, one in enumerate(packed) if one]
    database = Database(fresh_database(home))
    for score in scores:
        database.run(lambda connection, score=score: embeddings.save(connection, [score]))  # type: ignore[misc]
    size = database.run(lambda connection: connection.execute(SIZE).scalar_one())
    database.close()
    return float(size)


def drift(bundle: Bundle, made: list[Output], kind: Kept) -> float:
    """The largest change of any probability of any photo."""
    (member,) = bundle.members
    packed = [one for output in made if (one := pack(output.features, kind))]
    scales, data = np.array([one.scale for one in packed]), b"".join(one.data for one in packed)
    again = LinearHeads(bundle, member).scores(unpack(kind, scales, data))
    return max(
        float(
            np.abs(head.probabilities(scores[head.name]) - head.probabilities(output.scores[head.name])).max()
        )
        for scores, output in zip(again, made, strict=True)
        for head in member.heads
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--count", type=int, default=240)
    options = parser.parse_args()
    bundle = load_bundle(STARTER_BUNDLE)
    made = outputs(options.photos, options.count, bundle)
    rows = []
    kinds: tuple[Kept, ...] = ("float16", "int8")
    with server() as home:
        for kind in kinds:
            size = bytes_per_photo(home, made, kind, feature_id(bundle.members[0]))
            rows.append([kind, f"{size:.0f}", f"{drift(bundle, made, kind):.5f}"])
    print(f"{len(made)} photos, {made[0].features.size} features")
    print(table(["kept as", "bytes per photo", "change of a probability, at most"], rows))


if __name__ == "__main__":
    main()
