"""A buyer's own mapping: points, analysed text and index settings, on a real Elasticsearch."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from enrich.errors import IndexSetupError, SettingsError, UsageError
from enrich.index.embedded import EmbeddedIndex
from enrich.index.open import open_index
from enrich.index.protocol import Query, SearchIndex
from enrich.model.bundle import Head
from enrich.records import DocumentWrite, WriteStatus
from enrich.settings import Settings, load_settings
from enrich.state.database import Database
from tests.support.command import enrich_here
from tests.support.harness import World

HEADS = (Head("balcony", "binary"),)
COPIED = {"title": "keyword", "place": "geo_point", "spot": "keyword", "price": "long"}
TITLE = {"type": "text", "analyzer": "homes", "fields": {"raw": {"type": "keyword"}}}
PROPERTIES: dict[str, Any] = {"title": TITLE, "spot": {"type": "geo_point"}}
ANALYSIS = {
    "analysis": {
        "analyzer": {"homes": {"type": "custom", "tokenizer": "standard", "filter": ["lowercase", "short"]}},
        "filter": {"short": {"type": "stop", "stopwords": ["med", "i"]}},
    }
}
SOLNA, MALMO = {"lat": 59.36, "lon": 18.0}, {"lat": 55.6, "lon": 13.0}
Opened = Callable[..., SearchIndex]


def write(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    return file


@pytest.fixture
def settings(elasticsearch_url: str, index_name: str, tmp_path: Path) -> Callable[..., Settings]:
    def build(
        properties: Mapping[str, Any] = PROPERTIES, options: Mapping[str, Any] = ANALYSIS, **other: Any
    ) -> Settings:
        given = {
            "elasticsearch_url": elasticsearch_url,
            "index": index_name,
            "index_mapping": write(tmp_path, "mapping.json", {"properties": properties}),
            "index_settings": write(tmp_path, "settings.json", options),
        }
        return load_settings(_env_file=None, **{**given, **other})

    return build


@pytest.fixture
def opened(settings: Callable[..., Settings], database: Database) -> Opened:
    return lambda *args, **other: open_index(settings(*args, **other), database, HEADS, COPIED)


def test_points_and_analysed_text_find_listings(
    opened: Opened, elasticsearch_url: str, index_name: str
) -> None:
    index = opened(options={**ANALYSIS, "index": {"refresh_interval": "2s"}})
    index.prepare()
    homes: dict[str, dict[str, Any]] = {
        "a": {"title": "Ljusa rum med öppna spisar", "place": SOLNA, "spot": "59.36,18.0"},
        "b": {"title": "Radhus i Malmö", "place": MALMO, "spot": "55.6,13.0"},
    }
    written = index.write([DocumentWrite(id, 5, {"listing_id": id, **home}) for id, home in homes.items()])
    assert [result.status for result in written] == [WriteStatus.DONE] * 2
    with Elasticsearch(elasticsearch_url) as client:
        client.indices.refresh(index=index_name)
        (found,) = client.indices.get(index=index_name).values()
        assert found["settings"]["index"]["refresh_interval"] == "2s"
        assert found["settings"]["index"]["gc_deletes"] == "1d"
        for field in ("place", "spot"):
            near = {"geo_distance": {"distance": "20km", field: {"lat": 59.33, "lon": 18.07}}}
            hits = client.search(index=index_name, query=near)["hits"]["hits"]
            assert [hit["_id"] for hit in hits] == ["a"]
    assert [
        hit["listing_id"] for hit in index.search(Query(where={"title": "med SPISAR rum"})).documents
    ] == ["a"]
    whole = Query(where={"title.raw": "Radhus i Malmö"})
    assert [hit["listing_id"] for hit in index.search(whole).documents] == ["b"]
    assert "title.raw" not in index.facets(whole).columns
    assert not any("added" in line for line in index.check())
    with pytest.raises(UsageError, match="the index cannot answer this"):
        index.search(Query(where={"place": "59,18"}))


def test_what_can_be_added_to_an_index_is_added(opened: Opened, index_name: str) -> None:
    identity = opened({"title": {"type": "text"}}, {}).prepare()
    wider = opened(
        {"title": {"type": "text", "fields": {"raw": {"type": "keyword"}}}}, {"refresh_interval": "3s"}
    )
    assert "title" in wider.check()[-1]
    assert wider.prepare() == identity
    assert len(wider.check()) == 1


@pytest.mark.parametrize(
    ("properties", "options", "words"),
    [
        ({"title": {"type": "keyword"}, "spot": PROPERTIES["spot"]}, ANALYSIS, "field title is of type text"),
        (
            {**PROPERTIES, "title": {**TITLE, "analyzer": "whitespace"}},
            ANALYSIS,
            "field title has the analyzer homes, whitespace is needed",
        ),
        (
            PROPERTIES,
            {"analysis": {"analyzer": {"homes": {"type": "whitespace"}}}},
            "another setting analysis",
        ),
        (PROPERTIES, {**ANALYSIS, "number_of_shards": 3}, "another setting number_of_shards"),
        (PROPERTIES, {**ANALYSIS, "codec": "best_compression"}, "another setting codec"),
        (PROPERTIES, {**ANALYSIS, "routing_partition_size": 2}, "another setting routing_partition_size"),
        (PROPERTIES, {**ANALYSIS, "similarity": {"mine": {"type": "boolean"}}}, "another setting similarity"),
    ],
)
def test_what_contradicts_the_index_that_is_there_is_told(
    opened: Opened, properties: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    opened().prepare()
    for step in (opened(properties, options).check, opened(properties, options).prepare):
        with pytest.raises(IndexSetupError, match=f"{words}.*enrich reindex"):
            step()


def test_a_setting_that_no_index_tells_of_itself_is_no_difference(opened: Opened) -> None:
    options = {**ANALYSIS, "number_of_routing_shards": 30}
    opened(PROPERTIES, options).prepare()
    assert opened(PROPERTIES, options).check()
    opened(PROPERTIES, options).prepare()


@pytest.mark.parametrize("inner", ["fields", "properties"])
@pytest.mark.parametrize("wrong", [None, {"raw": "keyword"}])
def test_what_is_no_mapping_within_a_field_is_named(opened: Opened, inner: str, wrong: Any) -> None:
    with pytest.raises(SettingsError, match=r"ENRICH_INDEX_MAPPING.* of agent(\.raw)? is an object"):
        opened({"agent": {"type": "text", inner: wrong}})


MADE: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    ({"type": "keyword"}, {"normalizer": "lowercase"}, "title was made with normalizer None, lowercase is"),
    ({"type": "keyword"}, {"index": False}, "title was made with index True, False is"),
    ({"type": "keyword"}, {"doc_values": False}, "title was made with doc_values True, False is"),
    ({"type": "keyword"}, {"store": True}, "title was made with store False, True is"),
    ({"type": "text"}, {"similarity": "boolean"}, "title was made with similarity None, boolean is"),
    (
        {"type": "date"},
        {"format": "yyyy"},
        "title was made with format strict_date_optional_time||epoch_millis, yyyy is",
    ),
    (
        {"type": "text", "fields": {"raw": {"type": "keyword"}}},
        {"fields": {"raw": {"type": "text"}}},
        "title.raw is of type keyword, text is",
    ),
    (
        {"type": "text", "fields": {"raw": {"type": "keyword"}}},
        {"fields": {"raw": {"type": "keyword", "normalizer": "lowercase"}}},
        "title.raw was made with normalizer None, lowercase is",
    ),
)


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
@pytest.mark.parametrize(("spec", "more", "words"), MADE)
def test_what_a_field_was_made_with_is_not_said_to_be_changed(
    opened: Opened, spec: dict[str, Any], more: dict[str, Any], words: str, back: bool
) -> None:
    before, after = (spec | more, spec) if back else (spec, spec | more)
    opened({"title": before}, {}).prepare()
    for step in (opened({"title": after}, {}).check, opened({"title": after}, {}).prepare):
        with pytest.raises(IndexSetupError, match=f"field {words.split()[0]} .*enrich reindex") as told:
            step()
        assert back or words in str(told.value)


TAKEN_OUT: tuple[tuple[dict[str, Any], str], ...] = (
    ({"price": {"type": "integer"}}, "field price is of type integer, long is needed"),
    (
        {"title": {"type": "keyword", "normalizer": "lowercase"}},
        "field title was made with normalizer lowerc",
    ),
    ({"title": {"type": "keyword", "index": False}}, "field title was made with index False, True is needed"),
)


@pytest.mark.parametrize(("properties", "words"), TAKEN_OUT)
def test_what_is_taken_out_of_the_file_again_contradicts_the_index(
    opened: Opened, properties: dict[str, Any], words: str
) -> None:
    opened(properties, {}).prepare()
    for step in (opened({}, {}).check, opened({}, {}).prepare):
        with pytest.raises(IndexSetupError, match=f"{words}.*enrich reindex"):
            step()


@pytest.mark.parametrize("wide", [{"type": "long"}, {"type": "keyword", "fields": {"n": {"type": "long"}}}])
def test_a_number_of_another_width_is_not_said_to_be_changed(opened: Opened, wide: dict[str, Any]) -> None:
    narrow = json.loads(json.dumps(wide).replace("long", "integer"))
    opened({"price": narrow}, {}).prepare()
    for step in (opened({"price": wide}, {}).check, opened({"price": wide}, {}).prepare):
        with pytest.raises(IndexSetupError, match=r"is of type integer, long is needed.*enrich reindex"):
            step()


def test_what_a_field_says_that_goes_without_saying_is_no_contradiction(opened: Opened) -> None:
    place = {"type": "binary"}  # has no doc_values unless it says so
    opened({"title": {"type": "keyword"}, "spot": {"type": "date"}, "place": place}, {}).prepare()
    said = {"index": True, "doc_values": "true", "store": False}
    spot = {"type": "date", "format": "strict_date_optional_time||epoch_millis"}
    place = {"type": "binary", "doc_values": False}
    index = opened({"title": {"type": "keyword", **said}, "spot": spot, "place": place}, {})
    index.check()
    index.prepare()


def test_what_elasticsearch_does_not_take_is_told(opened: Opened) -> None:
    with pytest.raises(IndexSetupError, match=r"nonsense.*ENRICH_INDEX_MAPPING"):
        opened({"title": {"type": "nonsense"}}).prepare()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("index_mapping", None, "ENRICH_INDEX_MAPPING: .* cannot be read: No such file"),
        ("index_settings", None, "ENRICH_INDEX_SETTINGS: .* cannot be read: No such file"),
        ("index_mapping", "{", "ENRICH_INDEX_MAPPING: .* is not JSON"),
        ("index_settings", "[]", "ENRICH_INDEX_SETTINGS: .* is not a JSON object"),
        ("index_mapping", {"dynamic": True, "properties": {}}, 'needs "properties", and nothing beside'),
        ("index_mapping", {"properties": {"title": "text"}}, "the mapping of title is an object"),
        ("index_mapping", {"properties": {"has_balcony": {"type": "keyword"}}}, "maps has_balcony, which"),
        ("index_mapping", {"properties": {"enrichment.by": {"type": "keyword"}}}, "maps enrichment.by"),
        ("index_settings", {"index": {"gc_deletes": "1m"}}, "sets index.gc_deletes, which"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_found_by_check_and_settings(
    world: World, tmp_path: Path, name: str, content: Any, words: str
) -> None:
    file = tmp_path / "none.json" if content is None else write(tmp_path, "given.json", content)
    environment = world.environment(**{name: file})
    checked, listed, ran = (enrich_here(environment, command) for command in ("check", "settings", "run"))
    assert (checked.returncode, listed.returncode, ran.returncode) == (2, 2, 2)
    for said in (" ".join(checked.stdout.split()), listed.stderr, ran.stderr):
        assert re.search(words, said), said


def test_in_mode_merge_the_mapping_is_the_portal_s(opened: Opened) -> None:
    with pytest.raises(SettingsError, match="for ENRICH_INDEX_MODE=own"):
        opened(index_mode="merge")


def test_the_embedded_index_says_what_it_cannot(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    index = opened(elasticsearch_url=None)
    assert isinstance(index, EmbeddedIndex)
    assert "compares texts whole and knows no distances" in caplog.text
    index.write([DocumentWrite("a", 5, {"listing_id": "a", "place": SOLNA, "title": "x"})])
    assert index.search(Query(where={"title": "x"})).total == 1
    with pytest.raises(UsageError, match=r"place is a point.*ELASTICSEARCH_URL"):
        index.search(Query(where={"place": "59,18"}))


def test_a_point_of_two_columns_follows_both(world: World, tmp_path: Path) -> None:
    world.portal.execute("ALTER TABLE listings ADD lat numeric, ADD lon float8")
    world.fixed["index_columns"] = ("city", "place=lat+lon")
    world.listing("near", "kitchen", lat=59.36, lon=18.0)
    world.listing("far", "kitchen", lat=55.6, lon=13.0)
    world.listing("nowhere", "kitchen", lat=91, lon=18.0)
    world.listing("half", "kitchen", lat=59.36)
    assert world.run().exit_code == 0
    near = {"geo_distance": {"distance": "20km", "place": {"lat": 59.33, "lon": 18.07}}}
    assert world.matching(near) == {"near"}
    assert [id for id, document in world.documents().items() if "place" not in document] == [
        "half",
        "nowhere",
    ]
    world.photos.forget()
    world.portal.execute("UPDATE listings SET lon = 18.0, lat = 59.3 WHERE id = 'far'")
    report = world.run()
    assert report.discovery is not None
    assert (report.discovery.documents, report.published.written, world.requests()) == (1, 1, 0)
    assert world.matching(near) == {"near", "far"}
