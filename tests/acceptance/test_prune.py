"""`enrich prune`: dry unless told, and after it the next run still has nothing to do."""

import json

from jobs.run.services import open_records
from jobs.run.session import DISCOVER
from tests.support.harness import World

AGED = (
    "UPDATE enrichment.listing SET revision = 1 WHERE status = 'gone'",
    "UPDATE enrichment.photo SET checked_at = now() - interval '1 year'",
)


def test_it_deletes_only_when_told_and_what_is_left_is_whole(world: World) -> None:
    world.listing("a", "kitchen", "balcony")
    world.listing("b", "bathroom")
    world.run()
    world.portal.remove("b")
    world.run(allow_removals=True)
    for statement in AGED:
        world.portal.execute(statement)
    documents = world.documents()

    counted = json.loads(world.enrich_here("prune", "--json").stdout)
    assert not counted["deleted"]
    assert {one["what"]: one["rows"] for one in counted["rows"] if one["rows"]} == {
        "listings that are gone": 1
    }
    assert set(world.statuses()) == {"a", "b"}

    with open_records(world.settings()) as records, records.locks.hold(DISCOVER):
        beside = world.enrich_here("prune", "--yes")
        assert "listings that are gone (left: a run is discovering)" in beside.stdout
        assert set(world.statuses()) == {"a", "b"}
    done = world.enrich_here("prune", "--yes")
    assert done.returncode == 0 and "deleted" in done.stdout
    assert set(world.statuses()) == {"a"}

    world.photos.forget()
    report = world.run()
    assert report.exit_code == 0 and world.requests() == 0 and report.published.written == 0
    assert world.documents() == documents
    world.listing("b", "bathroom")
    world.run()
    assert world.documents()["b"]["room_types"] == ["bathroom"]
