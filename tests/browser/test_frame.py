"""The frame of every page, in a real Chromium."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.harness import World
from tests.support.page import PHONE, Serve, faults, overflow


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_frame_is_readable_and_keeps_its_own_policy(
    world: World, serve_page: Serve, browse: Callable[..., Page], axe: str, scheme: str
) -> None:
    world.run()
    tab = browse(viewport=PHONE, color_scheme=scheme)
    answer = tab.goto(serve_page(world.settings()))
    assert answer is not None and answer.status == 200
    assert tab.get_by_role("link", name="Search").get_attribute("aria-current") == "page"
    assert overflow(tab) == 0
    assert faults(tab, axe) == []


def test_the_keyboard_goes_past_the_navigation(
    world: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    world.run()
    tab = browse()
    tab.goto(serve_page(world.settings()))
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"


def test_a_link_from_another_site_finds_who_is_logged_in_and_leaves_open_forms_alone(
    world: World, serve_page: Serve, browse: Callable[..., Page]
) -> None:
    world.listing("a", "kitchen", city="Solna")
    world.run()
    token = "edit-token-0123456789"
    url = serve_page(world.settings(web_edit_token=token))
    open_page = browse()
    open_page.goto(f"{url}/login?next=/listing/a")
    open_page.locator("input[name=token]").fill(token)
    open_page.keyboard.press("Enter")
    expect(open_page).to_have_url(f"{url}/listing/a")

    mail = open_page.context.new_page()
    link = f'<a href="{url}/listing/a">look</a>'
    mail.route("http://mail.example/", lambda route: route.fulfill(body=link, content_type="text/html"))
    mail.goto("http://mail.example/")
    mail.get_by_role("link", name="look").click()
    expect(mail).to_have_url(f"{url}/listing/a")

    open_page.get_by_role("button", name="Yes").first.click()
    expect(open_page.get_by_role("button", name="Undo")).to_be_visible()
