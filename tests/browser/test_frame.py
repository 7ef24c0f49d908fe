"""The frame of every page, in a real Chromium."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

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
