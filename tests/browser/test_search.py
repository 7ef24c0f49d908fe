"""The search, in a real Chromium over a real Elasticsearch."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.bundles import draw_bytes
from tests.support.harness import World
from tests.support.page import NO_ANSWER, PHONE, Serve, faults, overflow

HAS_BALCONY = {"term": {"has_balcony": True}}
SOLNA = {"term": {"city": "Solna"}}
UNSURE = {"bool": {"must_not": [{"exists": {"field": "has_balcony"}}]}}
LONG = "An-uncommonly-long-word-that-no-line-of-a-phone-could-ever-hold-in-one-piece " * 2


@pytest.fixture
def homes(world: World) -> World:
    """Thirty homes; those with an even number have a balcony, every third is in Lund."""
    world.portal.execute("ALTER TABLE listings ADD title text")
    world.fixed["index_columns"] = ("title", "city", "price")
    for number in range(30):
        shows = ("balcony", "kitchen") if number % 2 == 0 else ("kitchen",)
        city = "Lund" if number % 3 == 0 else "Solna"
        world.listing(f"h{number:02}", *shows, city=city, price=number, title=LONG if number == 0 else None)
    assert world.run().exit_code == 0
    world.elasticsearch.indices.refresh(index=world.index)
    return world


def count(tab: Page, choice: str) -> int:
    """The number beside a choice."""
    label = tab.locator(f"label:has([id='{choice}'])").inner_text()
    return int(re.sub(r"\D", "", label))


def shown(tab: Page) -> set[str]:
    """The ids of the listings on this page."""
    links = tab.locator("#found h3 a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    return {link.removeprefix("/listing/") for link in links}


def test_filters_count_and_find_what_elasticsearch_does(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    url = serve_page(homes.settings())
    tab.goto(url)
    assert count(tab, "has.balcony.yes") == len(homes.matching(HAS_BALCONY)) == 15
    assert count(tab, "has.balcony.unknown") == len(homes.matching(UNSURE)) == 15
    assert count(tab, "type.room.kitchen") == len(homes.matching({"term": {"room_types": "kitchen"}})) == 30

    tab.locator("[id='has.balcony.yes']").check()
    expect(tab.locator("#found h2")).to_have_text("15 listings")
    assert shown(tab) == homes.matching(HAS_BALCONY)
    assert "15 more match" in tab.locator("#found").inner_text()

    tab.get_by_label("City").select_option("Solna")
    found = homes.matching(HAS_BALCONY, SOLNA)
    expect(tab.locator("#found h2")).to_have_text(f"{len(found)} listings")
    assert shown(tab) == found
    assert count(tab, "has.balcony.yes") == len(found)
    assert count(tab, "has.balcony.unknown") == len(homes.matching(UNSURE, SOLNA))  # as another choice
    assert tab.get_by_label("City").locator("option").all_inner_texts() == ["any", "Solna (10)", "Lund (5)"]

    tab.get_by_label("Price from").fill("20")
    tab.get_by_label("Price from").press("Enter")
    found = homes.matching(HAS_BALCONY, SOLNA, {"range": {"price": {"gte": 20}}})
    expect(tab.locator("#found h2")).to_have_text(f"{len(found)} listings")
    assert tab.url == f"{url}/?has.balcony=yes&where.city=Solna&from.price=20"
    tab.reload()
    assert shown(tab) == found and tab.locator("[id='has.balcony.yes']").is_checked()
    tab.go_back()
    expect(tab.locator("#found h2")).to_have_text("10 listings")


def test_pages_sorting_and_the_body_to_copy(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse(permissions=["clipboard-read", "clipboard-write"])
    tab.goto(serve_page(homes.settings()))
    first = shown(tab)
    tab.get_by_role("link", name="After").click()
    expect(tab.locator("nav.pages")).to_contain_text("Page 2 of 2")
    assert len(first) == 24 and first | shown(tab) == homes.matching() and not first & shown(tab)
    tab.goto(tab.url.partition("?")[0])
    tab.get_by_label("Sorted by").select_option("balcony")
    expect(tab).to_have_url(re.compile("sort=balcony"))
    sure = [
        int(text.rstrip("%")) for text in tab.locator("#found .tags .tag:first-child .sure").all_inner_texts()
    ]
    assert len(sure) == 24 and sure == sorted(sure, reverse=True)

    tab.locator("[id='has.balcony.yes']").check()
    expect(tab.locator("#found h2")).to_have_text("15 listings")
    tab.get_by_text("Use this in your search").click()
    tab.get_by_role("button", name="Copy").click()
    expect(tab.get_by_role("button", name="Copied")).to_be_visible()
    body = tab.evaluate("navigator.clipboard.readText().then(JSON.parse)")
    hits = homes.elasticsearch.search(index=homes.index, query=body["query"], sort=body["sort"], size=100)
    assert {hit["_id"] for hit in hits["hits"]["hits"]} == homes.matching(HAS_BALCONY)


def test_the_keyboard_alone_is_enough_and_keeps_its_place(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse()
    tab.goto(serve_page(homes.settings()))
    order = []
    for _ in range(10):
        tab.keyboard.press("Tab")
        order.append(tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert order == [
        *("Skip to the content", "Listing enrichment", "Search", "Review", "Status", "Filters"),
        *("has.balcony.any", "has.fireplace.any", "type.room.kitchen", "where.city"),
    ]
    tab.locator("[id='has.balcony.any']").focus()
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#found h2")).to_have_text("15 listings")
    expect(tab.locator("[id='has.balcony.yes']")).to_be_focused()
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    expect(tab.locator("[id='type.room.kitchen']")).to_be_checked()
    expect(tab).to_have_url(re.compile("type.room=kitchen"))


def test_it_works_without_scripts(homes: World, serve_page: Serve, browse: Callable[..., Page]) -> None:
    tab = browse(java_script_enabled=False)
    tab.goto(serve_page(homes.settings()))
    tab.locator("[id='has.balcony.yes']").check()
    tab.get_by_role("button", name="Search").click()
    expect(tab.locator("#found h2")).to_have_text("15 listings")


def test_a_value_that_is_typed_may_have_a_blank_behind_it(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    """As the keyboards of phones put one."""
    for number in range(30, 70):
        homes.portal.add(f"h{number}", title=" padded" if number < 32 else f"home {number}")
    assert homes.run().exit_code == 0
    tab = browse()
    tab.goto(serve_page(homes.settings()))
    for typed, found in (("home 69 ", {"h69"}), (" padded", {"h30", "h31"})):
        tab.get_by_label("Title").fill(typed)
        tab.get_by_label("Title").press("Enter")
        expect(tab.locator("#found h2")).to_have_text("1 listing" if len(found) == 1 else "2 listings")
        assert shown(tab) == found


def test_a_filter_that_is_refused_says_so(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    tab = browse(NO_ANSWER)
    tab.goto(serve_page(homes.settings()))
    tab.get_by_label("Price from").fill("2,5")
    tab.get_by_label("Price from").press("Enter")
    expect(tab.locator("#found h2")).to_have_text("27 listings")
    tab.get_by_label("Price from").fill("cheap")
    tab.get_by_label("Price from").press("Enter")
    expect(tab.get_by_text("from.price=cheap: a number is needed")).to_be_visible()
    tab.go_back()
    expect(tab.locator("#found h2")).to_have_text("27 listings")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_readably(
    homes: World, serve_page: Serve, browse: Callable[..., Page], axe: str, scheme: str
) -> None:
    tab = browse(viewport=PHONE, color_scheme=scheme)
    url = serve_page(homes.settings())
    for path in ("/", "/?has.balcony=yes&type.room=kitchen", "/?where.city=Nowhere", "/nothing"):
        tab.goto(url + path)
        assert overflow(tab) == 0, path
        assert faults(tab, axe) == [], path
    tab.goto(url)
    tab.get_by_text("Filters", exact=True).click()
    tab.get_by_text("Use this in your search").click()
    expect(tab.locator("[id='has.balcony.yes']")).to_be_visible()
    assert overflow(tab) == 0
    assert faults(tab, axe) == []
    pictures = tab.locator("#found img").evaluate_all("all => all.map(one => one.alt)")
    assert len(pictures) == 24 and all("Photo" in alt for alt in pictures)


def test_a_portrait_s_cover_is_as_high_as_the_others(
    homes: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    drawn = draw_bytes("kitchen", 7, (600, 800))
    homes.portal.add("portrait", [homes.photos.add("/portrait.jpg", drawn)], price=1)
    assert homes.run().exit_code == 0
    tab = browse()
    tab.goto(f"{serve_page(homes.settings())}/?to.price=3")
    portrait = tab.locator(".home", has=tab.locator("a[href='/listing/portrait']")).locator("img")
    expect(portrait).to_have_js_property("complete", value=True)
    assert portrait.evaluate("one => one.naturalHeight > one.naturalWidth")
    heights = tab.locator(".home .cover").evaluate_all("all => all.map(one => one.clientHeight)")
    assert len(heights) == 5 and max(heights) - min(heights) <= 1
