"""`enrich reindex`: another index under the same alias, and searches that notice nothing."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from enrich.errors import BusyError, IndexSetupError, StoppedError, UsageError
from enrich.index.elastic import generations as elastic
from enrich.index.elastic.server import Refused
from enrich.index.protocol import IndexUnavailable
from enrich.settings import Settings
from enrich.state.database import Database
from enrich.state.locks import Locks
from jobs.run import reindex as job
from jobs.run.lifecycle import Reindexed
from jobs.run.record import RunReport
from jobs.run.reindex import REINDEX
from jobs.run.session import DISCOVER, PUBLISH
from jobs.run.stop import Stop
from tests.support.boundaries import BOUNDARIES
from tests.support.harness import World, assert_same
from tests.support.killer import killed, wait_for_the_lock
from tests.support.proxy import Answer, Proxy, Request

HOMES = 60
BRIEF = {"lease_seconds": 2.0, "publish_batch": 10}
STEPS = [name for name, boundary in BOUNDARIES.items() if boundary.command == ("reindex",)]


def reindex(world: World, keep: int = 1, **settings: Any) -> RunReport:
    return job.reindex(world.settings(**settings), keep, Stop())


def rollback(world: World, **settings: Any) -> Reindexed:
    report = job.rollback(world.settings(**settings), Stop())
    assert report.reindexed is not None
    return report.reindexed


def behind(world: World) -> str:
    """The index that serves."""
    (name,) = world.elasticsearch.indices.get_alias(name=world.index)
    return str(name)


def indices(world: World) -> list[str]:
    return sorted(world.elasticsearch.indices.get(index=f"{world.index}*"))


@pytest.fixture
def homes(world: World) -> World:
    """Many homes without photos, and one with; published."""
    world.portal.execute(
        "INSERT INTO listings (id, updated_at, city, price) SELECT 'h' || n, now(), 'Solna', n"
        " FROM generate_series(1, :count) n",
        count=HOMES - 1,
    )
    world.listing("seen", "kitchen", "balcony", city="Lund", price=7)
    assert world.run().published.written == HOMES
    world.photos.forget()
    return world


@contextmanager
def searching(world: World, least: int = HOMES) -> Iterator[None]:
    """Buyers search all the while, 200 times a second: never an error, and never fewer hits."""
    found: list[int] = []
    failed: list[Exception] = []
    done = Event()

    def search() -> None:
        with Elasticsearch(str(world.fixed["elasticsearch_url"]), request_timeout=60) as client:
            while not done.wait(0.01):
                try:
                    answer = client.search(index=world.index, size=1, track_total_hits=True)
                    found.append(answer["hits"]["total"]["value"])
                except Exception as error:
                    failed.append(error)

    world.elasticsearch.indices.refresh(index=world.index)
    threads = [Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert len(found) > 5 and min(found) >= least


def test_a_new_index_takes_the_place_of_the_old_one(homes: World) -> None:
    before, old = homes.documents(), behind(homes)
    with searching(homes):
        report = reindex(homes)
    done = report.reindexed
    assert (report.exit_code, report.published.written) == (0, HOMES) and done is not None
    assert (done.before, done.serving, done.taken_up) == (old, behind(homes), False)
    assert (done.documents, done.sampled, done.lacks, done.removed) == (HOMES, HOMES, 0, [])
    assert old != behind(homes) and indices(homes) == sorted([old, behind(homes)])
    assert_same(homes.documents(), before)
    assert homes.requests() == 0

    writes = homes.writes()
    assert homes.run().published.written == 0 and homes.writes() == writes, "state knows what it holds"


def test_a_mapping_that_contradicts_goes_through_it(homes: World, tmp_path: Path) -> None:
    before = homes.documents()
    mapping, settings = tmp_path / "mapping.json", tmp_path / "settings.json"
    mapping.write_text('{"properties": {"city": {"type": "text", "analyzer": "homes"}}}')
    settings.write_text(
        json.dumps({"analysis": {"analyzer": {"homes": {"tokenizer": "standard", "filter": ["lowercase"]}}}})
    )
    homes.fixed |= {"index_mapping": mapping, "index_settings": settings}
    with pytest.raises(IndexSetupError, match=r"city is of type keyword, text is needed.*`enrich reindex`"):
        homes.run()
    with searching(homes):
        assert reindex(homes).exit_code == 0
    assert homes.matching({"match": {"city": "LUND"}}) == {"seen"}
    assert_same(homes.documents(), before)
    assert homes.run().exit_code == 0

    done = rollback(homes)
    assert done.contradiction is not None and "text is needed" in done.contradiction
    del homes.fixed["index_mapping"], homes.fixed["index_settings"]
    assert homes.run().exit_code == 0


def test_a_column_whose_type_changed_in_the_portal_goes_through_it(homes: World) -> None:
    homes.portal.execute("ALTER TABLE listings ALTER price TYPE text USING 'about ' || price")
    with pytest.raises(IndexSetupError, match="price is of type long, keyword is needed"):
        homes.run()
    assert reindex(homes).exit_code == 0
    assert homes.matching({"term": {"price": "about 7"}}) >= {"seen"}
    homes.portal.execute("ALTER TABLE listings ALTER price TYPE int USING substr(price, 7)::int")
    assert reindex(homes).exit_code == 0
    assert homes.matching({"term": {"price": 7}}) >= {"seen"}


def test_what_changes_meanwhile_is_caught_up(homes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs publish to the old index after the build, and again after the first catching up."""
    old, catch_up, prices = behind(homes), job.catch_up, iter((700, 800))

    def published() -> None:
        if price := next(prices, None):
            homes.portal.execute("UPDATE listings SET price = :price WHERE id = 'h1'", price=price)
            homes.portal.execute("UPDATE listings SET active = :price < 800 WHERE id = 'h2'", price=price)
            assert homes.run().exit_code == 0 and behind(homes) == old
            assert homes.documents()["h1"]["price"] == price

    def changing(rebuild: job.Rebuild, check: Callable[[], None]) -> None:
        if not caught_up:
            published()
        catch_up(rebuild, check)
        if not caught_up:  # without the lock `publish` still
            published()
        caught_up.append(True)

    caught_up: list[bool] = []
    monkeypatch.setattr(job, "catch_up", changing)
    with searching(homes, HOMES - 1):
        assert reindex(homes).exit_code == 0
    documents = homes.documents()
    assert behind(homes) != old
    assert documents["h1"]["price"] == 800 and "h2" not in documents
    assert homes.publish().published.written == 0


@pytest.mark.parametrize("boundary", STEPS)
def test_killed_the_old_index_serves_on_and_the_next_start_goes_on(homes: World, boundary: str) -> None:
    before, old = homes.documents(), behind(homes)
    swapped = boundary in ("swapped", "removing")
    with searching(homes):
        killed(homes, boundary, BOUNDARIES[boundary].most, **BRIEF)
        assert (behind(homes) != old) == swapped
        assert len(indices(homes)) == 2
        left = sorted(set(indices(homes)) - {old})
        homes.portal.execute("UPDATE listings SET price = 999 WHERE id = 'seen'")
        before["seen"]["price"] = 999
        assert homes.run(settings=BRIEF, wait=True).published.written == 1
        assert_same(homes.documents(), before)

        wait_for_the_lock(homes, REINDEX)
        report = reindex(homes, **BRIEF)
    done = report.reindexed
    assert report.exit_code == 0 and done is not None
    assert done.taken_up == (not swapped)
    if done.taken_up:
        assert [done.serving] == left
    assert_same(homes.documents(), before)
    assert len(indices(homes)) == 2, "nothing is left behind"
    assert homes.run(settings=BRIEF).published.written == 0
    targets = homes.portal.execute("SELECT count(*), sum(serving::int) FROM enrichment.target")
    assert targets == [(2, 1)]


def test_after_a_swap_that_was_not_written_down_it_is_known_what_the_old_one_lacks(homes: World) -> None:
    old = behind(homes)
    killed(homes, "swapped", 1, **BRIEF)
    assert behind(homes) != old
    homes.portal.execute("UPDATE listings SET price = 999 WHERE id = 'seen'")
    assert homes.run(settings=BRIEF, wait=True).published.written == 1, "what the new one lacks, and no more"
    wait_for_the_lock(homes, REINDEX)
    done = rollback(homes)
    assert (done.serving, done.lacks) == (old, 1)


def test_what_was_begun_for_other_settings_is_dropped(homes: World) -> None:
    killed(homes, "building", 3, **BRIEF)
    (begun,) = set(indices(homes)) - {behind(homes)}
    homes.fixed["index_columns"] = ("city",)
    wait_for_the_lock(homes, REINDEX)
    report = reindex(homes)
    assert report.exit_code == 0 and report.reindexed is not None and not report.reindexed.taken_up
    assert begun not in indices(homes)
    assert "price" not in homes.documents()["seen"]


def stopped_before_it_served(world: World) -> str:
    """The index that a reindex left in the making which was told to stop."""
    stop, publish = Stop(), job.build
    stop.signal = signal.SIGTERM

    def stopped(rebuild: job.Rebuild, check: Callable[[], None]) -> None:
        publish(rebuild, check)
        stop.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "build", stopped)
        assert job.reindex(world.settings(), 1, stop).exit_code == 143
    (begun,) = world.elasticsearch.indices.get_alias(name=f"{world.index}-next")
    return str(begun)


def test_told_to_stop_it_leaves_the_old_one_and_goes_on_later(homes: World) -> None:
    old = behind(homes)
    stopped_before_it_served(homes)
    assert behind(homes) == old
    again = reindex(homes)
    assert again.published.written == 0 and again.reindexed is not None and again.reindexed.taken_up


def test_rollback_goes_back_and_says_what_the_old_one_lacks(homes: World) -> None:
    old = behind(homes)
    reindex(homes)
    new = behind(homes)
    homes.portal.execute("UPDATE listings SET price = 5 WHERE id IN ('h1', 'h2')")
    homes.portal.execute("UPDATE listings SET active = false WHERE id = 'h3'")
    homes.listing("young", "kitchen")
    assert homes.run().published.written == 3
    before = homes.documents()
    with searching(homes):
        done = rollback(homes)
    assert (done.serving, done.before, done.lacks, done.contradiction) == (old, new, 4, None)
    assert behind(homes) == old and homes.documents()["h1"]["price"] == 1
    report = homes.publish()
    assert (report.published.written, report.published.removed) == (3, 1)
    assert_same(homes.documents(), before)
    with pytest.raises(UsageError, match="no index is kept"):
        rollback(homes)
    assert reindex(homes).reindexed.removed == [new]  # type: ignore[union-attr]


def test_what_is_in_the_making_is_dropped_once_it_went_back_and_not_before(homes: World) -> None:
    begun, first, database = stopped_before_it_served(homes), behind(homes), Database(homes.portal.url)
    with pytest.raises(UsageError, match="no index is kept"):
        rollback(homes)
    again = reindex(homes).reindexed
    assert again is not None and (again.taken_up, again.serving) == (True, begun)

    begun, stop = stopped_before_it_served(homes), Stop()
    with Locks(database).hold(PUBLISH):
        Timer(3, stop.set).start()
        job.rollback(homes.settings(), stop)
    database.close()
    assert begun in indices(homes)
    assert rollback(homes).serving == first and begun not in indices(homes)


def test_an_index_that_cannot_be_dropped_just_now_does_not_end_what_went_back(
    homes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = behind(homes)
    assert reindex(homes).exit_code == 0

    def snapshot(*given: object) -> None:
        raise Refused(400, "Cannot delete indices that are being snapshotted")

    monkeypatch.setattr(elastic.Generations, "drop", snapshot)
    report = job.rollback(homes.settings(), Stop())
    assert report.exit_code == 0 and behind(homes) == first


def in_a_snapshot(request: Request) -> Answer | None:
    """What a server answers while a snapshot is made of an index that is to be deleted."""
    told = {"type": "snapshot_in_progress_exception", "reason": "indices are being snapshotted"}
    body = {"error": {"root_cause": [told], **told}, "status": 400}
    return Answer(400, body) if request.method == "DELETE" else None


def test_older_indices_that_cannot_be_removed_just_now_do_not_end_what_serves(
    homes: World, elasticsearch_proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    homes.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    oldest = behind(homes)
    assert reindex(homes).exit_code == 0
    before, elasticsearch_proxy.answer = behind(homes), in_a_snapshot
    report = reindex(homes)
    assert (report.exit_code, report.reindexed and report.reindexed.removed) == (0, [])
    assert behind(homes) not in (oldest, before) and oldest in indices(homes)
    assert "indices are being snapshotted" in caplog.text

    elasticsearch_proxy.clear()
    done = reindex(homes).reindexed
    assert done is not None and done.removed == [oldest, before]


def test_one_in_the_making_that_cannot_be_dropped_just_now_is_waited_for(
    homes: World, elasticsearch_proxy: Proxy
) -> None:
    homes.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    begun = stopped_before_it_served(homes)
    homes.fixed["index_columns"] = ("city",)
    elasticsearch_proxy.answer = in_a_snapshot
    with pytest.raises(IndexUnavailable, match="indices are being snapshotted"):
        reindex(homes)
    elasticsearch_proxy.clear()
    assert reindex(homes).exit_code == 0 and begun not in indices(homes)


@pytest.mark.parametrize(
    "start", [lambda *given: job.reindex(given[0], 1, given[1]), job.rollback], ids=["reindex", "rollback"]
)
def test_a_signal_once_the_alias_has_moved_leaves_nothing_to_go_on_with(
    homes: World, monkeypatch: pytest.MonkeyPatch, start: Callable[[Settings, Stop], RunReport]
) -> None:
    assert reindex(homes).exit_code == 0
    before, stop, record = behind(homes), Stop(), job._record
    stop.signal = signal.SIGTERM

    def stopped(*given: Any) -> int:
        lacks = record(*given)
        homes.portal.execute("UPDATE enrichment.publication SET status = 'waiting' WHERE listing_id = 'h1'")
        stop.set()
        return lacks

    monkeypatch.setattr(job, "_record", stopped)
    report = start(homes.settings(), stop)
    assert (report.exit_code, report.left) == (0, None) and behind(homes) != before
    assert homes.publish().published.written == 1


def test_so_many_old_ones_are_kept(homes: World) -> None:
    names = [behind(homes)]
    for _ in range(3):
        assert reindex(homes, keep=2).exit_code == 0
        names.append(behind(homes))
    assert indices(homes) == sorted(names[-3:])
    assert rollback(homes).serving == names[-2]
    assert reindex(homes, keep=1).exit_code == 0
    assert indices(homes) == sorted([names[-2], behind(homes)])


def test_going_back_several_times_it_is_known_what_each_one_lacks(homes: World) -> None:
    """The earlier ones are still there, whatever `--keep` would be for the next reindex."""
    for _ in range(3):
        assert reindex(homes, keep=3).exit_code == 0
    homes.portal.execute("UPDATE listings SET price = 999 WHERE id = 'seen'")
    assert homes.run().published.written == 1
    assert [rollback(homes).lacks for _ in range(3)] == [1, 1, 1]


def test_for_a_kept_one_that_somebody_removes_nothing_waits(homes: World) -> None:
    names = [behind(homes)]
    for _ in range(2):
        reindex(homes, keep=2)
        names.append(behind(homes))
    homes.elasticsearch.indices.delete(index=names[0])
    homes.portal.execute("UPDATE listings SET price = 999 WHERE id = 'seen'")
    assert homes.run().published.written == 1
    waiting = "SELECT target FROM enrichment.publication WHERE status <> 'done'"
    assert len(homes.portal.execute(waiting)) == 1, "for the one that is still there"
    assert len(homes.portal.execute("SELECT id FROM enrichment.target")) == 2
    assert rollback(homes).lacks == 1


@pytest.mark.parametrize("way", ["closed", "hidden"])
def test_a_kept_one_that_somebody_closes_or_hides_is_still_there(homes: World, way: str) -> None:
    first = behind(homes)
    reindex(homes)
    if way == "closed":
        homes.elasticsearch.indices.close(index=first)
    else:
        homes.elasticsearch.indices.put_settings(index=first, settings={"index.hidden": True})
    homes.portal.execute("UPDATE listings SET price = 999 WHERE id = 'seen'")
    assert homes.run().published.written == 1
    assert len(homes.portal.execute("SELECT id FROM enrichment.target")) == 2
    if way == "closed":
        with pytest.raises(IndexUnavailable, match=f"{first}, which served before, .*if it is closed, open"):
            rollback(homes)
        assert behind(homes) != first
        homes.elasticsearch.indices.open(index=first, wait_for_active_shards=1)
    done = rollback(homes)
    assert (done.serving, done.lacks) == (first, 1)


def test_told_to_stop_before_it_went_back_it_is_not_done(homes: World) -> None:
    reindex(homes)
    new, stop, database = behind(homes), Stop(), Database(homes.portal.url)
    stop.signal = signal.SIGTERM
    with Locks(database).hold(PUBLISH):
        Timer(3, stop.set).start()
        report = job.rollback(homes.settings(), stop)
    assert report.exit_code == 143 and behind(homes) == new
    database.close()


def test_an_index_that_would_lack_documents_takes_nobody_s_place(homes: World, tmp_path: Path) -> None:
    old, before = behind(homes), homes.documents()
    mapping = tmp_path / "mapping.json"
    mapping.write_text('{"properties": {"city": {"type": "long"}}}')
    with (
        searching(homes),
        pytest.raises(StoppedError, match=f"refuses {HOMES} documents that the one behind"),
    ):
        reindex(homes, index_mapping=mapping)
    assert behind(homes) == old
    assert_same(homes.documents(), before)
    assert homes.run().exit_code == 0
    assert reindex(homes).exit_code == 0 and len(indices(homes)) == 2


def test_what_the_index_that_serves_refuses_as_well_holds_up_no_other_one(
    homes: World, tmp_path: Path
) -> None:
    """A home that left came back with a value that neither takes: buyers find it in neither."""
    mapping = tmp_path / "mapping.json"
    mapping.write_text('{"properties": {"built": {"type": "date"}}}')
    homes.fixed |= {"index_mapping": mapping, "index_columns": ("city", "price", "built")}
    homes.portal.execute("ALTER TABLE listings ADD built text")
    homes.portal.execute("UPDATE listings SET active = false WHERE id = 'h1'")
    assert homes.run().published.removed == 1
    homes.portal.execute("UPDATE listings SET active = true, built = 'long ago' WHERE id = 'h1'")
    assert homes.run().published.refused == 1
    old = behind(homes)
    report = reindex(homes)
    assert (report.exit_code, report.published.refused) == (1, 1) and behind(homes) != old
    assert len(homes.documents()) == HOMES - 1


def filled_anew(world: World) -> None:
    world.drop_indices()
    report = world.publish(index_columns=("city",))
    assert (report.exit_code, report.published.refused) == (0, 0)


def reindexed_beside_a_run(world: World) -> None:
    """Which does the discovering, with the settings that it was started with."""
    database = Database(world.portal.url)
    with Locks(database).hold(DISCOVER):
        assert reindex(world, index_columns=("city",)).exit_code == 0
    database.close()


@pytest.mark.parametrize("fill", [filled_anew, reindexed_beside_a_run])
def test_a_column_that_was_taken_out_is_left_out_of_a_new_index_and_comes_back(
    homes: World, fill: Callable[[World], None]
) -> None:
    before = homes.documents()
    fill(homes)
    without = {id: {k: v for k, v in held.items() if k != "price"} for id, held in before.items()}
    assert_same(homes.documents(), without)
    assert homes.run().exit_code == 0
    assert_same(homes.documents(), before)
    assert homes.requests() == 0


def test_a_column_that_is_taken_out_again_does_not_keep_documents_from_the_kept_index(homes: World) -> None:
    before = homes.documents()
    homes.portal.execute("ALTER TABLE listings ADD district text DEFAULT 'Hagalund'")
    assert reindex(homes, index_columns=("city", "price", "district")).exit_code == 0
    assert rollback(homes).lacks == HOMES
    report = homes.publish()
    assert (report.exit_code, report.published.written) == (0, HOMES)
    assert_same(homes.documents(), before)


@pytest.mark.parametrize("change", ["delete", "update"])
def test_an_index_that_somebody_else_writes_to_takes_nobody_s_place(
    homes: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    old, compare = behind(homes), job.compare

    def written(rebuild: job.Rebuild) -> None:
        at = {"index": f"{homes.index}-next", "id": "seen"}
        if change == "delete":
            homes.elasticsearch.delete(**at)
        else:
            homes.elasticsearch.update(**at, doc={"has_balcony": False})
        compare(rebuild)

    with monkeypatch.context() as patch:
        patch.setattr(job, "compare", written)
        with pytest.raises(StoppedError, match=r"was removed.*does somebody else write to the new one"):
            reindex(homes)
    assert behind(homes) == old
    assert reindex(homes).exit_code == 0 and len(indices(homes)) == 2, "the next one starts anew"


def test_one_that_somebody_else_writes_to_and_that_cannot_be_dropped_is_said_to_be_there(
    homes: World, elasticsearch_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    old, compare = behind(homes), job.compare

    def written(rebuild: job.Rebuild) -> None:
        homes.elasticsearch.delete(index=f"{homes.index}-next", id="seen")
        elasticsearch_proxy.answer = in_a_snapshot
        compare(rebuild)

    monkeypatch.setattr(job, "compare", written)
    with pytest.raises(StoppedError, match=f"behind {homes.index}-next, is still there .*snapshotted"):
        reindex(homes)
    assert behind(homes) == old and len(indices(homes)) == 2


@pytest.mark.parametrize("moment", ["compare", "swap"])
def test_an_index_in_the_making_that_somebody_removes_at_last_is_said_to_be_gone(
    homes: World, moment: str
) -> None:
    old, go_on = behind(homes), getattr(job, moment)

    def removed(rebuild: job.Rebuild) -> None:
        (name,) = homes.elasticsearch.indices.get_alias(name=f"{homes.index}-next")
        homes.elasticsearch.indices.delete(index=name)
        go_on(rebuild)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, moment, removed)
        with pytest.raises(IndexUnavailable, match=f"behind {homes.index}-next, is gone"):
            reindex(homes)
    assert behind(homes) == old
    assert reindex(homes).exit_code == 0


@pytest.mark.parametrize("part", ["/_mapping", "/_refresh"])
def test_one_that_somebody_removes_while_it_is_swapped_in_is_said_to_be_gone(
    homes: World, elasticsearch_proxy: Proxy, part: str
) -> None:
    homes.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    old, swap = behind(homes), job.swap

    def removed() -> None:
        (name,) = homes.elasticsearch.indices.get_alias(name=f"{homes.index}-next")
        homes.elasticsearch.indices.delete(index=name)

    def swapping(rebuild: job.Rebuild) -> None:
        elasticsearch_proxy.before(part, removed)
        swap(rebuild)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "swap", swapping)
        with pytest.raises(IndexUnavailable, match=f"behind {homes.index}-next, is gone"):
            reindex(homes)
    assert behind(homes) == old


def test_an_older_index_that_somebody_removes_first_is_removed(
    homes: World, elasticsearch_proxy: Proxy
) -> None:
    homes.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    oldest = behind(homes)
    assert reindex(homes).exit_code == 0

    def removed(request: Request) -> None:
        if request.method == "DELETE":
            homes.elasticsearch.indices.delete(index=oldest)

    elasticsearch_proxy.answer = removed
    assert reindex(homes).exit_code == 0
    assert oldest not in indices(homes)


def test_without_an_index_it_makes_the_first(world: World) -> None:
    world.listing("1", "kitchen")
    world.run()
    before = world.documents()
    world.drop_indices()
    report = reindex(world)
    assert report.exit_code == 0 and report.reindexed is not None and report.reindexed.before is None
    assert_same(world.documents(), before)


def test_an_index_that_is_not_ours_is_not_replaced(world: World) -> None:
    """The portal's own index is behind the alias, in mode own by mistake: buyers would lose its documents."""
    theirs = f"{world.index}-of-the-portal"
    world.elasticsearch.indices.create(
        index=theirs, aliases={world.index: {}}, mappings={"properties": {"title": {"type": "text"}}}
    )
    world.elasticsearch.index(index=theirs, id="1", document={"title": "a home"}, refresh=True)
    world.listing("1", "kitchen")
    with pytest.raises(IndexSetupError, match="was not made by this job"):
        reindex(world)
    assert behind(world) == theirs and indices(world) == [theirs]


@pytest.mark.parametrize("start", [reindex, rollback])
@pytest.mark.parametrize(
    ("name", "meta"),
    [("of-the-portal", {}), ("next-20260101000000000000", {"made_by": "listing-enrichment"})],
)
def test_an_index_of_others_under_the_name_of_the_one_in_the_making_is_not_dropped(
    homes: World, start: Callable[[World], object], name: str, meta: Mapping[str, str]
) -> None:
    """The portal's own, or that of a job whose ENRICH_INDEX ends so."""
    theirs, next_one = f"{homes.index}-{name}", f"{homes.index}-next"
    mappings = {"_meta": meta, "properties": {"title": {"type": "text"}}}
    homes.elasticsearch.indices.create(index=theirs, aliases={next_one: {}}, mappings=mappings)
    with pytest.raises(IndexSetupError, match=f"{next_one} leads to {theirs}, which was not made for"):
        start(homes)
    assert theirs in indices(homes)


def test_only_one_at_a_time(homes: World) -> None:
    database = Database(homes.portal.url)
    with Locks(database).hold(REINDEX), pytest.raises(BusyError, match="reindex"):
        reindex(homes)
    database.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"index_mode": "merge", "index_columns": ()}, "is the portal's, and so is reindexing it"),
        ({"elasticsearch_url": None}, "no mapping, so there is nothing to reindex"),
    ],
    ids=["merge", "embedded"],
)
def test_where_it_does_not_apply_it_says_so(world: World, settings: Mapping[str, Any], said: str) -> None:
    refused = world.enrich_here("reindex", **settings)
    assert refused.returncode == 2 and said in refused.stderr


def test_the_command_says_what_it_did(homes: World) -> None:
    old = behind(homes)
    told = homes.enrich_here("reindex")
    assert told.returncode == 0, told.stderr
    assert f"serving    {behind(homes)}\n" in told.stdout
    assert f"kept       {old}: `enrich reindex --rollback` goes back to it" in told.stdout
    back = homes.enrich_here("reindex", "--rollback")
    assert back.returncode == 0 and f"serving    {old} again" in back.stdout
    assert "it lacks 0 documents" in back.stdout
    found = json.loads(homes.enrich_here("reindex", "--json").stdout)
    assert found["reindexed"]["serving"] == behind(homes)


def test_on_each_version_of_the_server(world_of_each_version: World) -> None:
    world = world_of_each_version
    world.listing("1", "kitchen")
    world.run()
    before, old = world.documents(), behind(world)
    assert reindex(world).exit_code == 0
    assert behind(world) != old
    assert_same(world.documents(), before)
    assert rollback(world).serving == old
    assert_same(world.documents(), before)
