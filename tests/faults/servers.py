"""Fixtures: the town, and what stands between the job and its servers."""

from collections.abc import Iterator
from typing import Any

import pytest

from enrich.state.database import parse_url
from enrich.state.schema import metadata
from tests.faults.town import Town, build, documents, prepare_index
from tests.support.harness import World
from tests.support.proxy import Proxy
from tests.support.wire import Wire


@pytest.fixture(scope="session")
def _undisturbed() -> dict[str, dict[str, Any]]:
    """The documents of an undisturbed run by the index's mode, once there was one."""
    return {}


@pytest.fixture
def town(world: World, _undisturbed: dict[str, dict[str, Any]]) -> Town:
    """The town, seen by no run yet."""
    return _town(world, _undisturbed)


@pytest.fixture(params=["own", "merge"])
def town_of_each_mode(
    request: pytest.FixtureRequest, world: World, _undisturbed: dict[str, dict[str, Any]]
) -> Town:
    """The same, with an index of our own, and with the portal's."""
    if request.param == "merge":
        world.fixed |= {"index_mode": "merge", "index_columns": ()}
    return _town(world, _undisturbed)


def _town(world: World, undisturbed: dict[str, dict[str, Any]]) -> Town:
    mode = world.fixed.get("index_mode", "own")
    photos = build(world)
    if mode not in undisturbed:
        prepare_index(world)
        assert world.run().exit_code == 0
        undisturbed[mode] = documents(world)
        tables = ", ".join(table.fullname for table in metadata.sorted_tables)
        world.portal.execute(f"TRUNCATE {tables}")
        world.drop_indices()
        world.photos.forget()
    prepare_index(world)
    return Town(world, photos, undisturbed[mode])


@pytest.fixture
def postgres_wire(town: Town) -> Iterator[Wire]:
    """The job reaches Postgres through it; the test does not."""
    url = parse_url(town.world.portal.url)
    host = url.host or str(url.query.get("host", "127.0.0.1"))
    with Wire(host, url.port or 5432) as wire:
        through = url.set(host="127.0.0.1", port=wire.port, query={})
        town.world.fixed["database_url"] = through.render_as_string(hide_password=False)
        yield wire


@pytest.fixture
def photo_wire(town: Town) -> Iterator[Wire]:
    """The photos are behind it."""
    photos = town.world.photos
    with Wire("127.0.0.1", photos.port) as wire:
        town.world.portal.execute(
            "UPDATE listing_images SET url = replace(url, :old, :new)",
            old=photos.url("/"),
            new=f"http://127.0.0.1:{wire.port}/",
        )
        yield wire


@pytest.fixture
def index_proxy(world: World, elasticsearch_proxy: Proxy) -> Proxy:
    """The job reaches the index through it; the test does not. To be asked for after the town."""
    world.fixed["elasticsearch_url"] = elasticsearch_proxy.url
    return elasticsearch_proxy
