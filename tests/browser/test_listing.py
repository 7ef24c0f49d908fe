"""A listing and what people say of it, in a real Chromium over a real Elasticsearch."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Timer
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, Request, expect

from jobs.run.services import open_services
from tests.support.harness import World
from tests.support.page import PHONE, Serve, faults, overflow
from tests.support.photo_server import status

ODD = "a/../b ?#&\"'<b>%2Fö"
BALCONY = {"term": {"has_balcony": True}}


@pytest.fixture
def homes(world: World) -> World:
    """A home with photos of two rooms, one photo that cannot be had, and a home with an odd id."""
    world.listing("7", "kitchen", "bedroom", "kitchen", "other", city="Solna", price=4_000_000)
    world.photos.behave("/7/2.jpg", status(410))
    world.listing(ODD, "kitchen", city="Lund")
    world.run()
    world.elasticsearch.indices.refresh(index=world.index)  # a search sees it at once, not within a second
    return world


def test_photos_stand_by_room_with_scores_status_and_reasons(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    tab.goto(f"{serve_page(homes.settings())}/listing/7")
    assert tab.locator(".room h2").all_inner_texts() == ["Bedroom 1", "Kitchen 1", "Other 1", "Not Seen 1"]
    photo = tab.locator("#photo-0")
    assert photo.get_by_role("img", name="Photo 0 of 7: kitchen").is_visible()
    assert photo.locator(".bar").count() == 3
    assert "enough from" in (photo.locator(".bar").first.get_attribute("aria-label") or "")
    assert "gone" in tab.locator("#photo-2").inner_text()
    assert "too few photos seen: 3 of the 8 that no takes" in tab.locator(".answers").inner_text()
    tab.wait_for_load_state("networkidle")
    widths = tab.locator(".shots img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert widths == [160, 160, 160]


def test_an_override_reaches_the_index_and_undo_takes_it_back(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    url = serve_page(homes.settings(person="eva"))
    tab.goto(f"{url}/listing/7")
    assert "7" not in homes.matching(BALCONY)
    balcony = tab.locator("article", has=tab.get_by_role("heading", name="balcony"))
    balcony.get_by_label("Note on has_balcony").fill("seen at the viewing")
    balcony.get_by_role("button", name="Yes").click()
    expect(tab.get_by_role("status")).to_contain_text("within a second")
    assert homes.matching(BALCONY) == {"7"}
    assert "eva said so" in balcony.inner_text() and "“seen at the viewing”" in balcony.inner_text()
    tab.goto(f"{url}/?has.balcony=yes")
    expect(tab.locator("#found h2")).to_have_text("1 listing")

    tab.go_back()
    tab.get_by_role("button", name="Undo").click()
    expect(tab.get_by_role("status")).to_contain_text("has_balcony")
    assert homes.matching(BALCONY) == set()
    assert "said so" not in balcony.inner_text()

    rooms = tab.locator("article", has=tab.get_by_role("heading", name="room"))
    rooms.get_by_label("bathroom").check()
    rooms.get_by_role("button", name="Set these").press("Enter")
    expect(tab.get_by_role("status")).to_contain_text("room_types")
    assert homes.matching({"term": {"room_types": "bathroom"}}) == {"7"}
    rooms.get_by_role("button", name="Let the model say").click()
    expect(rooms.locator(".big")).to_have_text("bedroom, kitchen")
    assert homes.matching({"term": {"room_types": "bathroom"}}) == set()


def test_enter_in_a_note_says_nothing_of_the_listing_yet(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    tab.goto(f"{serve_page(homes.settings())}/listing/7")
    note = tab.get_by_label("Note on has_balcony")
    note.fill("seen at the viewing")
    note.press("Enter")
    tab.wait_for_load_state("networkidle")
    assert homes.portal.execute("SELECT count(*) FROM enrichment.override")[0][0] == 0
    expect(note).to_have_value("seen at the viewing")
    assert tab.locator("article button:visible").first.inner_text() == "Yes"
    rooms = tab.get_by_label("Note on room_types")
    rooms.press("Enter")
    expect(tab.get_by_role("status")).to_contain_text("room_types")


@contextmanager
def slow_answers(homes: World, tab: Page) -> Iterator[None]:
    """Answers take two seconds from the first click on, as another process publishes for so long."""
    with open_services(homes.settings()) as services, ExitStack() as other:
        other.enter_context(services.locks.hold("publish"))
        ending = Timer(2, other.close)

        def clicked(asked: Request) -> None:
            if asked.method == "POST" and ending.ident is None:
                ending.start()

        tab.on("request", clicked)
        yield
        tab.remove_listener("request", clicked)
        ending.join()


def test_another_answer_right_after_the_first_one_stands(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    tab.goto(f"{serve_page(homes.settings())}/listing/7")
    with slow_answers(homes, tab):
        for answer in ("Yes", "No"):
            with tab.expect_request(lambda asked: asked.method == "POST"):
                tab.locator("article").first.get_by_role("button", name=answer, exact=True).click()
    expect(tab.locator(".said")).to_have_count(1)
    assert homes.portal.execute("SELECT value FROM enrichment.override") == [(False,)]


def test_a_double_click_says_it_once_so_that_undo_takes_it_back(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    tab.goto(f"{serve_page(homes.settings())}/listing/7")
    with slow_answers(homes, tab):
        tab.locator("article").first.get_by_role("button", name="Yes").dblclick(delay=200)
    expect(tab.get_by_role("status")).to_be_visible()
    tab.get_by_role("button", name="Undo").click()
    expect(tab.locator(".said")).to_have_count(0)
    assert homes.portal.execute("SELECT count(*) FROM enrichment.override")[0][0] == 0
    tab.go_back()
    tab.locator("article").first.get_by_role("button", name="Yes").click()
    expect(tab.locator(".said")).to_have_count(1)


def test_an_id_of_any_signs_has_its_page_and_takes_an_override(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    tab.goto(f"{serve_page(homes.settings())}/?where.city=Lund")
    tab.get_by_role("heading", name=ODD).get_by_role("link").click()
    expect(tab.locator("h1")).to_have_text(ODD)
    assert tab.url.endswith(f"/listing/{quote(ODD, safe='')}")
    tab.locator("article").first.get_by_role("button", name="Yes").click()
    expect(tab.get_by_role("status")).to_be_visible()
    assert homes.matching(BALCONY) == {ODD}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_readably(
    homes: World, serve_page: Serve, browse: Callable[..., Page], axe: str, scheme: str
) -> None:
    tab = browse(viewport=PHONE, color_scheme=scheme)
    url = serve_page(homes.settings())
    tab.goto(f"{url}/listing/7")
    assert overflow(tab) == 0
    assert faults(tab, axe) == []
    tab.locator("article").first.get_by_role("button", name="No", exact=True).click()
    expect(tab.get_by_role("status")).to_be_visible()
    assert overflow(tab) == 0
    assert faults(tab, axe) == []
    assert all(tab.locator("main img").evaluate_all("all => all.map(one => one.alt)"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_login_is_asked_for_once(
    homes: World, serve_page: Serve, browse: Callable[..., Page], axe: str, scheme: str
) -> None:
    url = serve_page(
        homes.settings(web_edit_token="edit-token-0123456789", web_token="view-token-0123456789")
    )
    tab = browse(viewport=PHONE, color_scheme=scheme)
    tab.goto(f"{url}/listing/7")
    assert faults(tab, axe) == [] and overflow(tab) == 0
    tab.get_by_label("Token").fill("view-token-0123456789")
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_have_text("7")
    assert (
        tab.get_by_role("button", name="Yes").count() == 0
        and "view only" in tab.locator("header").inner_text()
    )
    assert faults(tab, axe) == [] and overflow(tab) == 0
    tab.get_by_role("button", name="Log out").click()
    expect(tab.get_by_label("Token")).to_be_visible()
