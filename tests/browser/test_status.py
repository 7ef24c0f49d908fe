"""The status page in a real Chromium."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.harness import World
from tests.support.page import DESK, NO_ANSWER, PHONE, Serve, faults, overflow
from tests.support.photo_server import status


@pytest.fixture
def page_of(world: World, serve_page: Serve) -> Callable[[], str]:
    """The status page of a portal with two listings done, one in retry and one in quarantine."""

    def work() -> str:
        for id in ("a", "b", "c", "d"):
            world.listing(id, "kitchen", "balcony", city="Solna")
        world.photos.behave("/d/0.jpg", status(500))
        world.run()
        world.portal.execute(
            "UPDATE enrichment.listing SET status = 'quarantined', error = 'broken' WHERE id = 'c'"
        )
        return serve_page(world.settings()) + "/status"

    return work


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_is_readable_at_any_width(
    page_of: Callable[[], str], browse: Callable[..., Page], axe: str, scheme: str, size: dict[str, int]
) -> None:
    address = page_of()
    tab = browse(viewport=size, color_scheme=scheme)
    tab.goto(address)
    expect(tab.get_by_role("img", name="The pipeline: Postgres 4 listings")).to_be_visible()
    expect(tab.get_by_text("127.0.0.1: server error")).to_be_visible()
    assert overflow(tab) == 0
    assert faults(tab, axe) == []


def test_try_again_and_the_numbers_follow_without_a_click(
    world: World, page_of: Callable[[], str], browse: Callable[..., Page]
) -> None:
    address = page_of()
    tab = browse()
    tab.goto(address)
    quarantine = tab.get_by_role("listitem").filter(has_text="in quarantine")
    expect(quarantine).to_contain_text("1")
    tab.get_by_role("button", name="Try again: c").click()
    expect(tab.get_by_role("status")).to_contain_text("1 listing will be tried again by the next run")
    expect(tab.get_by_text("No listing is in quarantine")).to_be_visible()
    expect(tab.get_by_role("img", name="claim 1 waiting")).to_be_visible()
    assert world.enrich("run").returncode == 0
    expect(tab.get_by_role("img", name="claim 0 waiting")).to_be_visible()


def test_numbers_that_nobody_answers_for_are_not_called_those_of_now(
    page_of: Callable[[], str], browse: Callable[..., Page]
) -> None:
    address = page_of()
    tab = browse(NO_ANSWER)
    tab.goto(address)
    silent = tab.get_by_text("The page gives no answer: these are older numbers.")
    expect(tab.get_by_text("as of now")).to_be_visible()
    expect(silent).to_be_hidden()
    for no_answer in (lambda route: route.fulfill(status=503), lambda route: route.abort()):
        tab.route("**/status", no_answer)
        expect(silent).to_be_visible()
        expect(tab.get_by_text("as of now")).to_be_hidden()
        tab.unroute("**/status")
        expect(silent).to_be_hidden()
        expect(tab.get_by_text("as of now")).to_be_visible()


def test_why_a_run_ended_takes_few_lines(
    world: World, page_of: Callable[[], str], browse: Callable[..., Page]
) -> None:
    address = page_of()
    why = "has_balcony would change on 33 of 48 listings, more than --max-flips 10 allows: look at them first"
    world.portal.execute("UPDATE enrichment.run SET exit_code = 3, error = :why", why=why)
    tab = browse()
    tab.goto(address)
    cell = tab.get_by_role("cell", name=why)
    assert cell.evaluate("one => one.clientWidth") >= 200 and overflow(tab) == 0
