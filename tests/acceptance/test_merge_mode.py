"""Merge mode: our fields in the portal's documents, which stay the portal's, whatever it does with them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from tests.support.harness import World, assert_same

PROPERTIES = {
    "title": {"type": "text"},
    "price": {"type": "long"},
    "area": {"type": "double"},
    "has_garage": {"type": "boolean"},
    "heating_types": {"type": "keyword"},
    "agent": {"properties": {"name": {"type": "text"}, "phones": {"type": "keyword"}}},
    "sold": {"type": "date"},
}
OURS = {
    "has_balcony", "balcony_confidence", "has_fireplace", "fireplace_confidence", "room_types",
    "photo_count", "enrichment", "evidence", "room_counts",
}  # fmt: skip


class PortalIndex:
    """The portal's own indexer, writing to `name`: an alias of its index, or the index itself."""

    def __init__(self, client: Elasticsearch, name: str, alias: bool = True, dynamic: str = "strict") -> None:
        self.name = name
        self._client = client
        self._dynamic = dynamic
        self._generation = 1
        self._create(f"{name}-v1" if alias else name)
        if alias:
            client.indices.put_alias(index=f"{name}-v1", name=name)

    def _create(self, index: str) -> None:
        self._client.indices.create(
            index=index, mappings={"dynamic": self._dynamic, "properties": PROPERTIES}
        )

    def save(self, id: str, index: str | None = None, **changes: Any) -> dict[str, Any]:
        """Write the whole document of a listing, as the portal knows it; the document."""
        document = {
            "title": f"Två rum & kök nr {id}",
            "price": 3_500_000,
            "area": 52.5,
            "has_garage": True,
            "heating_types": ["gas"],
            "agent": {"name": "A", "phones": ["1", None]},
            "sold": None,
            **changes,
        }
        self._client.index(index=index or self.name, id=id, document=document)
        return document

    def rebuild(self, *ids: str) -> None:
        """A new index with these listings, swapped in behind the alias; the old one removed."""
        self._generation += 1
        new = f"{self.name}-v{self._generation}"
        self._create(new)
        for id in ids:
            self.save(id, index=new)
        self._client.indices.update_aliases(
            actions=[
                {"add": {"index": new, "alias": self.name}},
                {"remove_index": {"index": f"{self.name}-v{self._generation - 1}"}},
            ]
        )


@pytest.fixture
def merging(world: World) -> World:
    world.fixed.update(index_mode="merge", index_columns=())
    return world


@pytest.fixture
def portal_index(merging: World) -> PortalIndex:
    return PortalIndex(merging.elasticsearch, merging.index)


@pytest.fixture
def two_homes(merging: World, portal_index: PortalIndex) -> Iterator[World]:
    """A house and a flat, in the portal's tables and in its index, enriched."""
    merging.listing("house", "kitchen", "balcony", price=1)
    merging.listing("flat", *["bedroom"] * 9)
    portal_index.save("house", sold="2026-01-01")
    portal_index.save("flat")
    report = merging.run()
    assert (report.exit_code, report.published.written, report.published.awaiting) == (0, 2, 0)
    merging.photos.forget()
    yield merging


def ours(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name in OURS | {"listing_id"}}


def theirs(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in OURS | {"listing_id"}}


def check_untouched_and_restored(world: World, before: Mapping[str, Mapping[str, Any]]) -> None:
    """All of our fields are as they were before, and nothing was fetched or scored for it."""
    assert_same(
        {id: ours(d) for id, d in world.documents().items()}, {id: ours(d) for id, d in before.items()}
    )
    assert world.requests() == 0


@pytest.mark.parametrize("dynamic", ["strict", "true", "false"])
@pytest.mark.parametrize("alias", [True, False], ids=["alias", "index"])
def test_our_fields_come_beside_the_portal_s_own(merging: World, alias: bool, dynamic: str) -> None:
    portal = PortalIndex(merging.elasticsearch, merging.index, alias, dynamic)
    merging.listing("house", "kitchen", "balcony", price=1)
    merging.listing("flat", *["bedroom"] * 9)
    before = {
        "house": portal.save("house", sold="2026-01-01"),
        "flat": portal.save("flat"),
        "ad": portal.save("ad"),
    }
    merging.run()
    after = merging.documents()
    assert {id: theirs(document) for id, document in after.items()} == before
    assert after["ad"] == before["ad"], "a document that is no listing of ours"
    assert after["house"].keys() >= OURS and after["house"]["evidence"]["balcony"]["position"] == 1
    assert merging.matching({"term": {"has_balcony": True}}, {"term": {"room_types": "kitchen"}}) == {"house"}
    assert merging.matching({"term": {"has_balcony": False}}) == {"flat"}
    assert merging.matching({"term": {"has_garage": True}}) == {"house", "flat", "ad"}

    versions = merging.versions()
    merging.photos.forget()
    assert merging.run().exit_code == 0
    assert merging.requests() == 0 and merging.versions() == versions


def test_unknown_is_null_and_evidence_names_every_head(two_homes: World) -> None:
    house = two_homes.documents()["house"]
    assert house["has_balcony"] is True
    assert house["has_fireplace"] is None and house["fireplace_confidence"] < 0.2
    assert house["evidence"].keys() == {"balcony", "fireplace", "room"}
    assert house["evidence"]["fireplace"] is None
    two_homes.portal.execute("DELETE FROM listing_images WHERE listing_id = 'house' AND position = 1")
    two_homes.run()
    house = two_homes.documents()["house"]
    assert house["has_balcony"] is None and house["evidence"]["balcony"] is None, "not left standing"


def test_a_late_document_is_completed_by_the_next_publish(merging: World, portal_index: PortalIndex) -> None:
    merging.listing("late", "balcony")
    merging.listing("there", "kitchen")
    portal_index.save("there")
    report = merging.run()
    assert (report.exit_code, report.published.written, report.published.awaiting) == (0, 1, 1)
    assert merging.documents().keys() == {"there"}, "no document is made for the portal"
    again = merging.run()
    assert (again.exit_code, again.published.awaiting) == (0, 1), (
        "tried every run, no effect on the exit code"
    )

    written = portal_index.save("late")
    merging.photos.forget()
    report = merging.publish()
    assert (report.published.written, report.published.awaiting) == (1, 0)
    late = merging.documents()["late"]
    assert late["has_balcony"] is True and theirs(late) == written
    assert merging.requests() == 0


def test_the_portal_overwrites_a_document(two_homes: World, portal_index: PortalIndex) -> None:
    before = two_homes.documents()
    written = portal_index.save("house", price=3_400_000)
    assert "has_balcony" not in two_homes.documents()["house"]
    report = two_homes.run()
    assert (report.exit_code, report.published.written, report.figures.scored) == (0, 1, 0)
    check_untouched_and_restored(two_homes, before)
    assert theirs(two_homes.documents()["house"]) == written


def test_the_portal_changes_a_field_of_its_own(two_homes: World) -> None:
    before = two_homes.documents()
    two_homes.elasticsearch.update(index=two_homes.index, id="house", doc={"price": 7})
    versions = two_homes.versions()
    assert two_homes.run().published.written == 0 and two_homes.versions() == versions
    check_untouched_and_restored(two_homes, before)
    two_homes.portal.execute("DELETE FROM listing_images WHERE listing_id = 'house' AND position = 0")
    two_homes.run()
    assert two_homes.documents()["house"]["price"] == 7


def test_the_portal_rebuilds_into_a_new_index_behind_its_alias(
    two_homes: World, portal_index: PortalIndex
) -> None:
    before = two_homes.documents()
    portal_index.rebuild("flat")
    assert "room_types" not in two_homes.documents()["flat"]
    report = two_homes.run()
    assert (report.exit_code, report.published.written, report.published.awaiting) == (0, 1, 1)
    assert report.figures.scored == 0
    portal_index.save("house")
    two_homes.publish()
    check_untouched_and_restored(two_homes, before)
    assert two_homes.matching({"term": {"has_balcony": True}}) == {"house"}, "mapped, not just kept"


def test_the_portal_takes_a_document_away_and_puts_it_back(
    two_homes: World, portal_index: PortalIndex
) -> None:
    before = two_homes.documents()
    two_homes.elasticsearch.delete(index=two_homes.index, id="house")
    assert two_homes.run().exit_code == 0
    assert two_homes.documents().keys() == {"flat"}
    portal_index.save("house")
    two_homes.publish()
    check_untouched_and_restored(two_homes, before)


def test_of_a_deactivated_listing_our_fields_are_null(two_homes: World, portal_index: PortalIndex) -> None:
    before = two_homes.documents()
    two_homes.portal.execute("UPDATE listings SET active = false WHERE id = 'house'")
    report = two_homes.run()
    assert (report.exit_code, report.published.removed) == (0, 1)
    house = two_homes.documents()["house"]
    assert {name: house[name] for name in OURS} == dict.fromkeys(OURS)
    assert theirs(house) == theirs(before["house"]), "the portal's fields are there still"
    assert two_homes.run().published.removed == 0

    two_homes.portal.execute("UPDATE listings SET active = true WHERE id = 'house'")
    assert two_homes.run().exit_code == 0
    check_untouched_and_restored(two_homes, before)


def test_of_a_listing_that_both_have_removed_nothing_is_left_to_do(two_homes: World) -> None:
    two_homes.portal.remove("house")
    two_homes.elasticsearch.delete(index=two_homes.index, id="house")
    report = two_homes.run()
    assert (report.exit_code, report.published.awaiting, report.published.refused) == (0, 0, 0)
    assert two_homes.documents().keys() == {"flat"}


def test_without_the_portal_s_index_the_job_makes_none(merging: World) -> None:
    merging.listing("house", "kitchen")
    refused = merging.enrich_here("run")
    assert refused.returncode == 2 and "ENRICH_INDEX" in refused.stderr and "Traceback" not in refused.stderr
    assert not merging.elasticsearch.indices.exists(index=f"{merging.index}*", allow_no_indices=False)


def test_check_says_that_no_document_has_the_id_of_a_listing(
    merging: World, portal_index: PortalIndex
) -> None:
    """Every run would await the portal's documents, night after night."""

    def check() -> tuple[int, str]:
        checked = merging.enrich_here("check")
        return checked.returncode, checked.stdout

    for id in ("flat", "house"):
        merging.listing(id, "kitchen")
    assert check()[0] == 0, "the portal has written no document yet"
    for number in range(3):
        portal_index.save(f"R{number}")
    code, told = check()
    assert code == 2 and "all is well" not in told
    (complaint,) = (line for line in told.splitlines() if line.startswith("✗ documents"))
    assert "3 documents" in complaint and ", such as R" in complaint and ", such as flat" in complaint
    assert "_id" in complaint and "ENRICH_SOURCE_LISTINGS" in complaint and "docs/index.md" in complaint

    portal_index.save("house")
    assert check()[0] == 0, "other documents may be something else's"
    merging.run()
    merging.elasticsearch.indices.refresh(index=merging.index)
    assert check()[0] == 0
    merging.portal.execute("UPDATE listings SET active = false")
    assert check()[0] == 0, "there is no listing to compare with"


def test_on_each_version_of_the_server(world_of_each_version: World) -> None:
    world = world_of_each_version
    world.fixed.update(index_mode="merge", index_columns=())
    portal_index = PortalIndex(world.elasticsearch, world.index)
    world.listing("house", "balcony")
    world.listing("late", "fireplace")
    portal_index.save("house")
    assert (world.run().published.awaiting, world.documents()["house"]["has_balcony"]) == (1, True)
    portal_index.rebuild("house", "late")
    assert world.publish().published.written == 2
    assert world.matching({"term": {"has_fireplace": True}}) == {"late"}
    assert world.documents()["late"]["has_balcony"] is None
    assert world.requests() == 2
    assert "documents have the ids of listings" in world.enrich_here("check").stdout
