"""Reading the portal's tables, whatever they look like."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from enrich.errors import SourceError
from enrich.records import Photo
from enrich.setting_values import SIGNING_PARAMS
from enrich.settings import load_settings
from enrich.source import statements
from enrich.source.portal import Source, SourceListing
from enrich.source.urls import patterns, strip_sql, strip_url, url_key
from enrich.state.database import Database
from tests.support.postgres import Portal, on_database


@pytest.fixture
def database(portal: Portal) -> Iterator[Database]:
    database = Database(portal.url, patience=5)
    yield database
    database.close()


@pytest.fixture
def source(database: Database) -> Callable[..., Source]:
    def build(*columns: str, reserved: tuple[str, ...] = (), **changes: Any) -> Source:
        return Source(database, load_settings(index_columns=columns, **changes), reserved)

    return build


def seen(source: Source) -> list[SourceListing]:
    """All that discovery sees."""
    return source.by_ids(source.ids(None, 10))


def by_regular_expression(url: str, ignore: Sequence[str]) -> tuple[str, str]:
    """How Postgres stripped URLs at first, for fingerprints that state still holds; and its pattern."""
    names = [re.escape(n[:-1]) + "[^=&]*" if n.endswith("*") else re.escape(n) for n in ignore]
    base = f"split_part({url}, '#', 1)"
    query = f"substr({base}, strpos({base}, '?') + 1)"
    kept = f"substr(regexp_replace('&' || {query}, :pattern, '', 'g'), 2)"
    sql = (
        f"CASE WHEN strpos({url}, '?') = 0 AND strpos({url}, '#') = 0 THEN {url}"
        f" WHEN strpos({base}, '?') = 0 THEN {base}"
        f" ELSE concat_ws('?', split_part({base}, '?', 1), nullif({kept}, '')) END"
    )
    return sql if ignore else base, rf"&(?:{'|'.join(names)})(?:=[^&]*)?(?=&|\Z)"


NASTY = (
    None,
    *(
        "",
        "?",
        "#",
        "&",
        "??",
        "?&",
        "?&&",
        "?#",
        "#?",
        "?=",
        "?=&=",
        "?token",
        "?token&",
        "?&token",
        "?&token&",
    ),
    *(
        "x?token#token=1&v=2",
        "x#y?token=1",
        "x?v#a#b",
        "x?token=1?v=2",
        "x?v?token=1&w",
        "x??token=1",
        "x?v=1??",
    ),
    *(
        "x?token=1&token=2&token",
        "x?v=1&token&v=2&token=",
        "x?token==&v",
        "x?token=&&v",
        "x?v&&&w",
        "x?&&token&&",
    ),
    *(
        "x?TOKEN=1&Token=2&expires=3&x-amz-date=4",
        "x?tok%65n=1",
        "x?v=%26token%3D1",
        "x?%74oken",
        "x?token%3D1",
    ),
    *("x?v=1;token=2", "x?token=1;v=2", "x?v;w", "x?X-Amz-=1", "x?X-Amz-", "x?X-Amz=1", "x?AX-Amz-Date=1"),
    *(
        "x?sig=é&vé=ü",
        "x?é&token=😀",
        "é?töken=1&token=2",
        "x?v=\u2028&se",
        "x?token\n",
        "x?token=1\n&v",
        "x\n?se=1",
    ),
    *("x? token=1", "x?token =1", "x?token=1 ", " ?se", "x?v=\\&sig=\\", "x?'\"&se='\"", "x?{a,b}&se={NULL}"),
    *(
        "x?NULL&se",
        "x?v=NULL&token=NULL",
        "token=1?v",
        "token?v=1",
        "se=1&v",
        "https://x/a;token=1?se=2",
        "x?%&_&se_=1",
    ),
    *("x?" + "&".join(f"{n}=v&token={n}" for n in range(count)) for count in (4, 5, 6, 30)),
    *("x?sig=1" + "&v" * 9, "x?sig=1" + "&v" * 10, "x?v" + "&sig" * 10, "x?v&sig&a?b=1#c", "x&y?token=1&v"),
)
_NAME = st.text(st.sampled_from("aXé.-*+(|\\$%_ "), max_size=4).map(lambda name: name + "z")
_URL = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.lists(
        st.sampled_from(["?", "&", "#", "=", ";", "\n", "a", "token", "X-Amz-Date", "X-Amz-", "se", "sig=1"])
    ).map("".join),
)
_IGNORE = st.one_of(st.just(SIGNING_PARAMS), st.lists(_NAME | _NAME.map(lambda name: name + "*"), max_size=3))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(urls=st.lists(_URL, max_size=20), ignore=_IGNORE)
@example(urls=list(NASTY), ignore=list(SIGNING_PARAMS))
def test_urls_are_stripped_as_ever_in_postgres_and_in_python(
    database: Database, urls: list[str | None], ignore: list[str]
) -> None:
    listed = "unnest(CAST(:urls AS text[])) WITH ORDINALITY t(u, n)"
    before, pattern = by_regular_expression("u", ignore)
    query = text(
        f"SELECT coalesce({before}, '') AS before, coalesce({strip_sql('u', ignore)}, '') AS now"
        f" FROM {listed} ORDER BY n"
    )
    params = {"urls": urls, "ignored": patterns(ignore), "pattern": pattern}
    found = database.run(lambda connection: connection.execute(query, params).all())
    assert [row.now for row in found] == [row.before for row in found]
    assert [row.now for row in found] == [strip_url(url or "", ignore) for url in urls]


def test_photos_come_in_order_with_their_fingerprint(portal: Portal, source: Callable[..., Source]) -> None:
    portal.add("a")
    portal.add_photo("a", 2, "http://x/2.jpg?token=1&w=3", "v")
    portal.add_photo("a", 0, "http://x/0.jpg")
    portal.add("b", ["http://x/b.jpg"])
    (a,) = source().photos(["a", "gone"])
    shown = "http://x/2.jpg?w=3"
    assert a.photos == (
        Photo(0, "http://x/0.jpg", url_key("http://x/0.jpg"), "http://x/0.jpg", None),
        Photo(2, "http://x/2.jpg?token=1&w=3", url_key(shown), shown, "v"),
    )
    listed, _ = seen(source())
    assert (a.photo_fp, a.updated_at) == (listed.photo_fp, listed.updated_at)


def test_inactive_listings_are_not_there(portal: Portal, source: Callable[..., Source]) -> None:
    for id, active in (("a", True), ("b", False), ("c", None)):
        portal.add(id, ["http://x/1.jpg"], active=active)
    assert [listing.id for listing in seen(source())] == ["a", "c"]
    assert [listing.id for listing in source().by_ids(["b", "c"])] == ["c"]
    assert [listing.id for listing in source().photos(["a", "b"])] == ["a"]
    assert set(source("city").documents(["a", "b"])) == {"a"}


def test_pages_follow_byte_order_and_end(portal: Portal, source: Callable[..., Source]) -> None:
    ids = ["-1", "10", "9", "A", "_", "a", "ä", "é", "😀"]
    for id in ids:
        portal.add(id)
    found, after = [], None
    while page := source().ids(after, 2):
        found += page
        after = found[-1]
    assert found == sorted(ids, key=str.encode)


def test_odd_rows_break_nothing(portal: Portal, source: Callable[..., Source]) -> None:
    portal.execute(
        "INSERT INTO listings (id, updated_at) VALUES ('a', 'infinity'), ('b', '0044-01-01 BC'), ('c', NULL)"
    )
    portal.add_photo("a", None, "http://x/none.jpg")
    portal.add_photo("a", 1, None)
    portal.add_photo("a", 1, "http://x/1.jpg")
    portal.add_photo("a", 1, "http://x/1.jpg")
    portal.add_photo("a", -3, "http://x/first.jpg")
    assert [listing.updated_at for listing in seen(source())] == [None, None, None]
    (a,) = source().photos(["a"])
    assert [(photo.position, photo.url) for photo in a.photos] == [
        (-3, "http://x/first.jpg"),
        (1, ""),
        (1, "http://x/1.jpg"),
        (1, "http://x/1.jpg"),
        (4, "http://x/none.jpg"),
    ]


def test_listings_without_a_single_url_are_told_apart(portal: Portal, source: Callable[..., Source]) -> None:
    for id in ("a", "b", "c"):
        portal.add(id)
    for url in (None, "", "#top"):
        portal.add_photo("a", 1, url)
    portal.add_photo("c", 1, None)
    portal.add_photo("c", 2, "http://x/2.jpg")
    assert [listing.pictured for listing in seen(source())] == [False, False, True]


def test_the_blanks_that_fill_up_a_char_are_no_part_of_a_url(
    portal: Portal, source: Callable[..., Source]
) -> None:
    portal.add("a", ["http://x/1.jpg?token=1&w=3"])
    ((plain,), (before,)) = source().photos(["a"])[0].photos, seen(source())
    portal.execute("ALTER TABLE listing_images ALTER url TYPE char(40)")
    ((photo,), (after,)) = source().photos(["a"])[0].photos, seen(source())
    assert photo == plain and after == before


def test_positions_beyond_an_integer_are_places_in_the_order(
    portal: Portal, source: Callable[..., Source]
) -> None:
    portal.execute("ALTER TABLE listing_images ALTER position TYPE bigint")
    portal.add("a")
    for position in (1_764_444_800_000, 2**31, 2**31 - 1, -(2**31) - 1):
        portal.execute(
            "INSERT INTO listing_images VALUES ('a', :position, 'http://x/1.jpg')", position=position
        )
    (a,) = source().photos(["a"])
    assert [photo.position for photo in a.photos] == [0, 2**31 - 1, 2, 3]


def test_a_fingerprint_does_not_depend_on_how_rows_lie(portal: Portal, source: Callable[..., Source]) -> None:
    portal.add("a")
    photos = [
        (1, "http://x/1.jpg?token=1"),
        (1, "http://x/0.jpg?token=2"),
        (None, "http://x/n.jpg"),
        (0, None),
    ]
    for photo in photos:
        portal.add_photo("a", *photo)
    (before,) = seen(source())
    portal.execute("DELETE FROM listing_images")
    for position, url in reversed(photos):
        portal.add_photo(
            "a", position, url and url.replace("token=1", "token=7").replace("token=2", "token=6")
        )
    (after,) = seen(source())
    assert after == before


@pytest.mark.parametrize(
    ("id_type", "listing_id_type", "ids"),
    [
        ("bigint", "integer", ["-5", "10", "9"]),
        ("bigint", "bigint", ["-9223372036854775808", "1234567890123456789", "9223372036854775807"]),
        ("integer", "text", ["10", "9"]),
        ("smallint", "bigint", ["1", "2"]),
        ("uuid", "uuid", ["00000000-0000-0000-0000-0000000000aa", "10000000-0000-0000-0000-000000000000"]),
        ("uuid", "varchar(40)", ["00000000-0000-0000-0000-0000000000aa"]),
        ("varchar(9)", "text", ["a", "b"]),
        ("char(4)", "char(4)", ["a", "bb"]),
        ('text COLLATE "C"', "text", ["a", "b"]),
        ("text", 'text COLLATE "C"', ["a", "b"]),
        ('text COLLATE "POSIX"', 'text COLLATE "C"', ["a", "b"]),
        ("text", "integer", ["10", "9"]),
        ("uuid", "char(36)", ["00000000-0000-0000-0000-0000000000aa"]),
    ],
)
def test_ids_of_any_type(
    portal: Portal, source: Callable[..., Source], id_type: str, listing_id_type: str, ids: list[str]
) -> None:
    portal.execute(f"CREATE TABLE homes (id {id_type}, updated_at timestamp)")
    portal.execute(
        f"CREATE TABLE pictures (listing_id {listing_id_type}, position smallint, url varchar(99))"
    )
    for id in ids:
        portal.execute(f"INSERT INTO homes VALUES ('{id}', '2025-01-01')")
        portal.execute(f"INSERT INTO pictures VALUES ('{id}', 0, 'http://x/{id}.jpg')")
    here = source(source_listings="homes", source_images="public.pictures")
    assert here.check()
    page = seen(here)
    assert [listing.id for listing in page] == ids
    assert page[0].updated_at == datetime(2025, 1, 1, tzinfo=UTC)
    odd = ["nonsense", "007", "", "a\0", ids[0].upper() + "x", "9" * 30, "{1}"]
    assert here.by_ids([*ids, *odd]) == page
    assert {one.id: one.photos[0].url for one in here.photos([*odd, *ids])} == {
        id: f"http://x/{id}.jpg" for id in ids
    }
    assert here.photos(odd) == []


@pytest.mark.parametrize(
    ("id_type", "listing_id_type", "id"),
    [
        ("text", "integer", "n::text"),
        ("bigint", "text", "n::text"),
        ("uuid", "varchar(40)", "md5(n::text)::uuid"),
        ("char(4)", "char(4)", "n::text"),
    ],
)
def test_ids_that_are_compared_as_text_need_the_index_that_check_tells(
    portal: Portal, source: Callable[..., Source], id_type: str, listing_id_type: str, id: str
) -> None:
    portal.execute(f"CREATE TABLE homes (id {id_type}, updated_at timestamp)")
    portal.execute(f"CREATE TABLE pictures (listing_id {listing_id_type}, position integer, url text)")
    numbers = "generate_series(1, 9999) AS n"
    portal.execute(f"INSERT INTO homes SELECT ({id})::{id_type}, '2025-01-01' FROM {numbers}")
    portal.execute(
        f"INSERT INTO pictures SELECT ({id})::{listing_id_type}, 0, 'http://x/a.jpg' FROM {numbers}"
    )
    portal.execute("CREATE INDEX ON pictures (listing_id)")
    here = source(source_listings="homes", source_images="pictures")
    (told,) = [line for line in here.check() if "compared as text" in line]
    _, _, index = told.partition("index on ")

    def looked_up() -> bool:
        portal.execute("ANALYZE homes, pictures")
        plan = here._read_named("EXPLAIN " + statements.FINGERPRINTS, here.ids(None, 1))
        return any("Index Cond" in line and "listing_id" in line for (line,) in plan)

    assert not looked_up()
    portal.execute(f"CREATE INDEX ON {index}")
    assert looked_up(), told


CITEXT = (  # as the extension of this name makes it, which this server has not
    "CREATE TYPE citext",
    "CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, INTERNALLENGTH = VARIABLE, COLLATABLE = true)",
    "CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT",
)
UUID = "00000000-0000-0000-0000-0000000000aa"


@pytest.mark.parametrize(
    ("id_type", "listing_id_type", "id", "listing_id"),
    [("uuid", "text", UUID, UUID.upper()), ("citext", "citext", "AÄ-1", "aä-1")],
)
def test_ids_that_are_equal_in_any_letters_find_their_photos(
    portal: Portal,
    source: Callable[..., Source],
    id_type: str,
    listing_id_type: str,
    id: str,
    listing_id: str,
) -> None:
    if id_type == "citext":
        for statement in CITEXT:
            portal.execute(statement)
    portal.execute(f"CREATE TABLE homes (id {id_type}, updated_at timestamp)")
    portal.execute(f"CREATE TABLE pictures (listing_id {listing_id_type}, position integer, url text)")
    portal.execute(f"INSERT INTO homes VALUES ('{id}', '2025-01-01')")
    portal.execute(f"INSERT INTO pictures VALUES ('{listing_id}', 0, 'http://x/a.jpg')")
    here = source(source_listings="homes", source_images="pictures")
    assert here.check()
    ((photo,),) = [listing.photos for listing in here.photos([id])]
    assert photo.url == "http://x/a.jpg" and seen(here)[0].photo_fp == here.photos([id])[0].photo_fp


def test_tables_may_be_called_in_any_language(portal: Portal, source: Callable[..., Source]) -> None:
    portal.add("a", ["http://x/a.jpg"])
    portal.execute("ALTER TABLE listings RENAME TO bostäder; ALTER TABLE listing_images RENAME TO zdjęcia")
    for listings in ("bostäder", "public.Bostäder"):  # the latter as SQL folds it
        here = source(source_listings=listings, source_images="public.zdjęcia")
        assert here.check()[0] == 'public."bostäder": with column active'
        assert [photo.url for photo in here.photos(["a"])[0].photos] == ["http://x/a.jpg"]


@pytest.mark.parametrize("rows", ["SELECT * FROM homes", "SELECT DISTINCT * FROM homes"])
def test_a_value_that_a_view_cannot_cast_is_told_of_whichever_row_has_it(
    portal: Portal, source: Callable[..., Source], rows: str
) -> None:
    portal.execute("CREATE TABLE homes (id int, updated_at timestamptz, lat text NOT NULL, active boolean)")
    portal.execute("INSERT INTO homes SELECT n, now(), '59.3', true FROM generate_series(1, 50) AS n")
    portal.execute(
        f"CREATE VIEW feed AS SELECT id, updated_at, lat::float8 AS lat, active FROM ({rows}) AS rows"
    )
    assert source("lat", source_listings="feed").check()
    portal.execute("UPDATE homes SET lat = 'n/a', active = false WHERE id = 40")
    assert source("lat", source_listings="feed").check(), "no run reads it"
    portal.execute("UPDATE homes SET active = true WHERE id = 40")
    assert source(source_listings="feed").check(), "nor where it is not copied"
    with pytest.raises(SourceError, match=r'double precision: "n/a": mend the value, or .* NULL'):
        source("lat", source_listings="feed").check()


def test_views_over_other_tables(portal: Portal, source: Callable[..., Source]) -> None:
    portal.execute("CREATE SCHEMA \"feed\"; CREATE TYPE kind AS ENUM ('flat', 'house')")
    portal.execute("CREATE TABLE objekt (nr int PRIMARY KEY, slag kind, andrad timestamptz, pris numeric)")
    portal.execute("CREATE TABLE bild (objekt int, ordning int, fil text, hash bytea)")
    portal.execute("INSERT INTO objekt VALUES (7, 'flat', now(), 12.50)")
    portal.execute("INSERT INTO bild VALUES (7, 1, '7/a.jpg', '\\x00ff')")
    portal.execute(
        'CREATE VIEW feed."Homes" AS'
        " SELECT nr AS id, andrad AS updated_at, slag AS kind, pris AS price FROM objekt"
    )
    portal.execute(
        "CREATE VIEW feed.pictures AS SELECT objekt AS listing_id, ordning AS position,"
        " 'https://img.example/' || fil AS url, hash AS version FROM bild"
    )
    here = source("kind", "price", source_listings="feed.Homes", source_images="feed.pictures")
    assert here.check()[:2] == ['feed."Homes": without column active', "feed.pictures: with column version"]
    (listing,) = seen(here)
    assert listing.versioned
    (photos,) = here.photos(["7"])
    assert (photos.photos[0].url, photos.photos[0].version) == ("https://img.example/7/a.jpg", "\\x00ff")
    assert here.documents(["7"]) == {"7": (listing.doc_fp, {"kind": "flat", "price": 12.5})}


class TestCopiedColumns:
    def test_types_come_from_the_catalogue(self, portal: Portal, source: Callable[..., Source]) -> None:
        types = {
            "a": ("smallint", "long"),
            "b": ("bigint[]", "long"),
            "c": ("numeric(9,2)", "double"),
            "d": ("real", "double"),
            "e": ("boolean", "boolean"),
            "f": ("varchar(3)[]", "keyword"),
            "g": ("char(3)", "keyword"),
            "h": ("uuid", "keyword"),
            "i": ("mood", "keyword"),
            "j": ("date[]", "date"),
            "k": ("timestamp", "date"),
            "l": ("timestamptz", "date"),
            "m": ("postcode", "keyword"),
            "n": ("areas", "double"),
        }
        portal.execute(
            "CREATE TYPE mood AS ENUM ('new'); CREATE DOMAIN base AS text; CREATE DOMAIN postcode AS base"
        )
        portal.execute("CREATE DOMAIN areas AS float8[]")
        for name, (kind, _) in types.items():
            portal.execute(f"ALTER TABLE listings ADD COLUMN {name} {kind}")
        assert source(*types).copied_columns() == {name: expected for name, (_, expected) in types.items()}

    def test_values_are_ready_for_json(self, portal: Portal, source: Callable[..., Source]) -> None:
        portal.execute("ALTER TABLE listings ADD seen timestamptz, ADD area float8, ADD local timestamp")
        portal.execute('ALTER TABLE listings ADD "odd \\:name 100% {x}" text')
        portal.add(
            "a",
            city='å"\\\n',
            price=-5,
            rooms="3.50",
            listed_on="2025-02-03",
            tags=["x", None],
            seen="2025-07-01T12:00:00+02:00",
            local="2025-07-01T12:00:00",
            area=1e-7,
        )
        portal.execute("UPDATE listings SET \"odd \\:name 100% {x}\" = 'x'")
        here = source(
            "city", "price", "rooms", "listed_on", "tags", "seen", "area", "local", "id", "odd :name 100% {x}"
        )
        _, columns = here.documents(["a"])["a"]
        assert columns == {
            "city": 'å"\\\n',
            "price": -5,
            "rooms": 3.5,
            "listed_on": "2025-02-03",
            "tags": ["x", None],
            "seen": "2025-07-01T10:00:00+00:00",
            "local": "2025-07-01T12:00:00",
            "area": 1e-7,
            "id": "a",
            "odd :name 100% {x}": "x",
        }

    def test_a_column_may_have_any_name(self, portal: Portal, source: Callable[..., Source]) -> None:
        portal.add("a")
        for name in ("c", "p", "l", "page", "c0", "document"):
            portal.execute(f"ALTER TABLE listings ADD {name} text DEFAULT '{name}!'")
            assert source(name).documents(["a"])["a"][1] == {name: f"{name}!"}

    def test_the_blanks_that_fill_up_a_char_are_no_part_of_it(
        self, portal: Portal, source: Callable[..., Source]
    ) -> None:
        portal.execute("CREATE DOMAIN county AS char(20)")
        portal.execute("ALTER TABLE listings ADD town char(20), ADD county county, ADD near char(20)[]")
        portal.add("a", town="Solna", county="Stockholm", near=["Täby", None])
        portal.add("b", city=" Solna ")
        found = source("town", "county", "near", "city").documents(["a", "b"])
        assert [columns for _, columns in found.values()] == [
            {"town": "Solna", "county": "Stockholm", "near": ["Täby", None], "city": None},
            {"town": None, "county": None, "near": None, "city": " Solna "},
        ]

    def test_what_the_index_cannot_take_is_null(self, portal: Portal, source: Callable[..., Source]) -> None:
        portal.execute("ALTER TABLE listings ADD area float8[], ADD big numeric")
        portal.add("a", rooms="NaN", listed_on="infinity", area=[1.5, float("inf")], big="1" + "0" * 5000)
        portal.add("b", rooms="Infinity", listed_on="0044-03-15 BC", big="12345678901234567890")
        portal.add("c", listed_on="12025-01-01")
        found = source("rooms", "listed_on", "area", "big").documents(["a", "b", "c"])
        assert [columns for _, columns in found.values()] == [
            {"rooms": None, "listed_on": None, "area": [1.5, None], "big": None},
            {"rooms": None, "listed_on": None, "area": None, "big": 12345678901234567890.0},
            {"rooms": None, "listed_on": None, "area": None, "big": None},
        ]

    def test_the_fingerprint_knows_names_and_time_zones(
        self, portal: Portal, source: Callable[..., Source]
    ) -> None:
        portal.add("a", updated_at="2025-07-01T12:00:00+02:00")
        one, other = seen(source("city")), seen(source("price"))
        assert one[0].doc_fp != other[0].doc_fp, "both are null, but another column is copied"
        before = seen(source("updated_at"))
        name = portal.engine.url.database
        portal.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
        portal.execute(f"ALTER DATABASE {name} SET datestyle = 'German'")
        fresh = Database(portal.url)
        assert seen(Source(fresh, load_settings(index_columns=("updated_at",)))) == before
        fresh.close()

    def test_nothing_is_copied_in_merge_mode(self, source: Callable[..., Source]) -> None:
        here = source("city", index_mode="merge", elasticsearch_url="http://127.0.0.1:1")
        assert here.copied_columns() == {}


class TestRefusals:
    """Each mistake is one line that names the table or column and the setting."""

    @pytest.mark.parametrize(
        ("break_it", "message"),
        [
            ("DROP TABLE listing_images", "ENRICH_SOURCE_IMAGES: there is no table or view listing_images"),
            ("ALTER TABLE listings DROP updated_at", r"no column updated_at .*ENRICH_SOURCE_LISTINGS"),
            ("ALTER TABLE listing_images DROP url", "no column url .it has: listing_id, position, version"),
            (
                "ALTER TABLE listings ALTER updated_at TYPE text",
                "updated_at .* is of type text, a timestamp is",
            ),
            ("ALTER TABLE listings ALTER active TYPE text", "active .* is of type text, a boolean is"),
            ("ALTER TABLE listing_images ALTER position TYPE numeric", "position .* numeric, an integer is"),
            ("ALTER TABLE listing_images ALTER url TYPE text[] USING '{}'", r"url .* text\[\], text is"),
        ],
    )
    def test_tables(self, portal: Portal, source: Callable[..., Source], break_it: str, message: str) -> None:
        portal.execute(break_it)
        with pytest.raises(SourceError, match=message) as raised:
            source().check()
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("kind", "name", "message"),
        [
            ("jsonb", "extra", "ENRICH_INDEX_COLUMNS: column extra .* jsonb, which cannot be copied"),
            ("point", "extra", "column extra .* point, which"),
            ("interval[]", "extra", r"column extra .* interval\[\], which"),
            ("text", "has_balcony", "column has_balcony .* cannot be a field"),
            ("text", "_id", "column _id .* cannot be a field"),
            ("text", "a.b", "column a.b .* cannot be a field"),
        ],
    )
    def test_copied_columns(
        self, portal: Portal, source: Callable[..., Source], kind: str, name: str, message: str
    ) -> None:
        portal.execute(f'ALTER TABLE listings ADD "{name}" {kind}')
        with pytest.raises(SourceError, match=message):
            source(name, reserved=("has_balcony",)).check()

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ("place=price", "place=price cannot be read: write a point as place=lat"),
            ("place=price+rooms+price", "write a point as place=lat"),
            ("place=price+long", "no column long "),
            ("place=price+city", "column city .* is of type text, a number is needed"),
            ("has_balcony=price+rooms", "column has_balcony .* cannot be a field"),
            ("city,city=price+rooms", r"city and city=price\+rooms are both of the name city"),
            ("spot=price+rooms,spot = rooms+price", r"spot=price\+rooms and spot = rooms\+price are both"),
        ],
    )
    def test_points(self, source: Callable[..., Source], asked: str, message: str) -> None:
        with pytest.raises(SourceError, match=message):
            source(*asked.split(","), reserved=("has_balcony",)).check()

    def test_a_copied_column_that_is_not_there(self, source: Callable[..., Source]) -> None:
        with pytest.raises(SourceError, match="no column colour"):
            source("colour").copied_columns()

    def test_photos_that_are_all_of_no_listing(self, portal: Portal, source: Callable[..., Source]) -> None:
        portal.add("a", ["http://x/a.jpg"])
        portal.execute("UPDATE listing_images SET listing_id = '00' || listing_id")
        with pytest.raises(SourceError, match=r"listing_id of none .* such as a: .*ENRICH_SOURCE_IMAGES"):
            source().check()
        portal.execute("DELETE FROM listing_images")
        assert source().check()

    def test_ids_that_are_missing_or_double(self, portal: Portal, source: Callable[..., Source]) -> None:
        portal.execute("ALTER TABLE listings DROP CONSTRAINT listings_pkey, ALTER id DROP NOT NULL")
        portal.execute("INSERT INTO listings (id) VALUES ('a'), ('b'), ('a')")
        with pytest.raises(SourceError, match="2 rows with the id a"):
            source().check()
        for missing in ("NULL", "''"):
            portal.execute(f"UPDATE listings SET id = {missing} WHERE id IS DISTINCT FROM 'b'")
            with pytest.raises(SourceError, match="a row without an id"):
                source().check()
            assert source().check(every_row=False), "a run could start"
        assert [listing.id for listing in seen(source())] == ["b"], "a page does without them"

    def test_of_several_rows_with_one_id_the_latest_counts(
        self, portal: Portal, source: Callable[..., Source], caplog: pytest.LogCaptureFixture
    ) -> None:
        """As where a view joins a listing with each of its cities; photos would come once per row."""
        portal.add("a", ["https://x.example/1.jpg", "https://x.example/2.jpg"])
        portal.add("b")
        before = {listing.id: listing.photo_fp for listing in seen(source())}
        portal.execute("ALTER TABLE listings DROP CONSTRAINT listings_pkey CASCADE")
        portal.execute(
            "INSERT INTO listings (id, updated_at, city) VALUES ('a', now() + interval '1 day', 'new')"
        )
        here = source("city")
        assert {listing.id: listing.photo_fp for listing in seen(here)} == before
        assert here.ids(None, 10) == ["a", "b"] and here.documents(["a"])["a"][1] == {"city": "new"}
        assert [len(listing.photos) for listing in here.photos(["a"])] == [2]
        assert "several rows for 1 ids, such as a: of each the row that changed last counts" in caplog.text

    def test_privileges(self, portal: Portal) -> None:
        role = f"reader_{portal.engine.url.database}"
        portal.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE SCHEMA hidden; CREATE TABLE hidden.t (id int)"
        )
        url = on_database(portal.url, str(portal.engine.url.database))
        database = Database(Portal(url).engine.url.set(username=role, password="x").render_as_string(False))

        def check(**changes: Any) -> Any:
            return Source(database, load_settings(**changes)).check()

        with pytest.raises(
            SourceError, match=f"user {role} may not read id of public.listings: GRANT SELECT ON"
        ):
            check()
        portal.execute(f"GRANT SELECT ON listings TO {role}")
        with pytest.raises(SourceError, match=r"may not read listing_id of public\.listing_images"):
            check()
        portal.execute(f"GRANT SELECT (listing_id, position, url, version) ON listing_images TO {role}")
        assert check()
        with pytest.raises(SourceError, match=r"hidden.t.*GRANT USAGE"):
            check(source_listings="hidden.t")
        database.close()
        portal.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    def test_a_table_that_goes_away_during_the_run(
        self, portal: Portal, source: Callable[..., Source]
    ) -> None:
        portal.add("a")
        here = source()
        seen(here)
        portal.execute("DROP TABLE listing_images")
        with pytest.raises(
            SourceError, match=r"reading public\.listings and public\.listing_images failed: .*exist"
        ):
            seen(here)

    def test_a_view_that_fails_on_its_data(self, portal: Portal, source: Callable[..., Source]) -> None:
        portal.add("a", price=0)
        portal.execute("CREATE VIEW homes AS SELECT id, updated_at, 1 / price AS per FROM listings")
        with pytest.raises(SourceError, match="division by zero"):
            source("per", source_listings="homes").check()


def test_the_portals_tables_cannot_be_written(portal: Portal, source: Callable[..., Source]) -> None:
    """Even a view with a function that writes is stopped."""
    portal.add("a")
    portal.execute(
        "CREATE FUNCTION meddle() RETURNS text LANGUAGE sql AS"
        " $$ UPDATE listings SET city = 'x' RETURNING city $$;"
        "CREATE VIEW homes AS SELECT id, updated_at, meddle() AS city FROM listings"
    )
    with pytest.raises(SourceError, match="read-only transaction"):
        source("city", source_listings="homes").documents(["a"])


def test_without_version_and_without_ignored_parameters(
    portal: Portal, source: Callable[..., Source]
) -> None:
    portal.execute("ALTER TABLE listing_images DROP version")
    portal.add("b")
    portal.add("a")
    portal.execute("INSERT INTO listing_images VALUES ('a', 0, 'http://x/a.jpg?token=1')")
    here = source(url_ignore_params=())
    a, b = seen(here)
    assert (a.versioned, b.versioned) == (False, True), "without photos there is nothing to revalidate"
    assert here.photos(["a"])[0].photos[0].shown_url == "http://x/a.jpg?token=1"


def test_check_says_what_is_there(portal: Portal, source: Callable[..., Source]) -> None:
    assert source().check()[-1] == "no active listings"
    portal.add("a", ["http://x/1.jpg", "http://x/2.jpg"])
    portal.execute("DROP INDEX listing_images_listing")
    assert source("city", "price").check() == [
        "public.listings: with column active",
        "public.listing_images: with column version",
        "copied: city (keyword), price (long)",
        "public.listing_images has no index on listing_id: discovery will be slow",
        "first listing a: 2 photos",
    ]


def test_check_lets_pass_a_portal_where_only_inactive_listings_have_photos(
    portal: Portal, source: Callable[..., Source]
) -> None:
    portal.add("sold", ["http://x/1.jpg"], active=False)
    portal.add("new")
    assert source().check()[-1] == "first listing new: 0 photos"
