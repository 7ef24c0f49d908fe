"""`enrich export-features`: what is known of the listings as a Parquet file, for a model of one's own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrich.atomic import is_folder, new_file, writing
from enrich.errors import UsageError
from enrich.model.bundle import Bundle
from enrich.model.features import feature_id, unpack
from enrich.model.head import Head
from enrich.model.seen import distinct_views
from enrich.records import Packed
from enrich.state.exporting import Exported, kept_most, pages
from jobs.run.services import Records

GROUP = 1_000  # rows per row group, and in memory at once: 10 MB of the starter bundle's features

Vector = NDArray[np.float32]


def export(records: Records, path: Path, photos: bool) -> int:
    """Write a row per enriched listing, or per photo with kept features; how many rows.

    The features are those of the bundle's first member, in the arithmetic in which most were kept: a machine
    with another one may have scored the photos. The file appears when it is complete.

    Raises:
        UsageError: pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        install = "pip install 'listing-enrichment[features]'"
        raise UsageError(f"export-features needs pyarrow: {install}") from None
    with writing(str(path)):
        if not is_folder(path.parent) or is_folder(path):
            raise UsageError(f"{path} cannot be written: name a file in a folder that exists")
    features = [feature_id(one.members[0]) for one in records.bundle.in_all_arithmetics]
    feature = kept_most(records.database, features)
    rows = 0
    heads = records.bundle.heads
    with writing(str(path)), _writer(path, _schema(records.bundle, photos)) as write:
        for listings, packed in pages(records.database, feature):
            kept = _unpacked(packed)
            for listing in listings:
                made = _photo_rows(listing, kept) if photos else [_row(listing, kept, heads)]
                for row in made:
                    write(row)
                    rows += 1
    return rows


def _schema(bundle: Bundle, photos: bool) -> Any:
    import pyarrow as pa

    embedding = ("embedding", pa.list_(pa.float32()))
    if photos:
        strings = [(name, pa.string()) for name in ("listing_id", "url", "sha256")]
        return pa.schema([*strings, ("position", pa.int32()), embedding])
    types = {"boolean": pa.bool_(), "double precision": pa.float64(), "text[]": pa.list_(pa.string())}
    fields = [
        (name, types[kind]) for head in bundle.heads for name, kind in head.rules.columns(head.name).items()
    ]
    counted = ("photo_count", "photos_seen", *(name for head in bundle.heads for name in _counts(head)))
    counts = [(name, pa.int32()) for name in counted]
    ids = [("listing_id", pa.string()), ("bundle", pa.string())]
    return pa.schema([*ids, *fields, *counts, ("views", pa.int32()), embedding])


def _counts(head: Head) -> dict[str, tuple[str, str]]:
    """Column -> the count of a class, by the attributes' names."""
    return {
        f"{kept}_{one.name}": (kept, one.name)
        for kept in head.rules.kept(head.name)
        for one in head.classes
        if one.publish
    }


def _row(listing: Exported, kept: Mapping[str, tuple[int, Vector]], heads: Sequence[Head]) -> dict[str, Any]:
    attributes = listing.attributes
    fields, counts = attributes.get("fields", {}), attributes.get("counts", {})
    found = [kept[photo["sha256"]] for photo in listing.photos if photo["sha256"] in kept]
    views = distinct_views([dhash for dhash, _ in found])
    first = [found[views.index(view)][1] for view in dict.fromkeys(views)]
    return {
        "listing_id": listing.id,
        "bundle": listing.bundle_id,
        **{name: fields.get(name) for head in heads for name in head.rules.columns(head.name)},
        "photo_count": attributes.get("photo_count"),
        "photos_seen": attributes.get("photos_seen"),
        **{
            column: counts[of].get(name, 0) if of in counts else None
            for head in heads
            for column, (of, name) in _counts(head).items()
        },
        "views": len(first),
        "embedding": np.mean(first, axis=0, dtype=np.float32) if first else None,
    }


def _photo_rows(listing: Exported, kept: Mapping[str, tuple[int, Vector]]) -> Iterator[dict[str, Any]]:
    for photo in listing.photos:
        if photo["sha256"] in kept:
            told = {name: photo[name] for name in ("url", "sha256", "position")}
            yield {"listing_id": listing.id, **told, "embedding": kept[photo["sha256"]][1]}


def _unpacked(groups: Sequence[Packed]) -> dict[str, tuple[int, Vector]]:
    """sha256 -> difference hash and features."""
    return {
        sha: (dhash, row)
        for packed in groups
        for sha, dhash, row in zip(
            packed.shas,
            packed.hashes,
            unpack(packed.kind, np.array(packed.scales), packed.data),
            strict=True,
        )
    }


@contextmanager
def _writer(path: Path, schema: Any) -> Iterator[Any]:
    """A function that takes rows, one at a time, and writes them in groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[dict[str, Any]] = []

    def flush() -> None:
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema))
            waiting.clear()

    def write(row: dict[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) == GROUP:
            flush()

    with new_file(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        yield write
        flush()
