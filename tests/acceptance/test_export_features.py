"""`enrich export-features`: what is published of the listings, and the features of their photos."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from enrich.model.bundle import load_bundle
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode
from jobs import export
from tests.support.bundles import draw_bytes
from tests.support.harness import World, seed_of


@pytest.fixture
def enriched(world: World) -> World:
    """A house with two views, one of them twice, a flat whose photos are gone, and a plot without any."""
    world.listing("house", "kitchen", "balcony")
    near = world.photos.add("/near.jpg", draw_bytes("kitchen", seed_of("house", 0), format="PNG"))
    world.portal.add_photo("house", 2, near)
    world.listing("flat", "bedroom", "fireplace")
    world.portal.add("plot")
    world.run()
    world.portal.execute(
        "DELETE FROM enrichment.photo_embedding USING enrichment.photo, enrichment.listing_photo"
        " WHERE listing_id = 'flat' AND photo.key = listing_photo.key"
        " AND photo.sha256 = photo_embedding.sha256"
    )
    assert world.enrich_here("override", "flat", "has_balcony=true").returncode == 0
    return world


def features(world: World, *bodies: bytes) -> list[np.ndarray]:
    bundle = load_bundle(world.fixed["bundle"])
    pixels = [decode(body, bundle.preprocessings, 10**6).pixels for body in bodies]
    made = TorchEngine(bundle, "cpu").score(pixels)
    return [one[bundle.members[0].model_id].features for one in made]


def test_a_row_per_listing(enriched: World, tmp_path: Path) -> None:
    ended = enriched.enrich_here("export-features", str(tmp_path / "homes.parquet"))
    assert (ended.returncode, ended.stdout) == (0, f"3 listings written to {tmp_path / 'homes.parquet'}\n")
    rows = {row["listing_id"]: row for row in pq.read_table(tmp_path / "homes.parquet").to_pylist()}
    house, flat, plot = (rows[id] for id in ("house", "flat", "plot"))
    document = enriched.documents()["house"]
    for name in ("has_balcony", "balcony_confidence", "fireplace_confidence", "room_types", "photo_count"):
        assert house[name] == document[name]
    assert (house["room_counts_kitchen"], house["room_counts_bathroom"]) == (1, 0)
    assert (house["photo_count"], house["views"]) == (3, 2), "a near-duplicate counts once"
    shown = [draw_bytes(kind, seed_of("house", n)) for n, kind in enumerate(("kitchen", "balcony"))]
    expected = np.mean(features(enriched, *shown), axis=0)
    np.testing.assert_allclose(house["embedding"], expected, rtol=2e-3, atol=1e-3)
    assert flat["has_balcony"] is True and flat["balcony_confidence"] == 1.0, "as a person said"
    assert (flat["views"], flat["embedding"]) == (0, None)
    assert (plot["has_balcony"], plot["room_types"], plot["photo_count"]) == (None, None, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["homes.parquet"]


def test_a_row_per_photo(enriched: World, tmp_path: Path) -> None:
    ended = enriched.enrich_here("export-features", str(tmp_path / "photos.parquet"), "--photos")
    assert ended.returncode == 0, ended.stderr
    rows = pq.read_table(tmp_path / "photos.parquet").to_pylist()
    assert [(row["listing_id"], row["position"]) for row in rows] == [("house", n) for n in range(3)]
    (expected,) = features(enriched, draw_bytes("balcony", seed_of("house", 1)))
    np.testing.assert_allclose(rows[1]["embedding"], expected, rtol=1e-3, atol=1e-3)
    assert rows[1]["url"] == enriched.photos.url("/house/1.jpg")


def test_rows_come_in_groups(enriched: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.run.services import open_records

    monkeypatch.setattr(export, "GROUP", 2)
    monkeypatch.setattr("enrich.state.exporting.PAGE", 1)
    with open_records(enriched.settings()) as records:
        assert export.export(records, tmp_path / "homes.parquet", photos=False) == 3
    file = pq.ParquetFile(tmp_path / "homes.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [2, 1]


def test_without_pyarrow_one_line_says_what_to_install(enriched: World, tmp_path: Path) -> None:
    without = "import sys; sys.modules['pyarrow'] = None\nfrom jobs.cli.commands import main; main()"
    ended = enriched.script(without, "export-features", str(tmp_path / "homes.parquet"))
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "pip install 'listing-enrichment[features]'" in ended.stderr


def test_a_folder_that_is_not_there_is_said_before_anything_is_read(enriched: World, tmp_path: Path) -> None:
    ended = enriched.enrich_here("export-features", str(tmp_path / "none" / "homes.parquet"))
    assert ended.returncode == 2 and "folder that exists" in ended.stderr


def test_a_file_that_does_not_fit_is_one_line_and_leaves_nothing_behind(
    enriched: World, tmp_path: Path
) -> None:
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    file = tmp_path / "homes.parquet"
    ended = enriched.script(
        small + "from jobs.cli.commands import main; main()", "export-features", str(file)
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert f"{file} cannot be written" in ended.stderr and "File too large" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_no_wrong_usage(world: World, tmp_path: Path) -> None:
    world.listing("house", "kitchen")
    world.run()
    (tmp_path / ".homes.parquet.part").symlink_to("/dev/full")
    ended = world.enrich_here("export-features", str(tmp_path / "homes.parquet"))
    assert ended.returncode == 3 and "No space left on device" in ended.stderr
    assert list(tmp_path.iterdir()) == []
