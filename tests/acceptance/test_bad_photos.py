"""Bad photos: each costs only itself, ends in its named status, and comes right later where it can."""

import io
from typing import Any

import pytest
from PIL import Image

from jobs.run.services import open_services
from jobs.views.show import explain
from tests.support.bundles import draw, draw_bytes
from tests.support.harness import World, seed_of
from tests.support.photo_server import FINE, PhotoServer, Step, drip, endless, hang, redirect, status

SHOWS = "bedroom"  # what a bad photo shows, where it can be seen after all
HTML = b"<!DOCTYPE html><html><body>This photo has moved."
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
EXIF_ORIENTATION = 0x0112

FIRST = {
    "404": "not_found",
    "404, then fine": "not_found",
    "410": "gone",
    "500, then fine": "server_error",
    "timeout": "timeout",
    "endless slow body": "timeout",
    "over the byte cap": "too_many_bytes",
    "empty": "empty",
    "HTML named .jpg": "unsupported_format",
    "truncated JPEG": "truncated",
    "decompression bomb": "too_many_pixels",
    "animated GIF": "unsupported_format",
    "SVG": "unsupported_format",
    "CMYK": "ok",
    "EXIF-rotated": "ok",
    "16-bit PNG": "ok",
    "redirect to a private address": "forbidden_address",
    "address literal": "forbidden_address",
    "redirect loop": "too_many_redirects",
}
"""Kind of bad photo -> how it ends the first time."""
TRANSIENT = {kind for kind, ends in FIRST.items() if ends in ("not_found", "server_error", "timeout")}
COME_RIGHT = TRANSIENT - {"404"}
LIMITS = {"fetch_timeout": 3.0, "fetch_max_bytes": 100_000, "allowed_private_hosts": ("127.0.0.1",)}


def saved(picture: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=format, **options)
    return file.getvalue()


def turned(picture: Image.Image) -> bytes:
    """A JPEG whose pixels lie on their side; its EXIF says how to turn it upright."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return saved(picture.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=90)


def deep(picture: Image.Image) -> bytes:
    """A PNG of 16-bit grey."""
    grey = picture.convert("L").convert("I").point(lambda value: value * 257)
    return saved(grey.convert("I;16"), "PNG")


def bad_files() -> dict[str, bytes]:
    """The files that are bad in themselves, by kind."""
    photo = draw_bytes(SHOWS, 1)
    frames = [draw(SHOWS, seed) for seed in (2, 3)]
    return {
        "empty": b"",
        "HTML named .jpg": HTML,
        "truncated JPEG": photo[: len(photo) // 2],
        "decompression bomb": saved(Image.new("1", (12_000, 12_000)), "PNG"),
        "animated GIF": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "SVG": SVG,
        "CMYK": saved(draw(SHOWS, 4).convert("CMYK"), quality=90),
        "EXIF-rotated": turned(draw(SHOWS, 5)),
        "16-bit PNG": deep(draw("other", 6)),
    }


def bad_answers(private: str) -> dict[str, list[Step]]:
    """The answers that are bad in themselves, by kind; FINE is the photo."""
    return {
        "404": [status(404)],
        "404, then fine": [status(404), FINE],
        "410": [status(410)],
        "500, then fine": [status(500), FINE],
        "timeout": [hang(), FINE],
        "endless slow body": [drip(), FINE],
        "over the byte cap": [endless()],
        "redirect to a private address": [redirect(private)],
        "redirect loop": [redirect("loop.jpg")],
    }


def path_of(kind: str) -> str:
    return "/loop.jpg" if kind == "redirect loop" else f"/{kind.replace(' ', '-')}.jpg"


@pytest.fixture
def bad(world: World, other_server: PhotoServer) -> World:
    """A listing per kind, its bad photo between two good ones: a kitchen and a balcony."""
    world.fixed |= LIMITS
    private = other_server.add("/private.jpg", draw_bytes(SHOWS))
    files, answers = bad_files(), bad_answers(private)
    for kind in FIRST:
        if kind == "address literal":
            url = private
        else:
            url = world.photos.add(path_of(kind), files.get(kind, draw_bytes(SHOWS, seed_of(kind, 1))))
            world.photos.behave(path_of(kind), *answers.get(kind, []))
        good = [world.photo(shows, seed_of(kind, seed)) for seed, shows in enumerate(("kitchen", "balcony"))]
        world.portal.add(kind, [good[0], url, good[1]])
    return world


def make_retries_due(world: World) -> None:
    """As if a day had passed."""
    world.portal.execute("UPDATE enrichment.photo SET next_try = now() WHERE next_try IS NOT NULL")
    world.portal.execute("UPDATE enrichment.listing SET not_before = now() WHERE not_before IS NOT NULL")


def bad_ones(world: World) -> dict[str, str]:
    """Kind -> status of the bad photo, of listings whose good photos are ok."""
    found = {kind: world.photo_statuses(kind) for kind in FIRST}
    assert all((first, last) == ("ok", "ok") for first, _, last in found.values()), found
    return {kind: middle for kind, (_, middle, _) in found.items()}


def check_documents(world: World) -> None:
    """Every listing is published, with what its good photos show, and says how many photos were seen."""
    documents = world.documents()
    assert documents.keys() == FIRST.keys()
    for kind, ends in bad_ones(world).items():
        document = documents[kind]
        rooms = ["bedroom", "kitchen"] if ends == "ok" and kind != "16-bit PNG" else ["kitchen"]
        assert (kind, document["room_types"], document["has_balcony"]) == (kind, rooms, True)
        assert document["evidence"]["balcony"]["position"] == 2
        seen = {name: document["enrichment"][name] for name in ("photos_seen", "photos_failed")}
        failed = int(ends != "ok")
        assert (kind, seen) == (kind, {"photos_seen": 3 - failed, "photos_failed": failed})
        assert document["photo_count"] == 3


def test_each_bad_photo_costs_itself_and_comes_right_where_it_can(
    bad: World, other_server: PhotoServer
) -> None:
    first = bad.run()
    assert (first.exit_code, first.published.written) == (0, len(FIRST))
    assert bad_ones(bad) == FIRST
    check_documents(bad)
    assert bad.statuses() == {kind: "retry" if kind in TRANSIENT else "done" for kind in FIRST}
    assert other_server.connections == 0  # an address that may not be asked is not connected to

    bad.photos.forget()
    waiting = bad.run()
    assert (bad.requests(), waiting.published.written) == (0, 0)

    make_retries_due(bad)
    again = bad.run()
    asked = {request.path for request in bad.photos.log}
    assert asked == {path_of(kind) for kind in TRANSIENT} and bad.requests() == len(TRANSIENT)
    assert (again.exit_code, again.published.written) == (0, len(COME_RIGHT))
    assert bad_ones(bad) == {kind: "ok" if kind in COME_RIGHT else ends for kind, ends in FIRST.items()}
    check_documents(bad)
    assert set(bad.statuses().values()) == {"done"}  # a 404 that lasts is for good

    bad.photos.forget()
    make_retries_due(bad)
    bad.run()
    assert bad.requests() == 0


def test_show_says_how_each_bad_photo_ended_and_why(bad: World) -> None:
    bad.run()
    with open_services(bad.settings()) as services:
        shown = {kind: explain(services, kind)["photos"][1] for kind in FIRST}
    assert {kind: photo["status"] for kind, photo in shown.items()} == FIRST
    for kind, photo in shown.items():
        assert bool(photo["error"]) is (FIRST[kind] != "ok"), kind
        assert (photo["next_try"] is not None) is (kind in TRANSIENT), kind
    seen = {kind: photo["probabilities"]["room"] for kind, photo in shown.items() if photo["probabilities"]}
    assert {kind: max(rooms, key=rooms.get) for kind, rooms in seen.items()} == {
        "CMYK": SHOWS, "EXIF-rotated": SHOWS, "16-bit PNG": "other"
    }  # fmt: skip


def test_a_photo_that_was_gone_shows_nothing_until_its_bytes_come_again(world: World) -> None:
    world.listing("house", "kitchen", "balcony")
    world.photos.behave("/house/1.jpg", FINE, status(410), status(500), status(500), FINE)
    world.run()
    assert world.documents()["house"]["has_balcony"] is True
    world.run(revalidate=True)
    assert world.photo_statuses("house")[1] == "gone"
    assert world.enrich_here("retry", "house").returncode == 0
    for _ in range(2):
        world.run()
        assert world.photo_statuses("house") == ["ok", "server_error"]
        assert "has_balcony" not in world.documents()["house"], "it was off before the host failed"
        make_retries_due(world)
    assert world.run().figures.scored == 0, "these bytes have scores"
    assert world.documents()["house"]["has_balcony"] is True


def test_a_photo_given_up_is_asked_for_again_when_its_version_changes(world: World) -> None:
    urls = world.listing("house", "kitchen", "balcony", version="1")
    world.photos.behave("/house/1.jpg", status(410), FINE)
    world.run()
    assert world.photo_statuses("house") == ["ok", "gone"]
    world.portal.touch("house")
    world.portal.execute("UPDATE listing_images SET version = '2' WHERE url = :url", url=urls[1])
    world.run()
    assert world.photo_statuses("house") == ["ok", "ok"]
    assert world.documents()["house"]["has_balcony"] is True


def test_near_duplicates_count_once(world: World) -> None:
    picture = draw("kitchen", 1)
    copies = [saved(picture, quality=quality) for quality in (95, 80, 60)]
    copies += [saved(picture.resize((240, 180))), saved(picture, "PNG"), saved(picture, "WEBP")]
    copies += [turned(picture), copies[0]]
    urls = [world.photos.add(f"/{number}.jpg", copy) for number, copy in enumerate(copies)]
    world.portal.add("copies", urls)
    world.listing("rooms", *["kitchen"] * len(copies))
    world.run()
    documents = world.documents()
    assert {id: document["enrichment"]["photos_seen"] for id, document in documents.items()} == {
        "copies": 8, "rooms": 8
    }  # fmt: skip
    assert documents["copies"]["room_counts"] == {"kitchen": 1}
    assert documents["rooms"]["room_counts"] == {"kitchen": 8}
    assert "has_balcony" not in documents["copies"]  # one view is too few to say no
    assert documents["rooms"]["has_balcony"] is False
