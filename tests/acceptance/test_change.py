"""Work is proportional to change: only what is touched is redone, and the index is right afterwards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enrich.model.bundle import load_bundle
from enrich.model.writing import write_bundle
from jobs.run.record import RunReport
from tests.support.bundles import (
    binary_head,
    draw_bytes,
    make_bundle,
    preprocessing,
    room_head,
    tiny_tensors,
)
from tests.support.harness import World, assert_same
from tests.support.photo_server import status


@dataclass(frozen=True)
class Night:
    """What one run did, as the photo host and the index saw it."""

    requested: list[str]
    """Paths asked for, in order of their names, once per request."""
    written: set[str]
    """Ids of documents put, replaced or taken away."""
    report: RunReport

    @property
    def quiet(self) -> bool:
        return not self.requested and not self.written


def night(world: World, **options: Any) -> Night:
    before = world.versions()
    world.photos.forget()
    report = world.run(**options)
    after = world.versions()
    requested = sorted(request.path.partition("?")[0] for request in world.photos.log)
    written = {id for id in before | after if before.get(id) != after.get(id)}
    return Night(requested, written, report)


@pytest.fixture
def settled(world: World) -> World:
    """Three listings, enriched and published."""
    world.listing("house", "kitchen", "balcony", city="Solna", price=100)
    world.listing("flat", "bedroom", "fireplace", city="Lund", price=200)
    world.listing("cabin", "bathroom", city="Falun", price=300)
    report = world.run()
    assert report.published.written == 3 and world.requests() == 5
    return world


def test_nothing_changed_nothing_done(settled: World) -> None:
    writes = settled.writes()
    second = night(settled)
    assert second.quiet
    assert second.report.discovery is not None and second.report.discovery.unchanged == 3
    assert settled.writes() == writes


def test_photo_added(settled: World) -> None:
    url = settled.photo("bathroom", 1, "/flat/2.jpg")
    settled.portal.add_photo("flat", 2, url)
    changed = night(settled)
    assert (changed.requested, changed.written) == (["/flat/2.jpg"], {"flat"})
    document = settled.documents()["flat"]
    assert document["room_types"] == ["bathroom", "bedroom"]
    assert document["photo_count"] == document["enrichment"]["photos_seen"] == 3


def test_photo_removed(settled: World) -> None:
    settled.portal.execute("DELETE FROM listing_images WHERE listing_id = 'house' AND position = 1")
    changed = night(settled)
    assert (changed.requested, changed.written) == ([], {"house"})
    document = settled.documents()["house"]
    assert "has_balcony" not in document and document["balcony_confidence"] < 0.5
    assert document["evidence"] == {} and document["photo_count"] == 1


def test_last_photo_removed(settled: World) -> None:
    settled.portal.execute("DELETE FROM listing_images WHERE listing_id = 'cabin'")
    changed = night(settled)
    assert (changed.requested, changed.written) == ([], {"cabin"})
    document = settled.documents()["cabin"]
    assert document["photo_count"] == document["enrichment"]["photos_seen"] == 0
    assert "room_types" not in document and "balcony_confidence" not in document


def test_photos_reordered(settled: World) -> None:
    before = settled.documents()["house"]
    settled.portal.execute("UPDATE listing_images SET position = 1 - position WHERE listing_id = 'house'")
    changed = night(settled)
    assert (changed.requested, changed.written) == ([], {"house"})
    balcony = before["evidence"]["balcony"]
    assert_same(settled.documents()["house"], {**before, "evidence": {"balcony": {**balcony, "position": 0}}})


def test_bytes_changed_and_the_version_says_so(settled: World) -> None:
    settled.listing("villa", "kitchen", "bedroom", version="1")
    settled.run()
    settled.photo("fireplace", 2, "/villa/1.jpg")
    settled.portal.execute(
        "UPDATE listing_images SET version = '2' WHERE listing_id = 'villa' AND position = 1"
    )
    changed = night(settled)
    assert (changed.requested, changed.written) == (["/villa/1.jpg"], {"villa"})
    document = settled.documents()["villa"]
    assert document["has_fireplace"] is True and document["room_types"] == ["kitchen"]


def test_an_older_file_put_back_is_seen_where_the_host_knows_dates_only(settled: World) -> None:
    """Such a host takes every file for unchanged that is no newer than the date that it is asked with."""
    first, second = draw_bytes("kitchen", 11), draw_bytes("bedroom", 12)
    url = settled.photos.add("/villa/0.jpg", first, last_modified="Sun, 01 Mar 2026 12:00:00 GMT")
    settled.portal.add("villa", [url], version="1")
    settled.run()
    settled.photos.add("/villa/0.jpg", second, last_modified="Sun, 01 Feb 2026 12:00:00 GMT")
    settled.portal.execute("UPDATE listing_images SET version = '2' WHERE listing_id = 'villa'")
    assert night(settled).written == {"villa"}
    assert settled.documents()["villa"]["room_types"] == ["bedroom"]


def test_version_moved_but_the_bytes_did_not(settled: World) -> None:
    settled.listing("villa", "kitchen", "bedroom", version="1")
    settled.run()
    settled.portal.execute("UPDATE listing_images SET version = '2' WHERE listing_id = 'villa'")
    changed = night(settled)
    assert changed.requested == ["/villa/0.jpg", "/villa/1.jpg"] and changed.report.figures.unchanged == 2
    assert changed.written == set() and changed.report.figures.scored == 0
    assert night(settled).requested == []


def test_bytes_changed_and_updated_at_moved(settled: World) -> None:
    settled.photo("bedroom", 3, "/house/1.jpg")
    settled.portal.touch("house")
    changed = night(settled)
    assert (changed.requested, changed.written) == (["/house/0.jpg", "/house/1.jpg"], {"house"})
    assert all("if-none-match" in request.headers for request in settled.photos.log)
    assert (changed.report.figures.unchanged, changed.report.figures.scored) == (1, 1)
    document = settled.documents()["house"]
    assert "has_balcony" not in document and document["room_types"] == ["bedroom", "kitchen"]


def test_updated_at_moved_but_nothing_else(settled: World) -> None:
    settled.portal.touch("house")
    changed = night(settled)
    assert changed.requested == ["/house/0.jpg", "/house/1.jpg"] and changed.written == set()
    assert changed.report.figures.bytes == 0 and changed.report.figures.scored == 0
    settled.portal.touch("house")
    assert night(settled).requested == []  # not again within ENRICH_REVALIDATE_AFTER
    assert len(night(settled, settings={"revalidate_after": 0}).requested) == 2  # but not forgotten either


def test_what_was_not_asked_lately_is_not_forgotten_where_the_listing_was_away(world: World) -> None:
    urls = world.listing("house", "kitchen", "balcony")
    world.photos.behave("/house/1.jpg", status(500))  # so that it is not done
    world.run()
    world.portal.touch("house")
    night(world)
    world.photo("bedroom", 3, "/house/0.jpg")
    world.portal.touch("house")
    assert night(world).requested == []
    world.portal.remove("house")
    night(world, allow_removals=True)
    world.portal.add("house", urls)
    assert "/house/0.jpg" not in night(world).requested
    assert "/house/0.jpg" in night(world, settings={"revalidate_after": 0}).requested
    assert world.documents()["house"]["room_types"] == ["bedroom"]


def test_what_was_not_asked_lately_is_not_forgotten_whatever_comes_between(settled: World) -> None:
    settled.portal.touch("house")
    night(settled)
    settled.photo("bedroom", 3, "/house/1.jpg")
    settled.portal.touch("house")
    assert night(settled).requested == []  # put off, by ENRICH_REVALIDATE_AFTER
    writes = settled.writes()
    assert night(settled).quiet and settled.writes() == writes
    settled.portal.execute("UPDATE listings SET price = 101, updated_at = now() WHERE id = 'house'")
    assert night(settled).written == {"house"}
    settled.portal.add_photo("house", 2, settled.photo("bathroom", 1, "/house/2.jpg"))
    assert night(settled).requested == ["/house/2.jpg"]
    settled.photos.forget()
    settled.backfill(ids=["house"])
    assert settled.requests() == 0
    asked = night(settled, settings={"revalidate_after": 0})
    assert asked.requested == [f"/house/{number}.jpg" for number in range(3)]
    assert "has_balcony" not in settled.documents()["house"]
    assert night(settled, settings={"revalidate_after": 0}).quiet


def test_bytes_changed_and_nothing_says_so_until_revalidate(settled: World) -> None:
    settled.photo("bedroom", 3, "/house/1.jpg")
    assert night(settled).quiet
    changed = night(settled, revalidate=True)
    assert len(changed.requested) == 5 and changed.written == {"house"}
    assert settled.documents()["house"]["room_types"] == ["bedroom", "kitchen"]
    assert changed.report.figures.scored == 1
    assert night(settled).requested == []


def test_resigned_urls_are_the_same_photos(settled: World) -> None:
    signed = "X-Amz-Signature=abc&X-Amz-Date=20260101&Expires=99"
    settled.portal.execute("UPDATE listing_images SET url = url || '?' || :signed", signed=signed)
    resigned = night(settled)
    assert resigned.quiet
    assert resigned.report.discovery is not None and resigned.report.discovery.unchanged == 3


def test_the_signature_is_sent_but_never_published(settled: World) -> None:
    url = settled.photo("balcony", 4, "/cabin/1.jpg")
    settled.portal.add_photo("cabin", 1, url + "?Signature=secret#top")
    assert night(settled).requested == ["/cabin/1.jpg"]
    assert settled.photos.log[0].path == "/cabin/1.jpg?Signature=secret"
    assert settled.documents()["cabin"]["evidence"]["balcony"]["url"] == url
    kept = settled.portal.execute("SELECT photos::text FROM enrichment.listing WHERE id = 'cabin'")
    assert "secret" not in kept[0][0]


def test_price_changed(settled: World) -> None:
    before = settled.documents()["house"]
    settled.portal.execute("UPDATE listings SET price = 90 WHERE id = 'house'")
    changed = night(settled)
    assert (changed.requested, changed.written) == ([], {"house"})
    assert changed.report.figures.listings == 0
    assert_same(settled.documents()["house"], {**before, "price": 90})


def test_price_changed_and_updated_at_with_it(settled: World) -> None:
    settled.portal.execute(
        "UPDATE listings SET price = 90, updated_at = clock_timestamp() WHERE id = 'house'"
    )
    changed = night(settled)
    assert (changed.requested, changed.written) == ([], {"house"})
    assert settled.documents()["house"]["price"] == 90
    assert night(settled).quiet


def test_deactivated_and_active_again(settled: World) -> None:
    before = settled.documents()
    settled.portal.execute("UPDATE listings SET active = false WHERE id = 'house'")
    gone = night(settled)
    assert (gone.requested, gone.written) == ([], {"house"})
    assert settled.documents().keys() == {"flat", "cabin"}
    settled.portal.execute("UPDATE listings SET active = true, price = 95 WHERE id = 'house'")
    back = night(settled)
    assert (back.requested, back.written) == ([], {"house"})
    assert_same(settled.documents(), {**before, "house": {**before["house"], "price": 95}})


def test_deleted_and_added_again(settled: World) -> None:
    before = settled.documents()
    settled.portal.remove("house")
    assert night(settled).written == {"house"}
    assert settled.documents().keys() == {"flat", "cabin"}
    settled.listing("house", "kitchen", "balcony", city="Solna", price=100)
    back = night(settled)
    assert (back.requested, back.written) == ([], {"house"})
    assert_same(settled.documents(), before)


def test_added_again_with_another_photo(settled: World) -> None:
    settled.portal.remove("house")
    settled.run()
    settled.listing("house", "kitchen", "balcony", city="Solna", price=100)
    settled.portal.add_photo("house", 2, settled.photo("bedroom", 5, "/house/2.jpg"))
    back = night(settled)
    assert (back.requested, back.written) == (["/house/2.jpg"], {"house"})
    assert settled.documents()["house"]["room_types"] == ["bedroom", "kitchen"]


def test_same_bytes_are_scored_once_whatever_their_url(settled: World) -> None:
    twins = [settled.photo("bedroom", 6, path) for path in ("/twin/1.jpg", "/twin/2.jpg")]
    settled.portal.add("twin-a", twins)
    settled.portal.add("twin-b", [twins[1]])
    both = night(settled)
    assert both.requested == ["/twin/1.jpg", "/twin/2.jpg"]  # the shared URL once for both listings
    assert both.report.figures.scored == 1
    settled.portal.add("twin-c", [settled.photo("bedroom", 6, "/twin/3.jpg")])
    later = night(settled)
    assert later.requested == ["/twin/3.jpg"] and later.report.figures.scored == 0
    assert settled.documents()["twin-c"]["room_types"] == ["bedroom"]


def test_new_bytes_of_a_shared_photo_reach_every_listing_that_holds_it(settled: World) -> None:
    shared = settled.photo("bedroom", 7, "/shared.jpg")
    settled.portal.add("first", [shared])
    settled.portal.add("second", [shared])
    settled.run()
    settled.photo("kitchen", 8, "/shared.jpg")
    settled.portal.touch("second")
    changed = night(settled)
    assert (changed.requested, changed.written) == (["/shared.jpg"], {"first", "second"})
    assert changed.report.figures.scored == 1
    documents = settled.documents()
    assert documents["first"]["room_types"] == documents["second"]["room_types"] == ["kitchen"]


def test_new_thresholds_need_neither_photos_nor_scores(settled: World, tmp_path: Path) -> None:
    before = settled.documents()
    strict = {**binary_head("balcony"), "thresholds": {"true": 0.9999, "false": 0.2}}
    bundle = make_bundle(tmp_path / "strict", heads=[strict, binary_head("fireplace"), room_head()])
    settled.fixed["bundle"] = bundle.folder
    assert night(settled).quiet  # the nightly run rolls no bundle out
    settled.photos.forget()
    report = settled.backfill(stale_bundle=True)
    assert settled.requests() == 0 and report.figures.scored == 0 and report.marked == 3
    documents = settled.documents()
    assert "has_balcony" not in documents["house"] and documents["flat"]["has_fireplace"] is True
    assert documents["house"]["balcony_confidence"] == before["house"]["balcony_confidence"]
    assert {document["enrichment"]["bundle"] for document in documents.values()} == {bundle.bundle_id}
    assert settled.backfill(stale_bundle=True).marked == 0


def test_a_new_model_scores_what_it_has_not_seen(settled: World, tmp_path: Path) -> None:
    other = {**preprocessing(), "interpolation": "bilinear"}
    settled.fixed["bundle"] = make_bundle(tmp_path / "other", preprocessing=other).folder
    settled.photos.forget()
    report = settled.backfill(stale_bundle=True)
    assert settled.requests() == 5 and report.figures.scored == 5
    assert settled.documents()["flat"]["has_fireplace"] is True
    assert settled.documents()["house"]["room_types"] == ["kitchen"]


def test_a_model_beside_the_one_known_scores_what_only_the_other_has_seen(
    settled: World, tmp_path: Path
) -> None:
    known = load_bundle(settled.fixed["bundle"])
    beside = {
        **known.manifest["members"][0],
        "weights": "porch.safetensors",
        "heads": [binary_head("porch")],
    }
    tensors = {
        name.replace("head.balcony.", "head.porch."): tensor
        for name, tensor in tiny_tensors().items()
        if name.startswith(("backbone.", "head.balcony."))
    }
    weights = {known.manifest["members"][0]["weights"]: tiny_tensors(), "porch.safetensors": tensors}
    manifest = {**known.manifest, "members": [*known.manifest["members"], beside]}
    both = write_bundle(tmp_path / "both", manifest, weights)
    assert both.members[0].model_id == known.members[0].model_id != both.members[1].model_id
    settled.fixed["bundle"] = both.folder
    settled.photos.forget()
    settled.portal.execute("DELETE FROM enrichment.photo_embedding")
    report = settled.backfill(stale_bundle=True)
    assert settled.requests() == 5 and report.figures.scored == 5 and not report.figures.quarantined
    documents = settled.documents()
    assert documents["house"]["has_porch"] is documents["house"]["has_balcony"] is True
    assert "has_porch" not in documents["flat"] and documents["flat"]["has_fireplace"] is True
