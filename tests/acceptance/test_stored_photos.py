"""Whole runs on photos that no web server has: in a folder, and in an object store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from enrich.records import PhotoStatus
from tests.support.bundles import draw_bytes, make_bundle
from tests.support.harness import World
from tests.support.object_store import BUCKET, ObjectServer

Put = Callable[[str, bytes], str]
PLACES = ["folder", "object store"]


@pytest.fixture(params=PLACES)
def put(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Put:
    """Stores a photo under a name, and says its URL; the world's settings allow it to be read."""
    if request.param == "object store":
        server: ObjectServer = request.getfixturevalue("object_server")
        world.fixed["allowed_stores"] = (f"s3://{BUCKET}/listings",)
        return lambda name, body: server.put(f"listings/{name}", body)
    world.fixed["allowed_folders"] = (str(tmp_path),)

    def write(name: str, body: bytes) -> str:
        (tmp_path / name).write_bytes(body)
        return (tmp_path / name).as_uri()

    return write


def test_a_run_its_repetition_and_bytes_that_changed(world: World, put: Put) -> None:
    urls = [put("kitchen.jpg", draw_bytes("kitchen")), put("second.jpg", draw_bytes("bedroom"))]
    world.portal.add("house", urls)
    first = world.run()
    assert first.exit_code == 0 and first.figures.fetched == first.figures.scored == 2
    document = world.documents()["house"]
    assert document["room_types"] == ["bedroom", "kitchen"] and "has_balcony" not in document

    again = world.run()
    assert (again.figures.photos, again.published.written) == (0, 0)
    asked = world.run(revalidate=True)
    assert (asked.figures.unchanged, asked.figures.bytes, asked.published.written) == (2, 0, 0)

    put("second.jpg", draw_bytes("balcony"))
    changed = world.run(revalidate=True)
    assert (changed.figures.unchanged, changed.figures.fetched, changed.figures.scored) == (1, 1, 1)
    document = world.documents()["house"]
    assert document["has_balcony"] is True and document["evidence"]["balcony"]["url"] == urls[1]


def test_a_missing_photo_costs_that_photo(world: World, put: Put) -> None:
    url = put("kitchen.jpg", draw_bytes("kitchen"))
    world.portal.add("house", [url, url.replace("kitchen", "gone"), "file:///etc/hostname"])
    report = world.run()
    assert report.exit_code == 0 and world.documents()["house"]["room_types"] == ["kitchen"]
    assert world.photo_statuses("house") == [
        PhotoStatus.OK,
        PhotoStatus.NOT_FOUND,
        PhotoStatus.FORBIDDEN_ADDRESS,
    ]


def test_a_photo_that_a_setting_forbade_is_asked_for_once_it_is_mended(
    world: World, put: Put, tmp_path: Path
) -> None:
    world.portal.add("house", [put("kitchen.jpg", draw_bytes("kitchen"))])
    forbidding = {"allowed_folders": (), "allowed_stores": ()}
    world.run(settings=forbidding)
    assert world.photo_statuses("house") == [PhotoStatus.FORBIDDEN_ADDRESS]
    still = world.backfill(settings=forbidding)
    assert (still.exit_code, still.figures.fetched, still.published.written) == (0, 0, 0)
    assert "room_types" not in world.documents()["house"]

    world.fixed["bundle"] = make_bundle(tmp_path / "other", name="other").folder
    rescored = world.enrich_here("rescore")
    assert rescored.returncode == 0, rescored.stderr
    assert world.photo_statuses("house") == [PhotoStatus.FORBIDDEN_ADDRESS], "rescoring asks for no photo"
    assert world.backfill().figures.fetched == 1
    assert world.documents()["house"]["room_types"] == ["kitchen"]
    assert world.run().figures.photos == 0


def test_check_samples_such_photos(world: World, put: Put) -> None:
    world.portal.add("house", [put("kitchen.jpg", draw_bytes("kitchen"))])
    checked = world.enrich_here("check")
    assert checked.returncode == 0, checked.stdout
    assert "1 of 1 sampled photos fetched and decoded" in checked.stdout
    refused = world.enrich_here("check", allowed_folders=(), allowed_stores=())
    assert refused.returncode == 2 and "forbidden_address" in refused.stdout
    assert "ENRICH_ALLOWED_FOLDERS and ENRICH_ALLOWED_STORES" in refused.stdout.replace("\n", " ")
