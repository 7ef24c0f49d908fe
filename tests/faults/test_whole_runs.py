"""Whole runs over bad input, on both indices: each listing ends with the right document."""

import json
import unicodedata
from collections.abc import Iterable
from typing import Any

import pytest

from tests.faults.conftest import Record
from tests.faults.images import corpus
from tests.support.bundles import draw_bytes
from tests.support.harness import World, seed_of

MANY = 500
LONGEST_ID = 512  # bytes that Elasticsearch takes
TOGETHER = 20  # bad photos in one listing
IDS = (
    *("a/b", "/", "//", "../../etc/passwd", ".", "..", "a%2Fb", "a?b=c&d", "a#b", "a+b", "_doc", "_"),
    *("-", "*", "~"),
    *("it's", 'say "hi"', "''", '"', "`", "back\\slash", "\\", "a'; DROP TABLE listings; --", "$1"),
    *(":id", "%s", "{0}"),
    *("null", "NULL", "true", "0", "-1", "1e9", "NaN", "[1]", '{"a": 1}', "a,b", "a;b", "<b>", "&amp;"),
    "${jndi:x}",
    *(" ", " a", "a ", "a  b", "tab\there", "line\nbreak", "return\rhere", "\x01\x1f\x7f", "\u2028"),
    *("\u00a0", "\ufeffa"),
    *("ö", "o\u0308", "Ö", "ß", "ı", "İ", "ﬁ", "日本語", "عقار", "\u202edcba", "😀", "👨‍👩‍👧", "𝕏"),
    *("\U0010ffff", "\ufffd"),
    *("a" * LONGEST_ID, "ö" * (LONGEST_ID // 2), "😀" * (LONGEST_ID // 4), "a", "A", "aa"),
    "a" * (LONGEST_ID - 1),
)  # fmt: skip


@pytest.fixture(params=["embedded", "elasticsearch"])
def either(world: World, request: pytest.FixtureRequest) -> World:
    """A world with the index in Postgres, and one with Elasticsearch."""
    if request.param == "embedded":
        world.fixed["elasticsearch_url"] = None
    return world


def documents(world: World) -> dict[str, dict[str, Any]]:
    if world.fixed["elasticsearch_url"] is not None:
        return world.documents()
    sql = "SELECT id, document FROM enrichment.document WHERE index = :index AND document IS NOT NULL"
    return {row.id: row.document for row in world.portal.execute(sql, index=world.index)}


def summary(document: dict[str, Any]) -> tuple[Any, ...]:
    """(photos, seen, failed, rooms, balcony) as a document says."""
    counts = document["enrichment"]
    seen, failed = counts["photos_seen"], counts["photos_failed"]
    return document["photo_count"], seen, failed, document.get("room_types"), document.get("has_balcony")


def add_all(world: World, ids: Iterable[str]) -> None:
    """Each with two photos of its own."""
    for number, id in enumerate(ids):
        urls = [
            world.photo(kind, seed_of(id, at), f"/{number}/{at}.jpg")
            for at, kind in enumerate(("kitchen", "balcony"))
        ]
        world.portal.add(id, urls, city=id[:40], price=number)


def check_done(world: World, wanted: dict[str, tuple[Any, ...]]) -> int:
    """How many listings have another document than they should; and that a second run does nothing."""
    found = {id: summary(document) for id, document in documents(world).items()}
    wrong = {
        id: (found.get(id), wanted.get(id)) for id in {*found, *wanted} if found.get(id) != wanted.get(id)
    }
    world.photos.forget()
    again = world.run()
    assert (world.requests(), again.published.written, again.exit_code) == (0, 0, 0)
    assert wrong == {}
    return len(wanted)


def test_odd_ids(either: World, record: Record, request: pytest.FixtureRequest) -> None:
    assert len(IDS) == len(set(IDS)) and unicodedata.normalize("NFC", "o\u0308") in IDS
    add_all(either, IDS)
    report = either.run()
    assert (report.exit_code, report.figures.quarantined) == (0, 0)
    count = check_done(either, dict.fromkeys(IDS, (2, 2, 0, ["kitchen"], True)))
    assert {id: document["city"] for id, document in documents(either).items()} == {id: id[:40] for id in IDS}
    record(f"ids-{name_of(request)}", f"Listings with odd ids, {name_of(request)} index", count, losses=0)


def name_of(request: pytest.FixtureRequest) -> str:
    return "Elasticsearch" if "elasticsearch" in request.node.name else "embedded"


def test_an_id_that_elasticsearch_does_not_take_costs_no_other(world: World) -> None:
    """Elasticsearch answers 400 to the whole bulk that names one."""
    too_long = ["a" * (LONGEST_ID + 1), "ö" * (LONGEST_ID // 2 + 1)]
    add_all(world, [*too_long, "fine", "a" * LONGEST_ID])
    report = world.run()
    assert (report.exit_code, report.published.written) == (1, 2)
    assert world.documents().keys() == {"fine", "a" * LONGEST_ID}
    reasons = {id: world.portal.state(id).publish_error for id in too_long}
    assert all("512 bytes" in reason for reason in reasons.values()), reasons
    for id in too_long:
        world.portal.remove(id)
    assert world.run(allow_removals=True).exit_code == 0


def test_few_and_many_photos(either: World, record: Record, request: pytest.FixtureRequest) -> None:
    kinds = ["other"] * (MANY - 1) + ["balcony"]
    many = [
        either.photos.add(f"/many/{n}.jpg", draw_bytes(kind, n, (64, 64))) for n, kind in enumerate(kinds)
    ]
    same = either.photo("kitchen", 1, "/same.jpg")
    signed = [f"{same}?token={number}" for number in range(MANY)]
    copies = [either.photos.add(f"/copy/{n}.jpg", draw_bytes("kitchen", 2)) for n in range(MANY)]
    listings = {
        "none": [],
        "one": [same],
        "many": many,
        "same": [same] * MANY,
        "signed": signed,
        "copies": copies,
    }
    for id, urls in listings.items():
        either.portal.add(id, urls)
    report = either.run()
    assert report.exit_code == 0
    assert either.requests("/same.jpg") == 1 and either.requests() == 2 * MANY + 1
    assert report.figures.scored == MANY + 2  # the same bytes are scored once
    check_done(
        either,
        {
            "none": (0, 0, 0, None, None),
            "one": (1, 1, 0, ["kitchen"], None),
            "many": (MANY, MANY, 0, [], True),
            # One view of one room, however often it is shown, is too few to say no.
            "same": (MANY, MANY, 0, ["kitchen"], None),
            "signed": (MANY, MANY, 0, ["kitchen"], None),
            "copies": (MANY, MANY, 0, ["kitchen"], None),
        },
    )
    assert documents(either)["many"]["evidence"]["balcony"]["position"] == MANY - 1
    photos = sum(map(len, listings.values()))
    record(
        f"photos-{name_of(request)}",
        f"Photos of listings with 0 to {MANY}, {name_of(request)} index",
        photos,
        losses=0,
    )


def test_nulls_and_rows_that_belong_to_nothing(
    either: World, record: Record, request: pytest.FixtureRequest
) -> None:
    world, execute = either, either.portal.execute
    kitchen, balcony = world.photo("kitchen", 1), world.photo("balcony", 1)
    execute("INSERT INTO listings (id) VALUES (''), ('bare'), ('photos'), ('nothing in them'), ('mixed')")
    for position, url in ((None, kitchen), (None, balcony)):
        world.portal.add_photo("photos", position, url)
    for position in (None, 0, 0):
        world.portal.add_photo("nothing in them", position, None)
    for position, url, version in (
        (None, None, None),
        (-5, kitchen, None),
        (0, "", "1"),
        (0, balcony, ""),
        (2**31 - 1, balcony, None),
    ):
        world.portal.add_photo("mixed", position, url, version)
    world.portal.add("dates", [kitchen], updated_at="infinity", city="", price=None)
    world.portal.add("inactive", [kitchen], active=False)
    world.portal.add("perhaps active", [kitchen], active=None)
    for id in ("no such listing", None, ""):
        for position in range(20):
            world.portal.add_photo(id, position, world.photo("bedroom", 99))
    rows = (
        execute("SELECT count(*) FROM listing_images")[0][0] + execute("SELECT count(*) FROM listings")[0][0]
    )

    report = world.run()
    assert (report.exit_code, report.figures.quarantined) == (0, 0)
    assert world.requests("/bedroom-99.jpg") == 0, "nobody's photo is not asked for"
    count = check_done(
        world,
        {
            "bare": (0, 0, 0, None, None),
            "photos": (2, 2, 0, ["kitchen"], True),
            "nothing in them": (3, 0, 3, None, None),
            "mixed": (5, 3, 2, ["kitchen"], True),
            "dates": (1, 1, 0, ["kitchen"], None),
            "perhaps active": (1, 1, 0, ["kitchen"], None),
        },
    )
    assert count == 6
    record(
        f"rows-{name_of(request)}",
        f"Rows with NULLs, and rows without a listing, {name_of(request)} index",
        rows,
        losses=0,
    )


def test_broken_and_strange_photos_over_http(world: World, record: Record) -> None:
    world.fixed["elasticsearch_url"] = None
    cases = list(corpus(seeds=6))
    listings: dict[str, list[Any]] = {}
    for start in range(0, len(cases), TOGETHER):
        listings[f"home-{start:04}"] = cases[start : start + TOGETHER]
    for id, bad in listings.items():
        urls = [world.photo("kitchen", seed_of(id, 0), f"/{id}.jpg")]
        urls += [world.photos.add(f"/{id}/{number}", case.data) for number, case in enumerate(bad)]
        world.portal.add(id, urls)
    ran = world.enrich("run", fetch_max_bytes=20_000_000)
    assert ran.returncode == 0, ran.stderr
    logged = [json.loads(line) for line in ran.stderr.splitlines()]
    doubtful = [line for line in logged if line["level"] != "info"]
    assert [line["logger"] for line in doubtful] == ["jobs.run.services"], doubtful  # no ELASTICSEARCH_URL

    found = documents(world)
    wrong = {}
    for id, bad in listings.items():
        good, *statuses = world.photo_statuses(id)
        ends = [case.ends | {"ok"} for case in bad]
        wrong |= {c.name: s for c, s, e in zip(bad, statuses, ends, strict=True) if s not in e}
        failed = sum(status != "ok" for status in statuses)
        counts = found[id]["enrichment"]
        assert (good, counts["photos_failed"]) == ("ok", failed) and "kitchen" in found[id]["room_types"]
    record(
        "images-run", "Broken and strange photos through a whole run over HTTP", len(cases), losses=len(wrong)
    )
    assert wrong == {}
