"""The review queue in a real Chromium: by keyboard, by buttons, and what comes of it in the index."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from enrich.model.bundle import load_bundle
from enrich.state.review import questions
from tests.support.harness import World, until
from tests.support.page import PHONE, Serve, faults, overflow

ROOMS = ("kitchen", "bedroom", "bathroom")


@pytest.fixture
def review(world: World, serve_page: Serve, tiny_bundle: Path) -> Callable[..., str]:
    """`review("a", "b")`: listings of whose balcony the model is not sure, the first one least; the queue."""
    turn = questions(load_bundle(tiny_bundle).heads)[0].turns[0]

    def work(*ids: str) -> str:
        for id in ids:
            world.listing(id, *ROOMS, city="Solna")
        world.run()
        for number, id in enumerate(ids):
            world.portal.execute(
                "UPDATE enrichment.listing SET model_attributes = jsonb_set(model_attributes,"
                " '{fields,balcony_confidence}', to_jsonb(CAST(:confidence AS numeric))) WHERE id = :id",
                id=id,
                confidence=round(turn + number / 1000, 4),
            )
        return serve_page(world.settings(person="ann")) + "/review?head=balcony"

    return work


def said(world: World) -> dict[str, Any]:
    rows = world.portal.execute("SELECT listing_id, value, created_by FROM enrichment.override")
    return {row.listing_id: (row.value, row.created_by) for row in rows}


def shown(tab: Page, id: str) -> None:
    """The listing is in the tab, and its photo is there to be looked at."""
    expect(tab.locator("input[name=id]")).to_have_value(id)
    tab.wait_for_load_state()  # from when on keys are heard
    assert tab.locator("#large").evaluate("image => image.decode().then(() => image.naturalWidth > 0)")


def test_keys_answer_and_undo_and_the_index_follows(
    world: World, review: Callable[..., str], browse: Callable[..., Page]
) -> None:
    address = review("a", "b", "c")
    tab = browse()
    tab.goto(address)
    shown(tab, "a")
    tab.keyboard.press("y")
    shown(tab, "b")
    expect(tab.get_by_text("1 of 3 done, 2 left")).to_be_visible()
    tab.keyboard.press("n")
    shown(tab, "c")
    assert said(world) == {"a": (True, "ann"), "b": (False, "ann")}
    until(lambda: world.documents()["a"].get("has_balcony") is True, "the index has what was said of a")
    until(lambda: world.documents()["b"].get("has_balcony") is False, "the index has what was said of b")

    tab.keyboard.press("ArrowLeft")
    shown(tab, "b")
    expect(tab.get_by_text("1 of 3 done, 2 left")).to_be_visible()
    assert said(world) == {"a": (True, "ann")}
    until(lambda: world.documents()["b"].get("has_balcony") is None, "the index has what was taken back")

    tab.keyboard.press("u")
    shown(tab, "c")
    tab.keyboard.press("u")
    expect(tab.get_by_role("heading", name="3 answered. Thank you!")).to_be_visible()
    assert said(world) == {"a": (True, "ann")}


def test_digits_and_arrows_choose_the_photo_that_shows_it(
    world: World, review: Callable[..., str], browse: Callable[..., Page]
) -> None:
    address = review("a")
    tab = browse()
    tab.goto(address)
    shown(tab, "a")
    first = tab.locator("#large").get_attribute("src")
    tab.keyboard.press("3")
    assert tab.locator("#large").get_attribute("src") != first
    tab.keyboard.press("ArrowUp")
    alt = tab.locator(".pick[aria-current] img").get_attribute("alt")
    assert tab.locator("#large").get_attribute("alt") == alt
    tab.keyboard.press("y")
    expect(tab.get_by_role("heading", name="1 answered. Thank you!")).to_be_visible()
    assert labelled(world) == [alt]


def test_a_key_that_is_held_down_answers_once(
    world: World, review: Callable[..., str], browse: Callable[..., Page]
) -> None:
    address = review("a", "b", "c")
    tab = browse()
    tab.goto(address)
    shown(tab, "a")
    tab.evaluate(
        "['keydown', 'keydown'].forEach(kind =>"
        " document.body.dispatchEvent(new KeyboardEvent(kind, {key: 'y', bubbles: true})))"
    )
    shown(tab, "b")
    assert said(world) == {"a": (True, "ann")}


def test_the_next_photo_is_there_before_it_is_asked_for(
    world: World, review: Callable[..., str], browse: Callable[..., Page]
) -> None:
    address = review("a", "b")
    tab = browse()
    asked: list[str] = []
    tab.on("response", lambda response: asked.append(response.url))
    tab.goto(address)
    tab.wait_for_load_state("networkidle")
    asked.clear()
    tab.keyboard.press("n")
    shown(tab, "b")
    large = tab.locator("#large").evaluate("image => image.src")
    assert large not in asked or tab.evaluate(
        "url => performance.getEntriesByName(url)[0].transferSize === 0", large
    )


def test_without_scripts_the_buttons_do_it(
    world: World, review: Callable[..., str], browse: Callable[..., Page]
) -> None:
    address = review("a", "b")
    tab = browse(java_script_enabled=False)
    tab.goto(address)
    tab.get_by_role("button", name="No, none of them does").click()
    expect(tab.locator("input[name=id]")).to_have_value("b")
    assert said(world) == {"a": (False, "ann")}
    tab.get_by_role("button", name="Undo the last answer").click()
    expect(tab.locator("input[name=id]")).to_have_value("a")
    assert said(world) == {}
    third = tab.locator(".strip li").nth(2)
    photo = third.get_by_role("img").get_attribute("alt")
    third.get_by_role("button", name="Yes").click()
    expect(tab.locator("input[name=id]")).to_have_value("b")
    assert said(world) == {"a": (True, "ann")} and labelled(world) == [photo]


def labelled(world: World) -> list[str]:
    """What the page calls the photos that are labelled."""
    rows = world.portal.execute(
        "SELECT 'Photo ' || (p ->> 'position') || ' of listing ' || l.id FROM enrichment.label"
        " JOIN enrichment.listing AS l ON true"
        " JOIN LATERAL jsonb_array_elements(l.photos) AS p ON p ->> 'sha256' = sha256"
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_and_fits_a_phone(
    review: Callable[..., str], browse: Callable[..., Page], axe: str, scheme: str
) -> None:
    address = review("a", "b")
    tab = browse(viewport=PHONE, color_scheme=scheme)
    tab.goto(address)
    shown(tab, "a")
    assert overflow(tab) == 0
    assert faults(tab, axe) == []
    assert all(tab.locator("main img:not(.unseen)").evaluate_all("found => found.map(one => one.alt)"))
    tab.keyboard.press("n")
    shown(tab, "b")
    tab.keyboard.press("n")
    expect(tab.get_by_role("heading", name="2 answered. Thank you!")).to_be_visible()
    assert overflow(tab) == 0
    assert faults(tab, axe) == []
