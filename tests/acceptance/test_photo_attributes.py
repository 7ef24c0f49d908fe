"""The view `photo_attributes` says of each photo what `enrich show` says, so that a gallery can be sorted."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from jobs.migrate import migrate
from jobs.run.services import open_records
from jobs.views.show import explain
from tests.support.bundles import binary_head, make_bundle, room_head
from tests.support.harness import World, seed_of

DOCS = Path(__file__).parents[2] / "docs"
BALCONY = "balcony_probability"
VIEW = "SELECT * FROM enrichment.photo_attributes WHERE listing_id = :id ORDER BY position"


def shown(world: World, id: str) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in world.portal.execute(VIEW, id=id)]


def test_each_photo_has_the_probabilities_that_show_explains(world: World) -> None:
    world.listing("a", "kitchen", "balcony", "bedroom")
    world.listing("b", "fireplace")
    migrate(world.settings())
    world.run()
    photos = shown(world, "a")
    assert [(p["position"], p["room_type"]) for p in photos] == [
        (0, "kitchen"),
        (1, "other"),
        (2, "bedroom"),
    ]
    with open_records(world.settings()) as records:
        explained = [photo["probabilities"] for photo in explain(records, "a")["photos"]]
    for photo, said in zip(photos, explained, strict=True):
        assert photo["balcony_probability"] == pytest.approx(said["balcony"], abs=1e-4)
        assert photo["fireplace_probability"] == pytest.approx(said["fireplace"], abs=1e-4)
        assert photo["room_probability"] == pytest.approx(max(said["room"].values()), abs=1e-4)
        assert photo["near_duplicate_of"] is None


def test_a_failed_photo_has_no_answer_and_a_near_duplicate_names_the_first(world: World) -> None:
    first, _ = world.listing("a", "kitchen", "balcony")
    world.portal.add_photo("a", 2, world.photo("kitchen", seed_of("a", 0), "/same-bytes.jpg"))
    world.portal.add_photo("a", 3, world.photos.url("/missing.jpg"))
    world.portal.add_photo("a", 4, first)
    migrate(world.settings())
    world.run()
    photos = shown(world, "a")
    assert [photo["near_duplicate_of"] for photo in photos] == [None, None, 0, None, 0]
    assert [photo["room_type"] for photo in photos] == ["kitchen", "other", "kitchen", None, "kitchen"]
    assert photos[3]["balcony_probability"] is None


def test_the_answers_are_those_of_the_bundle_that_made_the_listing(world: World, tmp_path: Path) -> None:
    """While a new bundle is rolled out, a listing that it has not reached keeps its answers."""
    (url,) = world.listing("a", "balcony")
    migrate(world.settings())
    world.run()
    before = shown(world, "a")
    heads = [binary_head("balcony") | {"temperature": 4.0}, binary_head("fireplace"), room_head()]
    world.fixed["bundle"] = make_bundle(tmp_path / "other", heads=heads).folder
    world.portal.add("b", [url])
    world.run()
    assert shown(world, "a") == before
    (other,) = shown(world, "b")
    sure, less_sure = (math.log(p / (1 - p)) for p in (before[0][BALCONY], other[BALCONY]))
    assert less_sure == pytest.approx(sure / 4)


def test_the_documented_queries_sort_a_gallery_and_choose_a_cover(world: World) -> None:
    world.listing("1009", "bathroom", "balcony", "kitchen")
    world.listing("1010", "bedroom")
    migrate(world.settings())
    world.run()
    page = (DOCS / "database.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    gallery, cover = [sql for sql in queries if "photo_attributes\nWHERE" in sql]
    assert [row.room_type for row in world.portal.execute(gallery)] == ["kitchen", "bathroom", "other"]
    covers = {row.listing_id: row.url for row in world.portal.execute(cover)}
    assert covers["1009"].endswith("/1009/1.jpg") and covers["1010"].endswith("/1010/0.jpg")


def test_without_the_bundle_that_made_the_listing_there_is_no_answer(world: World) -> None:
    """As in a database from before version 0004, until a run has used the bundle."""
    world.listing("a", "balcony", "kitchen")
    migrate(world.settings())
    world.run()
    world.portal.execute("DELETE FROM enrichment.bundle")
    answers = ("room_type", "room_probability", BALCONY, "fireplace_probability")
    assert [[photo[name] for name in answers] for photo in shown(world, "a")] == [[None] * 4] * 2


def test_a_photo_that_is_surer_than_numbers_tell_leaves_the_view_readable(world: World) -> None:
    world.listing("a", "balcony")
    migrate(world.settings())
    world.run()
    world.portal.execute("""UPDATE enrichment.photo_score SET scores = scores || '{"balcony": [4000.0]}'""")
    assert shown(world, "a")[0][BALCONY] == 1.0
