"""`enrich report --html` and `enrich show --html`: one file with its pictures, that loads nothing."""

import base64
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from enrich.pipeline.figures import Figures
from jobs.paper import gather, thumbnails
from jobs.run.ahead import ScoredAhead
from tests.support.bundles import draw_bytes
from tests.support.command import enrich_here
from tests.support.harness import World, seed_of
from tests.support.photo_server import status

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`</style>{{ 7 * 7 }}"
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """What a browser makes of a page: its tags, attributes, and texts by the tag around them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.inside: list[str] = []
        self.feed(text)
        self.close()
        assert self.inside == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def pictures(self) -> set[bytes]:
        found = [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]
        return {base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"), validate=True) for uri in found}

    @property
    def words(self) -> str:
        return " ".join(self.texts)


Writer = Callable[..., Page]


@pytest.fixture
def written(world: World, tmp_path: Path) -> Writer:
    def write(*arguments: str) -> Page:
        file = tmp_path / "page.html"
        done = world.enrich_here(*arguments, "--html", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(file) in done.stdout
        return Page(file.read_text())

    return write


def test_a_run_is_told_with_its_homes_photos_and_failures(world: World, written: Writer) -> None:
    world.listing("terrace", "kitchen", "balcony", city="Solna", price=1_200_000)
    world.listing("cabin", "fireplace", city="Lund")
    world.listing("broken", "kitchen")
    world.photos.behave("/broken/0.jpg", status(404))
    world.run()
    page = written("report")
    assert "Run 1: run" in page.words and "Solna · price 1,200,000" in page.words
    assert "terrace" in page.texts and "cabin" in page.texts
    assert any(text.startswith("balcony ") for text in page.texts)
    assert "not found" in page.texts and "broken: 127.0.0.1: HTTP 404" in page.words
    assert len(page.pictures) == 2
    for picture in page.pictures:
        assert picture.startswith(b"\xff\xd8")
        assert picture not in (draw_bytes("balcony", seed_of("terrace", 1)),), "drawn anew, not passed on"
    assert written("report", "--run", "1").words.partition("Written")[0] == page.words.partition("Written")[0]


def test_the_last_night_is_told_however_often_was_published_since(world: World, written: Writer) -> None:
    world.listing("terrace", "balcony")
    world.run()
    world.portal.execute(
        "INSERT INTO enrichment.run (kind, finished_at, exit_code) "
        "SELECT 'publish', now(), 0 FROM generate_series(1, 300)"
    )
    page = written("report")
    assert "Run 1: run" in page.words and "terrace" in page.texts


def test_the_work_is_told_in_the_order_of_the_stages(world: World, written: Writer) -> None:
    world.listing("terrace", "balcony")
    world.run()
    stages = ["read", "fetch", "decode", "rescore", "score", "aggregate", "save"]
    spent = json.dumps({"stage_seconds": dict.fromkeys(reversed(stages), 1.5)})
    world.portal.execute(f"UPDATE enrichment.run SET figures = figures || '{spent}'")
    assert [text for text in written("report").texts if text in stages] == stages


def test_what_later_nights_found_is_not_told_of_one_that_was_killed(world: World, written: Writer) -> None:
    world.listing("old", "balcony")
    world.run()
    world.portal.execute("UPDATE enrichment.run SET finished_at = NULL, exit_code = NULL, figures = '{}'")
    assert "old" in written("report").texts, "as while it is under way"
    world.listing("new", "fireplace")
    world.run()
    page = written("report", "--run", "1")
    assert "old" in page.texts and "new" not in page.texts and "did not end" in page.words


def test_what_a_cluster_fetched_and_scored_is_told_as_such(world: World, written: Writer) -> None:
    world.listing("terrace", "balcony", "kitchen", "bedroom")
    world.run()
    world.backfill()  # all known, as after a cluster
    ahead = ScoredAhead(Figures(photos=2, fetched=2, scored=2, bytes=1_500_000))
    ahead.figures.seconds["score"] = 12.5
    world.portal.execute(
        "UPDATE enrichment.run SET figures = figures || CAST(:ray AS jsonb) WHERE kind = 'backfill'",
        ray=json.dumps({"ray": ahead.as_json()}),
    )
    words = written("report").words
    assert "photos 3 2 fetched, 1.5 MB scored 2 1 known before" in words
    assert "12.5 s" in words


def test_only_what_came_in_the_time_is_new(world: World, written: Writer) -> None:
    world.listing("old", "balcony")
    world.run()
    world.listing("new", "fireplace")
    world.run()
    page = written("report")
    assert "new" in page.texts and "old" not in page.texts
    both = written("report", "--days", "1")
    assert {"new", "old"} <= set(both.texts) and "2 runs" in both.words
    world.portal.execute("UPDATE enrichment.run SET started_at = now() - interval '25 hours'")
    assert "2 runs" in written("report", "--days", "1").words, "they ended in this time"
    world.run()
    assert "No filter finds a home now that it did not find before." in written("report").words


def test_of_photos_at_one_position_the_one_that_decided_is_shown(world: World, written: Writer) -> None:
    """A portal may give all photos of a listing the same position."""
    world.portal.add("terrace")
    for number, shows in enumerate(("kitchen", "balcony", "bedroom")):
        world.portal.add_photo("terrace", 0, world.photo(shows, 70 + number, f"/same/{number}.jpg"))
    world.run()
    world.photos.forget()
    assert len(written("report", "--photos", "1").pictures) == 1
    assert [world.requests(f"/same/{number}.jpg") for number in range(3)] == [0, 1, 0]


def test_hostile_words_are_words(world: World, written: Writer) -> None:
    id = HOSTILE.replace("/", "|")
    world.portal.add(id, [world.photo("balcony", 1), world.photo("kitchen", 2, "/gone.jpg")], city=HOSTILE)
    world.photos.behave("/gone.jpg", status(404))
    world.portal.add("other", ["javascript:alert(1)//<b>"], city=HOSTILE)
    world.run()
    pages = [
        written("report"),
        written("show", id),
        written("show", "other"),
    ]
    for page in pages:
        assert "script" not in page.tags and "b" not in page.tags
        assert {(tag, name) for tag, name, _ in page.attributes if name.startswith("on")} == set()
        assert all(
            value.startswith("data:image/jpeg;base64,") for _, n, value in page.attributes if n == "src"
        )
        assert not any(name == "href" for _, name, _ in page.attributes)
        assert HOSTILE in page.words


def test_a_photo_host_that_is_away_costs_the_pictures_only(world: World, written: Writer) -> None:
    world.listing("terrace", "balcony")
    world.run()
    world.photos.behave("/terrace/0.jpg", status(404), status(404), status(404))
    page = written("report")
    assert page.pictures == set() and "This photo could not be had" in page.words and "terrace" in page.texts


def test_what_shows_other_bytes_by_now_is_no_evidence(world: World, written: Writer) -> None:
    world.listing("terrace", "balcony")
    world.run()
    world.photo("kitchen", 7, "/terrace/0.jpg")
    assert written("report").pictures == set()


def test_pictures_are_bounded_in_number_and_bytes(
    world: World,
    written: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(6):
        world.listing(f"home-{number}", "balcony")
    world.run()
    assert len(written("report").pictures) == 6
    before = world.requests()
    assert len(written("report", "--photos", "2").pictures) == 2
    assert world.requests() == before + 2
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 8_000)
    some = written("report").pictures
    assert 0 < len(some) < 6 and sum(map(len, some)) <= 8_000
    monkeypatch.setattr(gather, "HOMES", 3)
    assert "3 of 6, the surest first." in written("report").words


def test_a_listing_is_told_with_its_photos_and_what_people_said(world: World, written: Writer) -> None:
    world.listing("terrace", "balcony", "kitchen", city="Solna")
    world.run()
    enrich_here(
        world.environment(), "override", "terrace", "has_balcony=false", "--note", "a painting", "--by", "ann"
    )
    page = written("show", "terrace")
    assert len(page.pictures) == 2
    assert "a painting" in page.texts and "no" in page.texts
    assert any(text.startswith("ann, ") for text in page.texts)
    assert "a person said so; the model:" in page.words


def test_the_portal_s_values_stay_as_they_are_and_who_took_a_word_back_is_named(
    world: World, written: Writer
) -> None:
    world.fixed["index_columns"] = ("ref", "built", "price", "lift")
    world.portal.execute("ALTER TABLE listings ADD ref text, ADD built integer, ADD lift boolean")
    world.listing("terrace", "balcony", ref="REF_1987_A", built=1987, price=1_200_000)
    world.run()
    for word in (("has_balcony=false",), ("--clear", "has_balcony")):
        done = world.enrich_here("override", "terrace", *word, "--by", "ann")
        assert done.returncode == 0, done.stderr
    page = written("show", "terrace")
    assert "ref REF_1987_A · built 1987 · price 1,200,000" in page.texts
    assert any(text.endswith(", as ann took theirs back") for text in page.texts)
    assert "REF_1987_A · built 1987 · price 1,200,000" in written("report").texts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report"], "there is no run yet"),
        (["report", "--run", "9"], "there is no run 9"),
        (["report", "--run", "9", "--days", "2"], "either --run N or --days N"),
        (["show", "nobody"], "no listing 'nobody'"),
        (["show", "nobody", "--json"], "either --json or --html"),
    ],
)
def test_mistakes_are_one_line(world: World, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = world.enrich_here(*arguments, "--html", str(tmp_path / "x.html"))
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "x.html").exists()


def test_a_file_that_cannot_be_written_is_named(world: World, tmp_path: Path) -> None:
    world.run()
    for file in (tmp_path, tmp_path / "none" / "x.html"):
        done = world.enrich_here("report", "--html", str(file))
        assert done.returncode == 2 and str(file) in done.stderr


def test_a_disk_that_is_full_is_no_wrong_usage(world: World, tmp_path: Path) -> None:
    world.run()
    (tmp_path / ".x.html.part").symlink_to("/dev/full")
    done = world.enrich_here("report", "--html", str(tmp_path / "x.html"))
    assert done.returncode == 3 and "No space left on device" in done.stderr
