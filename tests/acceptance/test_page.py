"""The page on a real portal and index: what it shows, what it changes, and what it lets nobody do."""

import io
import re
import signal
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from threading import Timer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from PIL import Image

from enrich.source.urls import url_key
from enrich.state.database import parse_url
from jobs.migrate import migrate
from jobs.run.reindex import reindex
from jobs.run.services import open_services
from jobs.run.stop import Stop
from jobs.web.photos import AT_ONCE, HOLDERS
from jobs.web.rendering import listing_link
from tests.support.bundles import binary_head, bundle_with, make_bundle, room_head
from tests.support.harness import World
from tests.support.page import SAME_SITE, OpenClient, Serve
from tests.support.photo_server import FINE, status
from tests.support.wire import Wire

VIEW, EDIT = "view-token-0123456789", "edit-token-0123456789"
HOSTILE = "<script>alert('1')</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
EVERY_ANSWER = (
    ("content-security-policy", "default-src 'none'; script-src 'self'"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


@pytest.fixture
def homes(world: World) -> World:
    """Three homes, enriched and in the embedded index."""
    world.fixed["elasticsearch_url"] = None
    world.listing("7", "kitchen", "balcony", city="Solna", price=100)
    world.listing("8", "kitchen", "bedroom", city="Solna", price=200)
    world.listing("9", "bathroom", city="Lund", price=300)
    migrate(world.settings())
    assert world.run().exit_code == 0
    return world


def settings(world: World, tmp_path: Any, **changes: Any) -> Any:
    return world.settings(photo_cache=tmp_path / "photos", **changes)


def test_a_search_shows_what_matches_with_counts_and_its_body(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    answer = page.get("/?has.balcony=yes&where.city=Solna")
    assert answer.status_code == 200
    assert "1 listing<" in " ".join(answer.text.split()) and 'href="/listing/7"' in answer.text
    assert "1 more matches, but the photos say neither yes nor no about <b>balcony</b>" in answer.text
    assert answer.headers["hx-push-url"] == "/?has.balcony=yes&where.city=Solna"
    assert "&#34;has_balcony&#34;: true" in answer.text and "GET listings-enriched" not in answer.text
    found = page.get("/search.json?has.balcony=unknown&to.price=250").json()
    assert found["total"] == 1 and found["hits"][0]["listing_id"] == "8"
    assert "No listing matches all of this" in page.get("/?where.city=Nowhere").text


def test_blank_values_of_a_column_are_no_choice_and_all_others_are(
    world: World, open_client: OpenClient, tmp_path: Any
) -> None:
    world.fixed |= {"elasticsearch_url": None, "index_columns": ("city", "area")}
    world.portal.execute("ALTER TABLE listings ADD area text")
    for id, city in enumerate(("", "", " ", "any", "any", " Lund ", "Lund")):
        world.portal.add(str(id), city=city, area="")
    migrate(world.settings())
    assert world.run().exit_code == 0
    page = open_client(settings(world, tmp_path))
    html = page.get("/").text
    choices = html.partition('name="where.city"')[2].partition("</select>")[0]
    offered = re.findall(r'<option value="([^"]*)"( selected)?>', choices)
    assert offered == [("", ""), ("any", ""), (" Lund ", ""), ("Lund", "")]
    assert "where.area" not in html, "a column of blanks"
    for value, found in (("any", ["3", "4"]), (" Lund ", ["5"]), ("Lund", ["6"])):
        hits = page.get("/search.json", params={"where.city": value}).json()["hits"]
        assert [hit["listing_id"] for hit in hits] == found
        asked = page.get("/", params={"where.city": value}).text
        assert f'<option value="{value}" selected>' in asked


def test_a_page_behind_the_last_one_says_so_and_leads_to_the_first_with_its_filters(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    text = " ".join(page.get("/?where.city=Solna&page=3").text.split())
    assert "2 listings<" in text and "No listing matches" not in text and "Page 3 of" not in text
    assert 'There are no more. <a href="/?where.city=Solna">To the first page</a>' in text


def test_a_class_that_is_published_no_more_is_no_choice(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    """Documents of the bundle before still name it."""
    room = room_head()
    room["classes"] = [{**one, "publish": one["name"] == "bedroom"} for one in room["classes"]]
    heads = [binary_head("balcony"), binary_head("fireplace"), room]
    bundle = make_bundle(tmp_path / "bundle", heads=heads).folder
    page = open_client(settings(homes, tmp_path, bundle=bundle))
    assert re.findall(r'name="type.room" value="([^"]*)"', page.get("/").text) == ["bedroom"]
    assert page.get("/?type.room=bedroom").status_code == 200


def test_of_photos_at_one_position_the_one_that_decided_is_shown(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    """A portal may give all photos of a listing the same position."""
    homes.portal.add("5", city="Visby")
    kinds = ("kitchen", "balcony", "bedroom")
    urls = [homes.photo(shows, 70 + n, f"/same/{n}.jpg") for n, shows in enumerate(kinds)]
    for url in urls:
        homes.portal.add_photo("5", 0, url)
    assert homes.run().exit_code == 0
    page = open_client(settings(homes, tmp_path))
    listing = page.get("/listing/5").text
    assert listing.count("decided balcony") == 1
    search = page.get("/?where.city=Visby").text
    assert [url for url in urls if url_key(url) in search] == [urls[1]]


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("/?has.sauna=yes", 400, "no attribute &#39;sauna&#39;; there is: balcony"),
        ("/?from.price=cheap", 400, "a number is needed"),
        ("/?where.city=Solna&where.city=Lund", 400, "where.city is given twice"),
        ("/?page=999", 400, "between 0 and 10000 hits"),
        ("/search.json?where.town=x", 400, "no field 'town'"),
        ("/?where.city=%00", 400, "where.city: no value holds such a sign"),
        ("/review?since=nan", 400, "The address does not say what it should"),
        ("/review?since=1e300", 400, "The address does not say what it should"),
        ("/listing/none", 404, "no listing &#39;none&#39; is known"),
        ("/listing/%00", 404, "no id holds such a sign"),
        ("/nothing", 404, "There is no such page"),
        ("/photo/../etc/passwd", 404, "There is no such page"),
    ],
)
def test_what_is_not_there_is_said_in_words(
    homes: World, open_client: OpenClient, tmp_path: Any, address: str, code: int, words: str
) -> None:
    answer = open_client(settings(homes, tmp_path)).get(address)
    assert answer.status_code == code and words in answer.text
    for name, value in EVERY_ANSWER:
        assert answer.headers[name].startswith(value)


def test_a_column_that_the_index_no_longer_has_is_no_filter_any_more(
    world: World, open_client: OpenClient, tmp_path: Any
) -> None:
    for id in ("7", "8"):
        world.listing(id, "kitchen", city="Solna", price=int(id))
    world.run()
    world.elasticsearch.indices.refresh(index=world.index)
    page = open_client(settings(world, tmp_path))
    assert 'name="where.city"' in page.get("/").text
    reindex(world.settings(index_columns=("price",)), 1, Stop())
    shown = page.get("/")
    assert shown.status_code == 200
    assert 'name="where.city"' not in shown.text and 'name="from.price"' in shown.text


def test_an_index_that_is_away_costs_the_search_only(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path, elasticsearch_url="http://127.0.0.1:9"))
    for path in ("/", "/search.json"):
        answer = page.get(path)
        assert answer.status_code == 503 and "The index gives no answer" in answer.text
    done = page.send_form("/override", {"id": "8", "field": "has_balcony", "value": "true"})
    told = page.get(done.headers["location"])
    assert told.status_code == 200 and "but not in the index yet: the next publish takes it" in told.text
    assert homes.portal.execute("SELECT count(*) FROM enrichment.override")[0][0] == 1


def test_a_database_that_is_away_is_told_to_editors_in_words_of_theirs(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    url = parse_url(homes.portal.url)
    with Wire(url.host or str(url.query.get("host", "127.0.0.1")), url.port or 5432) as wire:
        through = url.set(host="127.0.0.1", port=wire.port, query={}).render_as_string(hide_password=False)
        page = open_client(settings(homes, tmp_path, database_url=through, outage_seconds=0.2))
        assert page.get("/listing/8").status_code == 200
        wire.down()
        asked = page.get("/listing/8")
        said = page.send_form("/override", {"id": "8", "field": "has_balcony", "value": "true"})
        wire.up()
        assert page.get("/listing/8").status_code == 200
    for answer, words in ((asked, "Try again later."), (said, "What you just said may not be recorded")):
        assert answer.status_code == 503 and f"The database gives no answer. {words}" in answer.text
        assert "DATABASE_URL" not in answer.text and "start the command" not in answer.text


def test_a_listing_says_why(homes: World, open_client: OpenClient, tmp_path: Any) -> None:
    text = open_client(settings(homes, tmp_path)).get("/listing/7").text
    flat = " ".join(text.split())
    assert "2 of 2 photos seen" in flat and "decided balcony" in flat and "yes from" in flat
    assert f'src="/photo/{url_key(homes.photos.url("/7/1.jpg"))}?size=320&amp;v=' in text
    assert 'style="' not in text and "onclick" not in text


def test_an_override_is_published_at_once_and_can_be_undone(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path, person="eva"))

    def document() -> Any:
        with open_services(homes.settings()) as services:
            return services.index.documents(["8"])["8"]

    assert "has_balcony" not in document()
    form = {"id": "8", "field": "has_balcony", "value": "true", "note": "seen at the viewing"}
    done = page.send_form("/override", form)
    assert done.status_code == 303 and document()["has_balcony"] is True
    text = page.get(done.headers["location"]).text
    assert "<b>eva</b> said so on" in text and "seen at the viewing" in text and "within a second" in text
    changed = page.send_form("/override", {**form, "value": "false", "note": ""})
    assert document()["has_balcony"] is False
    text = page.get(changed.headers["location"]).text
    again = page.get(changed.headers["location"].replace("said=", "said=x"))
    assert "Undo" not in again.text  # a link that somebody else made says nothing
    assert "Undo" not in page.get(changed.headers["location"].replace("/8?", "/7?")).text
    undone = page.send_form("/override/undo", {"said": said_in(changed)})
    assert undone.status_code == 303 and document()["has_balcony"] is True
    assert "seen at the viewing" in page.get(undone.headers["location"]).text
    once_more = page.send_form("/override/undo", {"said": said_in(undone)})
    assert once_more.status_code == 303 and document()["has_balcony"] is False
    assert page.send_form("/override/undo", {"said": "x"}).status_code == 404
    cleared = page.send_form("/override", {"id": "8", "field": "has_balcony", "clear": "true"})
    assert cleared.status_code == 303 and "has_balcony" not in document()
    rooms = page.send_form("/override", {"id": "8", "field": "room_types", "value": ["kitchen", "bathroom"]})
    assert rooms.status_code == 303 and document()["room_types"] == ["bathroom", "kitchen"]
    none = page.send_form("/override", {"id": "8", "field": "room_types"})
    assert none.status_code == 303 and document()["room_types"] == []


def said_in(answer: Any) -> str:
    """By what the page knows the change that it answered."""
    return str(answer.headers["location"].partition("said=")[2])


def test_undo_leaves_a_newer_word_of_somebody_else_and_gives_an_older_one_its_name_back(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    long = "seen at the viewing" * 200

    def word() -> Any:
        with open_services(homes.settings()) as services:
            return services.overrides.of(["8"]).get("8")

    def anna(value: bool) -> Any:
        with open_services(homes.settings()) as services:
            services.overrides.set_override("8", "has_balcony", value, long, "anna")
        return word()

    page = open_client(settings(homes, tmp_path, person="bob"))
    mine = page.send_form("/override", {"id": "8", "field": "has_balcony", "value": "true"})
    earlier = anna(value=False)
    assert page.send_form("/override/undo", {"said": said_in(mine)}).status_code == 409
    assert word() == earlier
    mine = page.send_form("/override", {"id": "8", "field": "has_balcony", "value": "true"})
    assert word() != earlier
    assert page.send_form("/override/undo", {"said": said_in(mine)}).status_code == 303
    assert word() == earlier


def test_a_page_that_does_not_know_a_new_head_yet_takes_no_answer_of_it_from_the_index(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    """It was started before the bundle came that has the head."""
    page = open_client(settings(homes, tmp_path))
    homes.fixed["bundle"] = bundle_with(tmp_path, (binary_head("seaview"), "balcony"))
    assert homes.backfill(stale_bundle=True).published.written == 3

    def document() -> Any:
        with open_services(homes.settings()) as services:
            return services.index.documents(["7"])["7"]

    assert document()["has_seaview"] is True
    done = page.send_form("/override", {"id": "7", "field": "has_balcony", "value": "false"})
    assert "the next publish takes it" in page.get(done.headers["location"]).text
    assert document()["has_seaview"] is True
    assert homes.publish().published.written == 1
    assert document()["has_seaview"] is True and document()["has_balcony"] is False


def test_an_override_waits_while_another_process_publishes(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    with open_services(homes.settings()) as services, services.locks.hold("publish"):
        done = page.send_form("/override", {"id": "8", "field": "has_balcony", "value": "true"})
        assert "another process is publishing" in page.get(done.headers["location"]).text
        assert "has_balcony" not in services.index.documents(["8"])["8"]
    homes.publish()
    text = page.get(done.headers["location"]).text
    assert "not in the index yet" not in text and "Buyers find it so" in text and "Undo" in text
    with open_services(homes.settings()) as services:
        assert services.index.documents(["8"])["8"]["has_balcony"] is True


def test_an_override_is_in_the_index_though_somebody_else_published_at_that_moment(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    with open_services(homes.settings()) as services, ExitStack() as other:
        other.enter_context(services.locks.hold("publish"))
        ending = Timer(0.5, other.close)
        ending.start()
        done = page.send_form("/override", {"id": "8", "field": "has_balcony", "value": "true"})
        assert services.index.documents(["8"])["8"].get("has_balcony") is True
        assert "within a second" in page.get(done.headers["location"]).text
        ending.join()


@pytest.mark.parametrize(
    "form",
    [
        {"field": "has_sauna", "value": "true"},
        {"field": "has_balcony", "value": "perhaps"},
        {"field": "room_types", "value": "dungeon"},
        {"field": "has_balcony", "value": "true", "note": "x" * 2001},
        {"field": "has_balcony", "value": "true", "note": "a\0b"},
        {"field": "has_\0", "clear": "true"},
    ],
)
def test_what_no_listing_can_have_is_refused(
    homes: World, open_client: OpenClient, tmp_path: Any, form: dict[str, str]
) -> None:
    assert (
        open_client(settings(homes, tmp_path)).send_form("/override", {"id": "8", **form}).status_code == 400
    )
    assert homes.portal.execute("SELECT count(*) FROM enrichment.override")[0][0] == 0


def test_nothing_changes_by_the_form_of_another_site(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    page.get("/")
    token = page.cookies["enrich_form"]
    form = {"id": "8", "field": "has_balcony", "value": "true"}
    full = {**form, "form_token": token}
    assert page.post("/override", data=full, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert page.post("/override", data=full, headers={"origin": "http://evil.example"}).status_code == 403
    assert page.post("/override", data=full).status_code == 403
    assert page.post("/override", data=form, headers=SAME_SITE).status_code == 403
    wrong = {**form, "form_token": "x" * 43}
    assert page.post("/override", data=wrong, headers=SAME_SITE).status_code == 403
    assert page.get("/override").status_code == 405
    long = {**full, "note": "x" * 70_000}
    assert page.post("/override", data=long, headers=SAME_SITE).status_code == 413
    assert homes.portal.execute("SELECT count(*) FROM enrichment.override")[0][0] == 0
    assert page.post("/override", data=full, headers=SAME_SITE).status_code == 303
    cookie = page.get("/login").headers.get("set-cookie", "")
    assert cookie == ""  # the browser keeps the one it has


@pytest.mark.parametrize("stated", [{}, {"Content-Length": "10"}])
def test_a_form_in_pieces_is_refused_however_long_it_says_it_is(
    homes: World, serve_page: Serve, stated: dict[str, str], tmp_path: Any
) -> None:
    page = urlsplit(serve_page(settings(homes, tmp_path, web_edit_token=EDIT)))
    with closing(HTTPConnection(page.netloc, timeout=30)) as connection:
        form = {"Content-Type": "application/x-www-form-urlencoded", "Transfer-Encoding": "chunked"}
        connection.request("POST", "/login", b"7\r\ntoken=x\r\n0\r\n\r\n", form | SAME_SITE | stated)
        assert connection.getresponse().status == 411


def test_other_names_and_other_people_get_nothing(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    rebound = open_client(settings(homes, tmp_path), host="evil.example")
    assert rebound.get("/").status_code == 421 and rebound.get("/search.json").status_code == 421

    tokens = {"web_token": VIEW, "web_edit_token": EDIT}
    public = open_client(settings(homes, tmp_path, **tokens), "0.0.0.0", "page.example")
    for path in ("/search.json", "/listing/8", f"/photo/{'a' * 64}", "/"):
        assert public.get(path).status_code == 401
    browser = {"accept": "text/html"}
    asked = public.get("/listing/8?x=1", headers=browser)
    assert asked.status_code == 303 and asked.headers["location"] == "/login?next=%2Flisting%2F8%3Fx%3D1"
    assert public.get("/healthz").text == "alive\n"
    assert public.send_form("/login", {"token": "wrong"}).status_code == 401
    entered = public.send_form("/login", {"token": VIEW, "next": "//evil.example"})
    assert entered.status_code == 303 and entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and VIEW not in cookie
    assert public.get("/listing/8").status_code == 200
    form = {"id": "8", "field": "has_balcony", "value": "true"}
    assert public.send_form("/override", form).status_code == 403
    assert "Set these" not in public.get("/listing/8").text
    bearer = {"authorization": f"Bearer {EDIT}"}
    assert public.post("/override", data=form, headers=bearer).status_code == 303
    assert "SameSite=lax" in public.send_form("/logout").headers["set-cookie"]
    assert public.get("/listing/8").status_code == 401
    secure = public.send_form("/login", {"token": EDIT}, headers={"x-forwarded-proto": "https"})
    assert "Secure" in secure.headers["set-cookie"]


def test_a_login_leads_to_the_page_that_was_asked_for_whatever_its_id(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path, web_token=VIEW))
    link = listing_link("a/../b?c#%2F")
    asked = page.get(f"{link}?x=1", headers={"accept": "text/html"}).headers["location"]
    wanted = parse_qs(urlsplit(asked).query)["next"][0]
    assert wanted == f"{link}?x=1"
    assert page.send_form("/login", {"token": VIEW, "next": wanted}).headers["location"] == wanted


def test_an_open_page_whose_login_has_ended_leads_to_the_login(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path, web_token=VIEW), "0.0.0.0")
    looking_again = {"hx-request": "true", "accept": "*/*"}  # as htmx asks every few seconds
    answer = page.get("/status", headers=looking_again)
    assert answer.status_code == 401 and answer.headers["hx-redirect"] == "/login"
    page.send_form("/login", {"token": VIEW})
    assert "hx-redirect" not in page.get("/status", headers=looking_again).headers


def test_the_user_of_a_proxy_is_who_says_so(homes: World, open_client: OpenClient, tmp_path: Any) -> None:
    proxied = {
        "web_trusted_header": "X-User",
        "web_trusted_proxies": ("10.0.0.0/8",),
        "web_editors": ("eva",),
    }
    page = open_client(settings(homes, tmp_path, **proxied), "0.0.0.0", peer="10.0.0.1")
    form = {"id": "8", "field": "has_balcony", "value": "true"}
    assert page.send_form("/override", form, headers={"x-user": "olof"}).status_code == 403
    assert page.send_form("/override", form, headers={"x-user": "eva"}).status_code == 303
    assert homes.portal.execute("SELECT created_by FROM enrichment.override")[0][0] == "eva"
    stranger = open_client(settings(homes, tmp_path, **proxied), "0.0.0.0", peer="11.0.0.1")
    assert stranger.get("/", headers={"x-user": "eva"}).status_code == 401


def test_nothing_of_a_listing_is_shown_as_anything_but_text(
    world: World, open_client: OpenClient, tmp_path: Any
) -> None:
    world.fixed |= {"elasticsearch_url": None, "index_columns": ("title", "city")}
    world.portal.execute("ALTER TABLE listings ADD title text")
    id = "a/../b?\"'><b>ö"
    world.portal.add(id, [world.photo("balcony", 1), "javascript:alert(3)"], title=HOSTILE, city=HOSTILE)
    world.portal.add("twin", [], title=HOSTILE, city=HOSTILE)
    migrate(world.settings())
    world.run()
    page = open_client(settings(world, tmp_path))
    link = f"/listing/{quote(id, safe='')}"
    first, second = page.get("/"), page.get(link)
    assert f'href="{link}"' in first.text and second.status_code == 200
    page.send_form("/override", {"id": id, "field": "has_balcony", "value": "true", "note": HOSTILE})
    told = page.get(
        f"{link}?changed={quote(HOSTILE)}&note={quote(HOSTILE)}&before={quote(HOSTILE)}&waits=<b>"
    )
    for answer in (first, second, told, page.get(f"/?where.city={quote(HOSTILE)}")):
        assert "&lt;script&gt;alert(" in answer.text and "{{7*7}}" in answer.text
        for tag in ("<script>", "<img src=x", "<b>ö", 'href="javascript:', "<b>."):
            assert tag not in answer.text, tag
    assert "javascript:alert(3)" in second.text  # as text


# Photos


def seen(world: World, id: str, position: int) -> str:
    """What the page calls the bytes of a photo."""
    photos = world.portal.state(id).photos
    return next(str(photo["sha256"])[:12] for photo in photos if photo["position"] == position)


def test_photos_are_made_anew_kept_and_asked_for_once(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    homes.photos.forget()
    key, version = url_key(homes.photos.url("/7/1.jpg")), seen(homes, "7", 1)
    small, large = (page.get(f"/photo/{key}?size={size}&v={version}") for size in (320, 1280))
    assert small.status_code == large.status_code == 200 and homes.requests("/7/1.jpg") == 1
    assert small.headers["content-type"] == "image/jpeg" and "immutable" in small.headers["cache-control"]
    assert Image.open(io.BytesIO(small.content)).size == (160, 120)
    assert "immutable" not in page.get(f"/photo/{key}").headers["cache-control"]
    again = open_client(settings(homes, tmp_path))
    assert again.get(f"/photo/{key}").content == small.content and homes.requests("/7/1.jpg") == 1


def test_other_bytes_are_not_shown_as_the_photo_that_was_scored(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    address = f"/photo/{url_key(homes.photos.url('/7/1.jpg'))}?v="
    before = seen(homes, "7", 1)
    homes.photo("bathroom", 99, "/7/1.jpg")
    answer = page.get(address + before)
    assert answer.status_code == 404 and answer.headers["x-reason"] == "its host shows other bytes by now"
    homes.portal.touch("7")
    assert homes.run(revalidate=True).exit_code == 0
    assert page.get(address + seen(homes, "7", 1)).status_code == 200
    answer = page.get(address + before)  # of a tab that was opened before
    assert answer.status_code == 404 and answer.headers["x-reason"] == "other bytes were seen there since"
    assert "immutable" not in answer.headers["cache-control"]


def test_what_a_person_said_of_a_listing_that_waits_is_shown(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    for id in ("5", "6"):
        homes.listing(id, "kitchen")
    homes.run(limit=1)
    page = open_client(settings(homes, tmp_path, person="eva"))
    waits = next(id for id in ("5", "6") if "Not enriched yet" in page.get(f"/listing/{id}").text)
    for field, value in (("has_balcony", "false"), ("room_types", "kitchen")):
        page.send_form("/override", {"id": waits, "field": field, "value": value, "note": "seen there"})
    shown = " ".join(page.get(f"/listing/{waits}").text.split())
    assert '<b>eva</b> said <b>has_balcony</b> is <span class="tag no">no</span>' in shown
    assert "<b>room_types</b> is kitchen" in shown and "“seen there”" in shown


def test_only_photos_that_state_knows_are_fetched(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    homes.photo("balcony", 5, "/elsewhere.jpg")
    page = open_client(settings(homes, tmp_path))
    homes.photos.forget()
    other = url_key(homes.photos.url("/elsewhere.jpg"))
    for key in (other, "0" * 64, "x", quote("http://127.0.0.1/", safe=""), "a" * 65):
        answer = page.get(f"/photo/{key}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] in ("image/svg+xml", "text/html; charset=utf-8")
    assert page.get(f"/photo/{other}?size=9999").status_code == 400
    assert homes.requests() == 0
    key = url_key(homes.photos.url("/9/0.jpg"))
    homes.portal.remove("9")  # off the market since: not even its own photos
    assert page.get(f"/photo/{key}").status_code == 404 and homes.requests() == 0


def test_a_photo_is_shown_though_many_listings_that_had_it_are_gone(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    url = homes.photos.url("/7/1.jpg")
    sold = [f"0-{number}" for number in range(HOLDERS)]
    for id in sold:
        homes.portal.add(id, [url])
    homes.run()
    for id in sold:
        homes.portal.remove(id)
    homes.run(allow_removals=True)
    assert open_client(settings(homes, tmp_path)).get(f"/photo/{url_key(url)}").status_code == 200


def test_a_photo_host_is_asked_for_few_photos_at_once(world: World, serve_page: Serve, tmp_path: Any) -> None:
    world.fixed["elasticsearch_url"] = None
    urls = world.listing("7", *["kitchen"] * 24)
    migrate(world.settings())
    world.run()
    world.photos.forget()
    world.photos.busiest = 0

    def slow(answer: Any) -> None:
        time.sleep(0.2)
        FINE(answer)

    for url in urls:
        world.photos.behave(urlsplit(url).path, slow)
    page = serve_page(settings(world, tmp_path))

    def load(url: str) -> int:
        with urllib.request.urlopen(f"{page}/photo/{url_key(url)}") as answer:
            return int(answer.status)

    with ThreadPoolExecutor(48) as pool:
        assert set(pool.map(load, [*urls, *urls])) == {200}  # two visitors
    assert world.requests() == 24 and 1 < world.photos.busiest <= AT_ONCE


def test_a_broken_photo_is_a_small_picture_that_says_so_and_its_host_is_left_alone(
    homes: World, open_client: OpenClient, tmp_path: Any
) -> None:
    page = open_client(settings(homes, tmp_path))
    homes.photos.forget()
    homes.photos.behave("/7/0.jpg", status(503))
    homes.photos.add("/8/0.jpg", b"<script>alert(1)</script>")
    passing, gone = (url_key(homes.photos.url(path)) for path in ("/7/0.jpg", "/8/0.jpg"))
    for key, code in ((passing, 502), (gone, 404)):
        answers = [page.get(f"/photo/{key}") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [code] * 3
        assert answers[0].text.startswith("<svg") and "script" not in answers[0].text
        assert answers[0].headers["x-reason"]
    assert homes.requests("/7/0.jpg") == homes.requests("/8/0.jpg") == 1


# The commands


def address(process: "subprocess.Popen[str]") -> str:
    """Where a command says that its page is."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("the page is at "):
            return line.split()[4]
    pytest.fail(f"no page: {process.stderr.read() if process.stderr else ''}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_enrich_serve_says_where_it_is_and_ends_cleanly(homes: World, number: int, tmp_path: Any) -> None:
    serving = homes.start("serve", "--port", "0", photo_cache=tmp_path)
    with urllib.request.urlopen(address(serving)) as answer:
        assert answer.status == 200 and b"3 listings" in answer.read()
    serving.send_signal(number)
    _, err = serving.communicate(timeout=60)
    assert serving.returncode == 0, err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"photo_cache": "/dev/null/photos"}, "set ENRICH_PHOTO_CACHE to a folder that may be written to"),
        ({"allowed_stores": "photos"}, "ENRICH_ALLOWED_STORES: 'photos' names no bucket"),
    ],
)
def test_enrich_serve_ends_where_it_could_show_no_photo(
    homes: World, tmp_path: Any, wrong: dict[str, str], words: str
) -> None:
    serving = homes.start("serve", "--port", "0", **{"photo_cache": tmp_path, **wrong})
    out, err = serving.communicate(timeout=60)
    assert serving.returncode == 2 and words in err
    assert "the page is at" not in out and "Traceback" not in err


def test_the_demo_s_twelve_homes_are_in_the_page(homes: World, tmp_path: Any) -> None:
    demo = homes.start("demo", "--serve", "--port", "0", home=tmp_path, photo_cache=tmp_path / "photos")
    page = address(demo)
    with urllib.request.urlopen(page) as answer:
        text = answer.read().decode()
    assert "12 listings" in text and "Corner flat with stove and view" in text
    with urllib.request.urlopen(
        page + re.findall(r'src="/(photo/[^"]+)"', text)[0].replace("&amp;", "&")
    ) as answer:
        assert answer.headers["content-type"] == "image/jpeg"
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 0 and "Traceback" not in err, err
