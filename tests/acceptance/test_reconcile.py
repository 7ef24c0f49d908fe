"""`enrich reconcile`: what differs between the portal, our state and the index is named, and mended."""

import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from enrich.errors import RemovalGuardError
from enrich.index.elastic.own import OwnIndex
from enrich.index.protocol import IndexUnavailable
from jobs.run import reconcile as job
from jobs.run.reconcile import reconcile
from jobs.run.record import RunReport
from jobs.run.stop import Stop
from jobs.views.report import report_lines
from tests.support.harness import World, assert_same

HOMES = tuple("abcdef")


def reconciled(world: World, fix: bool = False, allow_removals: bool = False, **settings: Any) -> RunReport:
    return reconcile(world.settings(**settings), fix, allow_removals, Stop())


def differing(report: RunReport) -> dict[str, list[str]]:
    """Kind -> ids, where there are any."""
    found = report.reconciled
    assert found is not None
    kinds = {kind: getattr(found, kind) for kind in ("missing", "stale", "orphaned", "altered")}
    assert all(kind.count == len(kind.examples) for kind in kinds.values())
    return {name: sorted(kind.examples) for name, kind in kinds.items() if kind.count}


@pytest.fixture
def homes(world: World) -> World:
    """Six homes, enriched and published; all is well."""
    for number, id in enumerate(HOMES):
        world.listing(id, "kitchen", "balcony", city="Solna", price=number)
    assert world.run().exit_code == 0
    world.photos.forget()
    report = reconciled(world)
    assert (report.exit_code, differing(report)) == (0, {})
    return world


def check_mended(world: World, before: Mapping[str, Any], mended: Mapping[str, list[str]]) -> None:
    """Told without a write, then mended: the same documents as before, and only these were written."""
    versions, rows = world.versions(), world.portal.execute("SELECT * FROM enrichment.listing ORDER BY id")
    report = reconciled(world)
    assert (report.exit_code, differing(report)) == (1, mended)
    assert world.versions() == versions
    assert world.portal.execute("SELECT * FROM enrichment.listing ORDER BY id") == rows

    report = reconciled(world, fix=True)
    assert (report.exit_code, differing(report)) == (0, mended)
    assert_same(world.documents(), before)
    named = {id for ids in mended.values() for id in ids}
    now = world.versions()
    assert {id for id in now.keys() | versions.keys() if now.get(id) != versions.get(id)} == named
    assert world.requests() == 0, "nothing is fetched"
    report = reconciled(world)
    assert (report.exit_code, differing(report)) == (0, {})
    assert world.run().published.written == 0


def test_documents_that_vanished_are_missing(homes: World) -> None:
    before = homes.documents()
    for id in ("a", "e"):
        homes.elasticsearch.delete(index=homes.index, id=id, refresh=True)
    check_mended(homes, before, {"missing": ["a", "e"]})


def test_an_index_that_was_lost_is_missing_everything(homes: World) -> None:
    before = homes.documents()
    homes.drop_indices()
    check_mended(homes, before, {"missing": list(HOMES)})


def test_what_another_indexer_wrote_is_altered(homes: World) -> None:
    before = homes.documents()
    homes.elasticsearch.update(index=homes.index, id="a", doc={"has_balcony": False})
    homes.elasticsearch.index(index=homes.index, id="b", document={"city": "Elsewhere"})
    homes.elasticsearch.update(index=homes.index, id="c", doc={"evidence": {"balcony": {"position": 9}}})
    homes.elasticsearch.index(index=homes.index, id="d", document=before["d"] | {"enrichment": {}})
    check_mended(homes, before, {"altered": ["a", "b", "c", "d"]})


def test_a_document_of_the_same_content_is_not_altered(homes: World) -> None:
    source = homes.elasticsearch.get(index=homes.index, id="a")["_source"]
    homes.elasticsearch.index(index=homes.index, id="a", document=source | {"has_fireplace": None})
    assert differing(reconciled(homes)) == {}


def test_what_comes_out_of_a_backfill_as_before_is_no_difference(homes: World) -> None:
    assert homes.backfill().published.written == 0
    assert differing(reconciled(homes)) == {}


def test_an_index_that_was_set_back_is_stale(homes: World) -> None:
    old = homes.elasticsearch.get(index=homes.index, id="c")["_source"]
    homes.portal.execute("UPDATE listings SET price = 77 WHERE id = 'c'")
    assert homes.run().published.written == 1
    before = homes.documents()
    homes.elasticsearch.delete(index=homes.index, id="c")
    homes.elasticsearch.index(index=homes.index, id="c", document=old)
    check_mended(homes, before, {"stale": ["c"]})


def test_documents_that_no_listing_owns_are_orphaned(homes: World) -> None:
    before = homes.documents()
    gone = homes.elasticsearch.get(index=homes.index, id="f")["_source"]
    homes.portal.remove("f")
    assert homes.run().published.removed == 1
    del before["f"]
    homes.elasticsearch.index(index=homes.index, id="f", document=gone)
    homes.elasticsearch.index(index=homes.index, id="stranger", document={"city": "Nowhere"})
    high = {"version": 9 * 10**17, "version_type": "external"}
    homes.elasticsearch.index(index=homes.index, id="from-later", document={"city": "Nowhere"}, **high)
    check_mended(homes, before, {"orphaned": ["f", "from-later", "stranger"]})


def test_what_changed_in_the_portal_is_told_and_mended(homes: World) -> None:
    before = homes.documents()
    homes.portal.execute("UPDATE listings SET price = 88 WHERE id = 'b'")
    homes.portal.execute("UPDATE listings SET active = false WHERE id = 'd'")
    del before["d"]
    before["b"]["price"] = 88
    check_mended(homes, before, {"stale": ["b"], "orphaned": ["d"]})


def test_listings_to_be_enriched_are_waiting(homes: World) -> None:
    homes.portal.execute("DELETE FROM listing_images WHERE listing_id IN ('a', 'b') AND position = 1")
    assert homes.enrich_here("retry", "c").returncode == 0
    homes.portal.execute(
        "UPDATE enrichment.listing SET status = 'retry', not_before = now() + CAST(due AS interval)"
        " FROM (VALUES ('d', '-1 s'), ('e', '1 h')) AS v(id, due) WHERE listing.id = v.id"
    )
    report = reconciled(homes)
    assert (report.exit_code, differing(report)) == (0, {})
    assert report.reconciled is not None and report.reconciled.waiting == 4  # a, b, c, d
    homes.run(limit=1)
    report = reconciled(homes)
    assert report.reconciled is not None and report.reconciled.waiting == 3


def test_a_listing_that_came_back_is_missing(homes: World) -> None:
    before = homes.documents()
    homes.portal.execute("UPDATE listings SET active = false WHERE id IN ('d', 'e')")
    assert homes.run().published.removed == 2
    homes.portal.execute("UPDATE listings SET active = true WHERE id IN ('d', 'e')")
    check_mended(homes, before, {"missing": ["d", "e"]})


def test_all_at_once_and_a_page_at_a_time(homes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enrich.index.elastic.reading.PAGE", 2)
    homes.fixed["page_size"] = 1
    before = homes.documents()
    homes.elasticsearch.delete(index=homes.index, id="a")
    homes.elasticsearch.update(index=homes.index, id="b", doc={"photo_count": 3})
    homes.portal.execute("UPDATE listings SET city = 'Lund' WHERE id = 'c'")
    before["c"]["city"] = "Lund"
    for id in ("x", "y", "z"):
        homes.elasticsearch.index(index=homes.index, id=id, document={"city": "Nowhere"}, refresh=True)
    check_mended(
        homes, before, {"missing": ["a"], "stale": ["c"], "altered": ["b"], "orphaned": ["x", "y", "z"]}
    )


def test_what_a_run_would_do_anyway_waits_and_is_no_difference(homes: World) -> None:
    homes.listing("new", "kitchen", city="Solna", price=1)
    homes.portal.add_photo("a", 9, homes.photo("fireplace", 3))  # enriched again by the next run
    homes.run(ids=("a",), limit=1)
    homes.elasticsearch.indices.put_settings(index=homes.index, settings={"refresh_interval": -1})
    homes.portal.execute("UPDATE enrichment.publication SET status = 'waiting' WHERE listing_id = 'c'")
    report = reconciled(homes)
    assert (report.exit_code, differing(report)) == (0, {})
    assert report.reconciled is not None and report.reconciled.waiting == 2  # new, c
    assert reconciled(homes, fix=True).published.written == 0, "nothing differs"


def test_a_run_beside_it_makes_no_difference(homes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look at state and that at the index, documents change, come and go."""
    read, changed = OwnIndex.documents, []

    def documents(index: OwnIndex, ids: Sequence[str]) -> Any:
        if not changed:
            changed.append(True)
            homes.portal.execute("UPDATE listings SET price = 88 WHERE id = 'b'")
            homes.portal.execute("UPDATE listings SET active = false WHERE id = 'd'")
            assert homes.run().exit_code == 0
        return read(index, ids)

    monkeypatch.setattr(OwnIndex, "documents", documents)
    report = reconciled(homes)
    assert (report.exit_code, differing(report), changed) == (0, {}, [True])


def test_a_state_that_was_lost_does_not_empty_the_index(homes: World) -> None:
    """Of a portal that still has these listings, nothing is orphaned; of an emptied one, too much is."""
    homes.portal.execute("TRUNCATE enrichment.listing, enrichment.target CASCADE")
    report = reconciled(homes)
    assert (report.exit_code, differing(report)) == (0, {})
    assert report.reconciled is not None and report.reconciled.waiting == len(HOMES)
    homes.portal.execute("TRUNCATE listings, listing_images")
    assert differing(reconciled(homes)) == {"orphaned": list(HOMES)}
    with pytest.raises(RemovalGuardError, match="no active listings at all"):
        reconciled(homes, fix=True)
    assert homes.documents().keys() == set(HOMES)


def test_more_orphans_than_may_be_removed_stay_and_all_else_is_mended(homes: World) -> None:
    before = homes.documents()
    homes.elasticsearch.delete(index=homes.index, id="a")
    homes.portal.execute("UPDATE listings SET active = false WHERE id = 'f'")
    for number in range(21):
        homes.elasticsearch.index(index=homes.index, id=f"x{number}", document={"city": "Nowhere"})
    told = "22 of 27 documents would be removed.*`enrich reconcile --fix --allow-removals` lets it pass"
    with pytest.raises(RemovalGuardError, match=told):
        reconciled(homes, fix=True)
    assert len(homes.documents()) == 27 and "a" in homes.documents()
    assert reconciled(homes, fix=True, allow_removals=True).published.removed == 22
    del before["f"]
    assert_same(homes.documents(), before)


def test_photos_that_are_gone_wait_for_the_run_that_counts_them(homes: World) -> None:
    before = homes.documents()
    homes.portal.execute("TRUNCATE listing_images")
    homes.portal.execute("UPDATE listings SET price = 88 WHERE id <> 'a'")
    before.update({id: before[id] | {"price": 88} for id in HOMES[1:]})
    report = reconciled(homes, fix=True)
    assert (report.exit_code, differing(report)) == (0, {"stale": list(HOMES[1:])})
    assert_same(homes.documents(), before)
    with pytest.raises(RemovalGuardError, match="no photos at all"):
        homes.run()
    assert_same(homes.documents(), before)


def test_what_left_since_it_was_counted_is_not_removed(homes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The portal's tables are emptied, to be filled anew, between the count and the mending."""
    before, mend = homes.documents(), job._mend
    homes.elasticsearch.delete(index=homes.index, id="a", refresh=True)

    def emptied(*given: Any) -> None:
        homes.portal.execute("TRUNCATE listings")
        mend(*given)

    monkeypatch.setattr(job, "_mend", emptied)
    reconciled(homes, fix=True)
    assert homes.documents().keys() == before.keys() - {"a"}
    with pytest.raises(RemovalGuardError, match="no active listings at all"):
        homes.run()


def test_documents_that_became_ownerless_since_they_were_counted_are_not_removed(
    homes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our state was lost, so only the portal owns them, whose tables are emptied to be filled anew."""
    before, mend = homes.documents(), job._mend
    homes.elasticsearch.index(index=homes.index, id="x", document={"city": "Nowhere"}, refresh=True)
    homes.portal.execute("TRUNCATE enrichment.listing, enrichment.target CASCADE")

    def emptied(*given: Any) -> None:
        homes.portal.execute("TRUNCATE listings")
        mend(*given)

    monkeypatch.setattr(job, "_mend", emptied)
    assert reconciled(homes, fix=True).published.removed <= 1
    assert len(homes.documents().keys() & before.keys()) >= len(HOMES) - 1


def test_told_to_stop_before_all_is_mended_it_is_not_done(
    homes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes.elasticsearch.delete(index=homes.index, id="a", refresh=True)
    homes.elasticsearch.index(index=homes.index, id="x", document={"city": "Nowhere"}, refresh=True)
    stop, mend = Stop(), job._mend
    stop.signal = signal.SIGTERM

    def stopped(*given: Any) -> None:
        stop.set()
        mend(*given)

    monkeypatch.setattr(job, "_mend", stopped)
    report = reconcile(homes.settings(), True, False, stop)
    assert (report.exit_code, report.left) == (143, 2)
    assert report_lines(report)[-2].startswith("nothing was written")
    assert reconciled(homes).exit_code == 1


def test_told_to_stop_while_it_publishes_it_says_what_was_mended(
    homes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id in HOMES:
        homes.elasticsearch.delete(index=homes.index, id=id, refresh=True)
    stop, write = Stop(), OwnIndex.write
    stop.signal = signal.SIGTERM

    def stopping(index: OwnIndex, writes: Any) -> Any:
        stop.set()
        return write(index, writes)

    monkeypatch.setattr(OwnIndex, "write", stopping)
    report = reconcile(homes.settings(publish_batch=1), True, False, stop)
    mended = len(homes.documents())
    assert 0 < mended < len(HOMES) and (report.exit_code, report.left) == (143, len(HOMES) - mended)
    assert report_lines(report)[-2].startswith(f"mended     {mended} written")


def test_orphans_that_cannot_be_removed_now_are_not_said_to_be(homes: World) -> None:
    homes.elasticsearch.index(index=homes.index, id="x", document={"city": "Nowhere"}, refresh=True)
    homes.elasticsearch.indices.put_settings(index=homes.index, settings={"index.blocks.write": True})
    with pytest.raises(IndexUnavailable, match="blocked by"):
        reconciled(homes, fix=True)
    homes.elasticsearch.indices.put_settings(index=homes.index, settings={"index.blocks.write": None})
    assert reconciled(homes, fix=True).published.removed == 1


def test_the_command_says_what_it_found(homes: World) -> None:
    homes.elasticsearch.delete(index=homes.index, id="a")
    homes.elasticsearch.index(index=homes.index, id="x", document={"city": "Nowhere"})
    told = homes.enrich_here("reconcile")
    assert told.returncode == 1
    assert "missing    1: a\n" in told.stdout and "orphaned   1: x\n" in told.stdout
    assert "`enrich reconcile --fix` mends this" in told.stdout
    mended = homes.enrich_here("reconcile", "--fix", "--json")
    found = json.loads(mended.stdout)
    assert (mended.returncode, found["documents"]["written"], found["documents"]["removed"]) == (0, 1, 1)
    assert found["reconciled"]["missing"] == {"count": 1, "examples": ["a"]}
    assert homes.enrich_here("reconcile").returncode == 0


def test_the_command_says_what_it_mended_where_too_much_is_orphaned(homes: World) -> None:
    homes.elasticsearch.delete(index=homes.index, id="a")
    for number in range(21):
        homes.elasticsearch.index(index=homes.index, id=f"x{number}", document={"city": "Nowhere"})
    told = homes.enrich_here("reconcile", "--fix")
    assert told.returncode == 3 and "21 of 27 documents would be removed" in told.stderr
    assert "orphaned   21: " in told.stdout and "mended     1 written, 0 removed" in told.stdout


def test_in_mode_merge_it_is_our_fields_that_count(world: World) -> None:
    world.fixed.update(index_mode="merge", index_columns=())
    client: Elasticsearch = world.elasticsearch
    properties = {"title": {"type": "text"}, "has_garage": {"type": "boolean"}}
    client.indices.create(index=world.index, mappings={"dynamic": "strict", "properties": properties})
    for id in HOMES:
        world.listing(id, "kitchen", "balcony")
        client.index(index=world.index, id=id, document={"title": id, "has_garage": True})
    client.index(index=world.index, id="ad", document={"title": "an ad"})
    assert world.run().published.written == 6
    world.photos.forget()
    assert differing(reconciled(world)) == {}
    before = world.documents()

    client.index(index=world.index, id="a", document={"title": "a", "has_garage": True})
    client.update(index=world.index, id="b", doc={"has_balcony": False, "balcony_confidence": None})
    client.update(index=world.index, id="c", doc={"title": "c", "has_garage": True})
    client.index(index=world.index, id="ad", document=before["d"] | {"enrichment": {"revision": 5}})
    before["ad"] = before["d"] | dict.fromkeys(before["d"].keys() - {"title", "has_garage", "listing_id"})
    check_mended(world, before, {"altered": ["a", "b"], "orphaned": ["ad"]})

    client.delete(index=world.index, id="e")
    assert differing(reconciled(world)) == {"missing": ["e"]}
    report = reconciled(world, fix=True)
    assert (report.exit_code, report.published.awaiting) == (0, 1), "the portal's to write"
    assert differing(reconciled(world)) == {}


def test_the_embedded_index_is_compared_as_well(world: World) -> None:
    world.fixed["elasticsearch_url"] = None
    for id in HOMES:
        world.listing(id, "balcony")
    world.run()
    world.portal.execute("DELETE FROM enrichment.document WHERE id = 'a'")
    world.portal.execute(
        "UPDATE enrichment.document SET document = document || '{\"has_balcony\": false}' WHERE id = 'b'"
    )
    world.portal.execute(
        "INSERT INTO enrichment.document VALUES (:index, 'y', 5, '{\"city\": \"L\"}')", index=world.index
    )
    found = {"missing": ["a"], "altered": ["b"], "orphaned": ["y"]}
    assert differing(reconciled(world)) == found
    assert reconciled(world, fix=True).exit_code == 0
    assert differing(reconciled(world)) == {}


def test_on_each_version_of_the_server(world_of_each_version: World) -> None:
    world = world_of_each_version
    for id in ("a", "b"):
        world.listing(id, "balcony")
    world.run()
    before = world.documents()
    world.elasticsearch.delete(index=world.index, id="a")
    world.elasticsearch.index(index=world.index, id="x", document={"city": "Nowhere"})
    assert differing(reconciled(world)) == {"missing": ["a"], "orphaned": ["x"]}
    assert reconciled(world, fix=True).exit_code == 0
    assert_same(world.documents(), before)
