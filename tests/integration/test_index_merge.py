"""Mode merge on real servers: our fields in the portal's documents, and the portal's own left as they are."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from enrich.errors import IndexSetupError, UsageError
from enrich.index.document import build, reserved
from enrich.index.elastic.merge import MergeIndex
from enrich.index.protocol import Column, IndexLost, IndexUnavailable, Query
from enrich.model.head import Head
from enrich.records import DocumentWrite, WriteStatus
from tests.support.elasticsearch import client_of, reached
from tests.support.index import ATTRIBUTES, HEADS, row, statuses, take
from tests.support.proxy import Answer, Proxy
from tests.support.wire import Wire

DONE, AWAITING, OUTDATED, RETRY = (
    WriteStatus.DONE,
    WriteStatus.AWAITING,
    WriteStatus.OUTDATED,
    WriteStatus.RETRY,
)
PORTAL = {  # with names that look like ours, and numbers that are easily changed by reading and writing them
    "title": "Två rum & kök",
    "price": 3500000,
    "rooms": 2.50,
    "monthly": 1e-7,
    "big": 12345678901234567,
    "has_garage": True,
    "garage_confidence": 0.5,
    "heating_types": ["gas"],
    "agent": {"name": "A", "phones": ["1", None]},
    "sold": None,
}
MAPPINGS = {
    "dynamic": "strict",
    "properties": {
        "title": {"type": "text"},
        "price": {"type": "long"},
        "rooms": {"type": "double"},
        "monthly": {"type": "double"},
        "big": {"type": "long"},
        "has_garage": {"type": "boolean"},
        "garage_confidence": {"type": "float"},
        "heating_types": {"type": "keyword"},
        "agent": {"properties": {"name": {"type": "text"}, "phones": {"type": "keyword"}}},
        "sold": {"type": "date"},
    },
}


class PortalIndex:
    """What the portal does with its own index, by its alias."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.client = client_of(url)
        self._generation = 0
        self.rebuild({})

    def rebuild(self, documents: dict[str, Any]) -> None:
        """A new index with these documents, swapped in behind the alias; the old one removed."""
        self._generation += 1
        new = f"{self.name}-v{self._generation}"
        self.client.indices.create(index=new, mappings=MAPPINGS)
        for id, document in documents.items():
            self.client.index(index=new, id=id, document=document)
        actions: list[dict[str, Any]] = [{"add": {"index": new, "alias": self.name}}]
        if self._generation > 1:
            actions.append({"remove_index": {"index": f"{self.name}-v{self._generation - 1}"}})
        self.client.indices.update_aliases(actions=actions)

    def save(self, *ids: str, **fields: Any) -> None:
        for id in ids:
            self.client.index(index=self.name, id=id, document={**PORTAL, **fields})

    def get(self, id: str) -> dict[str, Any]:
        return dict(self.client.get(index=self.name, id=id)["_source"])

    def own(self, id: str) -> str:
        """The portal's own fields, in their order, as JSON."""
        return json.dumps({k: v for k, v in self.get(id).items() if k not in reserved(HEADS)})


@pytest.fixture
def portal_index(elasticsearch_url: str, index_name: str) -> Iterator[PortalIndex]:
    portal = PortalIndex(elasticsearch_url, index_name)
    yield portal
    portal.client.close()


@pytest.fixture
def index(portal_index: PortalIndex, elasticsearch_url: str) -> Iterator[MergeIndex]:
    index = merge(elasticsearch_url, portal_index.name)
    index.prepare()
    yield index
    index.close()


def merge(url: str, name: str, heads: Sequence[Head] = HEADS) -> MergeIndex:
    return MergeIndex(reached(url), name, heads)


def put(id: str, revision: int, heads: Sequence[Head] = HEADS, **changes: Any) -> DocumentWrite:
    written = row(id=id, revision=revision, attributes=ATTRIBUTES | changes)
    return DocumentWrite(id, revision, build(written, heads, "merge"))


def test_an_id_that_no_document_can_have_costs_no_other(index: MergeIndex, portal_index: PortalIndex) -> None:
    portal_index.save("a")
    writes = [put("", 5), put("a", 5), put("x" * 513, 5), DocumentWrite("y" * 513, 5, None)]
    assert statuses(index.write(writes)) == [AWAITING, DONE, AWAITING, DONE]
    assert statuses(index.write(writes[:1])) == [AWAITING]


def lost(index: MergeIndex) -> set[str]:
    return {id for page in index.lost() for id in page}


# What holds on every server version


def test_our_fields_come_and_go_and_the_portal_s_stay(each_server: str, index_name: str) -> None:
    portal = PortalIndex(each_server, index_name)
    index = merge(each_server, index_name)
    index.prepare()
    portal.save("1", "2")
    before = portal.own("1")
    assert statuses(index.write([put("1", 5), put("2", 5), put("3", 5)])) == [DONE, DONE, AWAITING]
    document = portal.get("1")
    assert portal.own("1") == before
    assert reserved(HEADS) <= set(document)
    assert document["has_balcony"] is True
    assert document["has_fireplace"] is None
    assert document["listing_id"] == "1"
    assert document["evidence"]["balcony"]["position"] == 1
    assert document["enrichment"]["revision"] == 5
    taken = index.write([take("1", 6), take("2", 6), take("3", 6)])
    assert [(result.status, result.absent) for result in taken] == [
        (DONE, False),
        (DONE, False),
        (DONE, True),
    ]
    (nothing_of_ours,) = index.write([take("2", 7)])
    assert (nothing_of_ours.status, nothing_of_ours.absent) == (DONE, True)
    document = portal.get("1")
    assert portal.own("1") == before
    assert {document[name] for name in reserved(HEADS) - {"listing_id"}} == {None}


def test_the_higher_revision_wins_and_a_repeated_write_changes_nothing(
    each_server: str, index_name: str
) -> None:
    portal = PortalIndex(each_server, index_name)
    index = merge(each_server, index_name)
    index.prepare()
    portal.save("1")
    index.write([put("1", 5)])
    written = portal.client.get(index=index_name, id="1")
    assert statuses(index.write([put("1", 5)])) == [DONE]
    (late,) = index.write([put("1", 4)])
    assert (late.status, late.index_revision) == (OUTDATED, 5)
    (late,) = index.write([take("1", 4)])
    assert (late.status, late.index_revision) == (OUTDATED, 5)
    assert portal.client.get(index=index_name, id="1").body == written.body
    index.write([take("1", 6)])
    written = portal.client.get(index=index_name, id="1")
    assert statuses(index.write([take("1", 6)])) == [DONE]
    assert portal.client.get(index=index_name, id="1").body == written.body
    assert statuses(index.write([put("1", 7)])) == [DONE]


def test_documents_that_the_portal_wrote_anew_are_found_and_completed(
    each_server: str, index_name: str
) -> None:
    portal = PortalIndex(each_server, index_name)
    index = merge(each_server, index_name)
    identity = index.prepare()
    portal.save("1", "2")
    assert lost(index) == {"1", "2"}
    index.write([put("1", 5), put("2", 5)])
    assert lost(index) == set()
    portal.save("2", price=1)
    assert lost(index) == {"2"}
    assert statuses(index.write([put("2", 5)])) == [DONE]
    assert portal.get("2")["has_balcony"] is True
    assert portal.get("2")["price"] == 1
    portal.rebuild({"1": PORTAL, "2": PORTAL, "3": PORTAL})
    assert index.prepare() != identity
    assert lost(index) == {"1", "2", "3"}
    assert statuses(index.write([put("1", 5), put("2", 5)])) == [DONE, DONE]
    assert lost(index) == {"3"}


# Objects merge in a partial update: nothing old may stay


def test_nothing_of_an_earlier_write_is_left_standing(index: MergeIndex, portal_index: PortalIndex) -> None:
    portal_index.save("1")
    index.write([put("1", 5)])
    changed: dict[str, Any] = {
        "evidence": {"balcony": {"override": True}},
        "counts": {"room_counts": {"bathroom": 1}},
    }
    index.write([put("1", 6, **changed)])
    document = portal_index.get("1")
    assert {k: v for k, v in document["evidence"]["balcony"].items() if v is not None} == {"override": True}
    assert {k: v for k, v in document["room_counts"].items() if v is not None} == {"bathroom": 1}
    index.write([put("1", 7, evidence={})])
    assert portal_index.get("1")["evidence"] == {"balcony": None, "fireplace": None, "room": None}


def test_fields_of_a_head_that_the_bundle_no_longer_has_are_nulled(
    index: MergeIndex, portal_index: PortalIndex, elasticsearch_url: str
) -> None:
    wider = merge(elasticsearch_url, portal_index.name, (*HEADS, Head("pool", "binary")))
    wider.prepare()
    portal_index.save("1", "2")
    fields = {"has_pool": True, "pool_confidence": 0.8}
    wider.write([put(id, 5, (*HEADS, Head("pool", "binary")), fields=fields) for id in "12"])
    assert portal_index.get("1")["has_pool"] is True
    index.write([put("1", 6), take("2", 6)])
    for id in "12":
        document = portal_index.get(id)
        assert document["has_pool"] is document["pool_confidence"] is None
        assert document["has_garage"] is True


@pytest.mark.parametrize("es_type", ["long", "keyword"])
def test_the_portal_s_own_listing_id_is_left_alone(
    elasticsearch_url: str, portal_index: PortalIndex, index_name: str, es_type: str
) -> None:
    properties = {"listing_id": {"type": es_type}, "title": {"type": "text"}}
    portal_index.client.indices.create(index=f"{index_name}-long", mappings={"properties": properties})
    portal_index.client.index(index=f"{index_name}-long", id="1", document={"listing_id": 77, "title": "x"})
    portal_index.client.index(index=f"{index_name}-long", id="2", document={"title": "y"})
    index = merge(elasticsearch_url, f"{index_name}-long")
    index.prepare()
    assert statuses(index.write([put("1", 5), put("2", 5)])) == [DONE, DONE]
    found = portal_index.client.mget(index=f"{index_name}-long", ids=["1", "2"])["docs"]
    assert [document["_source"].get("listing_id") for document in found] == [
        77,
        "2" if es_type == "keyword" else None,
    ]
    index.write([take("1", 6)])
    assert portal_index.client.get(index=f"{index_name}-long", id="1")["_source"]["listing_id"] == 77


# Setting up


def test_prepare_adds_our_fields_to_the_mapping_and_nothing_else(
    portal_index: PortalIndex, elasticsearch_proxy: Proxy
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    assert "fields that will be added" in index.check()[-1]
    identity = index.prepare()
    (found,) = portal_index.client.indices.get(index=portal_index.name).values()
    assert found["settings"]["index"]["uuid"] == identity
    fields = found["mappings"]["properties"]
    assert found["mappings"]["dynamic"] == "strict"
    assert set(fields) == set(MAPPINGS["properties"]) | reserved(HEADS)
    assert fields["title"] == {"type": "text"}
    assert len(index.check()) == 1
    changing = len(elasticsearch_proxy.sent("_mapping"))
    assert index.prepare() == identity
    assert len(elasticsearch_proxy.sent("_mapping")) == changing == 1


def test_a_mapping_that_contradicts_ours_is_refused_by_field(
    portal_index: PortalIndex, elasticsearch_url: str, index_name: str
) -> None:
    properties = {"room_types": {"type": "text"}, "photo_count": {"type": "long"}}
    portal_index.client.indices.create(index=f"{index_name}-bad", mappings={"properties": properties})
    index = merge(elasticsearch_url, f"{index_name}-bad")
    for step in (index.prepare, index.check):
        with pytest.raises(
            IndexSetupError, match="field room_types is of type text, keyword is needed"
        ) as error:
            step()
        assert "photo_count" not in str(error.value)  # long holds every integer


def test_a_revision_that_the_portal_maps_too_narrow_is_refused_by_field(
    portal_index: PortalIndex, elasticsearch_url: str, index_name: str
) -> None:
    enrichment = {"properties": {"revision": {"type": "integer"}, "photos_seen": {"type": "short"}}}
    bad = f"{index_name}-narrow"
    portal_index.client.indices.create(index=bad, mappings={"properties": {"enrichment": enrichment}})
    index = merge(elasticsearch_url, bad)
    needed = r"narrow: field enrichment.revision is of type integer, long is needed\. Map the fields as"
    for step in (index.prepare, index.check):
        with pytest.raises(IndexSetupError, match=needed):
            step()


def test_a_missing_index_is_refused_and_not_made(
    portal_index: PortalIndex, elasticsearch_url: str, index_name: str
) -> None:
    index = merge(elasticsearch_url, f"{index_name}-none")
    for step in (index.prepare, index.check):
        with pytest.raises(IndexSetupError, match=f"there is no index or alias {index_name}-none"):
            step()
    assert not portal_index.client.indices.exists(index=f"{index_name}-none")


def test_an_alias_of_several_indices_is_refused(
    index: MergeIndex, portal_index: PortalIndex, index_name: str
) -> None:
    portal_index.client.indices.create(index=f"{index_name}-extra", aliases={index_name: {}})
    with pytest.raises(IndexSetupError, match="several indices"):
        index.prepare()
    with pytest.raises(IndexLost):
        index.write([put("1", 5)])


def test_an_index_that_is_gone_is_lost_and_not_made(
    index: MergeIndex, portal_index: PortalIndex, index_name: str
) -> None:
    portal_index.client.indices.delete(index=f"{index_name}-v1")
    with pytest.raises(IndexLost):
        index.write([put("1", 5)])
    assert not portal_index.client.indices.exists(index=index_name)


def test_an_index_that_goes_while_it_is_written_to_is_not_made(
    portal_index: PortalIndex, elasticsearch_proxy: Proxy
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    index.prepare()
    portal_index.save("1")

    client, name = portal_index.client, f"{portal_index.name}-v1"
    elasticsearch_proxy.before("_bulk", lambda: client.indices.delete(index=name))
    with pytest.raises(IndexLost):
        index.write([put("1", 5)])
    assert not portal_index.client.indices.exists(index=portal_index.name)


def test_what_is_there_already_is_read_and_not_written(
    portal_index: PortalIndex, elasticsearch_proxy: Proxy
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    index.prepare()
    portal_index.save("1", "2")
    index.write([put("1", 5), put("2", 5)])
    index.write([take("2", 6)])
    written = len(elasticsearch_proxy.sent("_bulk"))
    assert statuses(index.write([put("1", 5), take("2", 7), put("3", 5)])) == [DONE, DONE, AWAITING]
    assert len(elasticsearch_proxy.sent("_bulk")) == written == 2


def test_a_portal_s_index_without_an_alias_works_too(elasticsearch_url: str, index_name: str) -> None:
    with client_of(elasticsearch_url) as client:
        client.indices.create(index=index_name)
        client.index(index=index_name, id="1", document={"title": "x"})
        index = merge(elasticsearch_url, index_name)
        index.prepare()
        assert statuses(index.write([put("1", 5), put("2", 5)])) == [DONE, AWAITING]
        assert not client.exists(index=index_name, id="2")


# Failing


def test_a_portal_that_writes_in_between_loses_nothing(
    portal_index: PortalIndex, elasticsearch_proxy: Proxy
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    index.prepare()
    portal_index.save("1", "2")
    prices = iter(range(1, 3))

    def in_between() -> None:
        if price := next(prices, None):
            portal_index.save("1", price=price)

    elasticsearch_proxy.before("_bulk", in_between)
    assert statuses(index.write([put("1", 5), put("2", 5)])) == [DONE, DONE]
    document = portal_index.get("1")
    assert (document["price"], document["has_balcony"]) == (2, True)


def test_a_document_that_is_written_to_all_the_time_is_put_off(
    portal_index: PortalIndex, elasticsearch_proxy: Proxy
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    index.prepare()
    portal_index.save("1", "2")
    elasticsearch_proxy.before("_bulk", lambda: portal_index.save("1"))
    assert statuses(index.write([put("1", 5), put("2", 5)])) == [RETRY, DONE]


def test_a_document_deleted_in_between_is_awaited(
    portal_index: PortalIndex, elasticsearch_proxy: Proxy
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    index.prepare()
    portal_index.save("1")
    client = portal_index.client
    elasticsearch_proxy.before("_bulk", lambda: client.delete(index=portal_index.name, id="1"))
    assert statuses(index.write([put("1", 5)])) == [AWAITING]


def test_one_refused_document_does_not_hold_up_the_others(
    index: MergeIndex, portal_index: PortalIndex
) -> None:
    portal_index.save("1", "2", "3")
    broken = put("2", 5, photo_count="many")
    unsendable = put("3", 5, photo_count=float("nan"))
    results = index.write([put("1", 5), broken, unsendable])
    assert statuses(results) == [DONE, WriteStatus.REFUSED, WriteStatus.REFUSED]
    assert "photo_count" in (results[1].error or "")


def test_a_blocked_index_is_tried_again(index: MergeIndex, portal_index: PortalIndex) -> None:
    portal_index.save("1")
    portal_index.client.indices.put_settings(index=portal_index.name, settings={"index.blocks.write": True})
    assert statuses(index.write([put("1", 5)])) == [RETRY]
    portal_index.client.indices.put_settings(index=portal_index.name, settings={"index.blocks.write": None})
    assert statuses(index.write([put("1", 5)])) == [DONE]


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_server_is_unavailable(
    elasticsearch_proxy: Proxy, portal_index: PortalIndex, status: int
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    index.prepare()
    elasticsearch_proxy.always(status)
    for call in (index.prepare, lambda: index.write([put("1", 5)]), lambda: lost(index)):
        with pytest.raises(IndexUnavailable):
            call()


def test_a_server_that_is_away_is_unavailable(portal_index: PortalIndex, elasticsearch_wire: Wire) -> None:
    portal_index.save("1")
    index = merge(f"http://127.0.0.1:{elasticsearch_wire.port}", portal_index.name)
    identity = index.prepare()
    elasticsearch_wire.down()
    for call in (index.prepare, lambda: index.write([put("1", 5)]), lambda: lost(index)):
        with pytest.raises(IndexUnavailable):
            call()
    elasticsearch_wire.up()
    assert index.prepare() == identity
    assert statuses(index.write([put("1", 5)])) == [DONE]


def test_lost_documents_come_in_pages(
    index: MergeIndex, portal_index: PortalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.index.elastic.reading.PAGE", 10)
    ids = [f"n{number}" for number in range(25)]
    portal_index.save(*ids)
    pages = list(index.lost())
    assert [len(page) for page in pages] == [10, 10, 5]
    assert {id for page in pages for id in page} == set(ids)


def test_lost_works_without_the_privilege_to_refresh(
    portal_index: PortalIndex, elasticsearch_proxy: Proxy
) -> None:
    index = merge(elasticsearch_proxy.url, portal_index.name)
    index.prepare()
    portal_index.save("1")
    portal_index.client.indices.refresh(index=portal_index.name)
    elasticsearch_proxy.answer = lambda r: Answer(403) if "_refresh" in r.path else None
    assert lost(index) == {"1"}


def test_search_finds_the_portal_s_documents_by_our_fields_and_theirs(
    index: MergeIndex, portal_index: PortalIndex
) -> None:
    portal_index.save("1", "2")
    portal_index.save("3", price=7)
    index.write([put("1", 5), put("3", 5)])
    portal_index.client.indices.refresh(index=portal_index.name)
    hits = index.search(Query(has=("balcony",), types={"room": ("kitchen",)}))
    assert [document["listing_id"] for document in hits.documents] == ["1", "3"]
    hits = index.search(Query(has=("balcony",), where={"price": "7", "title": "rum"}))
    assert [document["listing_id"] for document in hits.documents] == ["3"]
    assert hits.documents[0]["agent"] == PORTAL["agent"]


def test_what_was_never_enriched_is_no_unknown_of_ours(index: MergeIndex, portal_index: PortalIndex) -> None:
    portal_index.save("1", "2", "3")
    index.write([put("1", 5), put("2", 5, fields={})])
    portal_index.client.indices.refresh(index=portal_index.name)
    assert index.facets(Query()).answers["balcony"] == {True: 1, False: 0, None: 1}
    assert index.facets(Query()).columns["price"].kind == "number"
    assert [one["listing_id"] for one in index.search(Query(unknown=("balcony",))).documents] == ["2"]


def test_beside_a_choice_stands_how_many_it_would_leave_whoever_enriched_them(
    index: MergeIndex, portal_index: PortalIndex
) -> None:
    portal_index.save("1", price=1)
    portal_index.save("2", "3", price=9)
    index.write([put("1", 5), put("2", 5, fields={})])
    portal_index.client.indices.refresh(index=portal_index.name)
    choice = Query(where={"heating_types": "gas"})
    assert index.facets(Query()).columns["heating_types"].counts == {"gas": 3}
    assert index.search(choice).total == 3
    assert index.facets(choice).columns["price"].most == 9
    asked = index.facets(Query(unknown=("balcony",)))
    assert asked.columns["heating_types"].counts == {"gas": 1}
    assert asked.answers == {
        "balcony": {True: 1, False: 0, None: 1},
        "fireplace": {True: 0, False: 0, None: 1},
    }


def test_what_stands_in_nested_objects_is_no_field_to_search_by_unless_their_listing_has_it_too(
    elasticsearch_url: str, portal_index: PortalIndex, index_name: str
) -> None:
    name, kind = f"{index_name}-nested", {"kind": {"type": "keyword"}}
    properties = {
        "rooms": {"type": "nested", "properties": kind},
        "views": {"type": "nested", "include_in_parent": True, "properties": kind},
    }
    portal_index.client.indices.create(index=name, mappings={"properties": properties})
    document = {"rooms": [{"kind": "attic"}], "views": [{"kind": "sea"}]}
    portal_index.client.index(index=name, id="1", document=document, refresh=True)
    index = merge(elasticsearch_url, name)
    index.prepare()
    with pytest.raises(UsageError, match=r"no field 'rooms\.kind'"):
        index.search(Query(where={"rooms.kind": "attic"}))
    assert index.search(Query(where={"views.kind": "sea"})).total == 1
    assert index.facets(Query()).columns == {"views.kind": Column("keyword", {"sea": 1})}


def test_a_listing_id_of_the_portal_s_own_that_cannot_be_sorted_by_hinders_no_search(
    elasticsearch_url: str, portal_index: PortalIndex, index_name: str
) -> None:
    name = f"{index_name}-dynamic"
    portal_index.client.index(index=name, id="1", document={"listing_id": "1", "title": "x"})  # text, then
    index = merge(elasticsearch_url, name)
    index.prepare()
    assert statuses(index.write([put("1", 5)])) == [DONE]
    portal_index.client.indices.refresh(index=name)
    for query in (Query(has=("balcony",)), Query()):
        assert [one["title"] for one in index.search(query).documents] == ["x"]


def test_hits_are_told_by_the_listing_s_id_whatever_the_portal_calls_it(
    elasticsearch_url: str, portal_index: PortalIndex, index_name: str
) -> None:
    name, properties = f"{index_name}-own-id", {"listing_id": {"type": "keyword"}}
    portal_index.client.indices.create(index=name, mappings={"properties": properties})
    for id, own in (("1", "MLS-9"), ("2", None)):
        portal_index.client.index(index=name, id=id, document={"listing_id": own})
    index = merge(elasticsearch_url, name)
    index.prepare()
    assert statuses(index.write([put("1", 5), put("2", 5)])) == [DONE, DONE]
    portal_index.client.indices.refresh(index=name)
    assert [one["listing_id"] for one in index.search(Query(has=("balcony",))).documents] == ["1", "2"]


def test_fields_whose_values_cannot_be_counted_hinder_no_facets(
    elasticsearch_url: str, portal_index: PortalIndex, index_name: str
) -> None:
    name, apart = f"{index_name}-slim", {"doc_values": False}
    properties = {
        "agent": {"type": "keyword", **apart},
        "rooms": {"type": "long", **apart},
        "city": {"type": "keyword"},
    }
    portal_index.client.indices.create(index=name, mappings={"properties": properties})
    portal_index.client.index(index=name, id="1", document={"agent": "A", "rooms": 2, "city": "Solna"})
    index = merge(elasticsearch_url, name)
    index.prepare()
    assert statuses(index.write([put("1", 5)])) == [DONE]
    portal_index.client.indices.refresh(index=name)
    query = Query(where={"agent": "A", "rooms": "2"})
    assert index.search(query).total == 1
    assert index.facets(query).columns == {"city": Column("keyword", {"Solna": 1})}
