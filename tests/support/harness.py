"""A whole world for acceptance tests: portal, photo host, index and model, and ways to run the job on them.

::

    world.listing("7", "kitchen", "balcony", price=100)   # drawn photos, served, and rows in the portal
    report = world.run()                                   # the nightly run, in this process
    assert world.documents()["7"]["has_balcony"] is True
    assert world.requests() == 2
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import pytest
from elasticsearch import NotFoundError

import migrations
from enrich.settings import Settings, load_settings, variable
from jobs.run.backfill import BackfillOptions, backfill
from jobs.run.nightly import RunOptions, run
from jobs.run.publish import publish
from jobs.run.record import RunReport
from jobs.run.stop import Stop
from tests.support.bundles import draw_bytes, make_bundle
from tests.support.command import enrich_here
from tests.support.elasticsearch import backend_of, client_of
from tests.support.photo_server import PhotoServer
from tests.support.postgres import PORTAL_TABLES, Portal, PostgresServer

CHECKOUT = Path(__file__).parents[2]
T = TypeVar("T")
ENRICH = [sys.executable, "-c", "from jobs.cli.commands import main; main()"]
PATIENCE = 120.0  # seconds that anything may take in a test, on a machine that does much else


class World:
    """One portal with its photo host and its index, and the job's settings for them.

    `fixed` are settings that hold for everything run in this world; a test may change them.
    """

    def __init__(
        self, portal: Portal, photos: PhotoServer, elasticsearch_url: str, index: str, bundle: Path
    ) -> None:
        self.portal, self.photos = portal, photos
        self.index = index
        self.elasticsearch = client_of(elasticsearch_url, request_timeout=30)
        self._started: list[subprocess.Popen[str]] = []
        self.fixed: dict[str, Any] = {
            "database_url": portal.url,
            "elasticsearch_url": elasticsearch_url,
            "index_backend": backend_of(elasticsearch_url),
            "index": index,
            "index_columns": ("city", "price"),
            "bundle": bundle,
            "device": "cpu",
            "precision": "fp32",
            "cache": Path(tempfile.gettempdir()) / "listing-enrichment-tests",
            "decode_threads": 2,
            "allowed_private_hosts": ("127.0.0.0/8",),
            "fetch_timeout": 5.0,
            "log_interval": 1.0,
        }

    # The portal's side

    def photo(self, shows: str, seed: int, path: str | None = None) -> str:
        """Serve a drawn photo (with an ETag) under `path`, or a path of its own; the URL."""
        body = draw_bytes(shows, seed)
        return self.photos.add(path or f"/{shows}-{seed}.jpg", body, etag=f'"{shows}-{seed}"')

    def listing(self, id: str, *shows: str, **columns: Any) -> list[str]:
        """Add a listing with a photo of each kind in `shows` (see `bundles.COLOURS`); the photos' URLs.

        The photos are this listing's own: `/<id>/<position>.jpg`.
        """
        urls = [
            self.photo(kind, seed_of(id, position), f"/{id}/{position}.jpg")
            for position, kind in enumerate(shows)
        ]
        self.portal.add(id, urls, **columns)
        return urls

    def requests(self, path: str | None = None) -> int:
        """Requests at the photo host since the start, or since `photos.forget()`."""
        return self.photos.requests(path)

    # The job

    def settings(self, **overrides: Any) -> Settings:
        """The settings of this world, with some of them (field names) replaced."""
        return load_settings(**{**self.fixed, **overrides})

    def run(self, *, stop: Stop | None = None, settings: Mapping[str, Any] = {}, **options: Any) -> RunReport:
        """The nightly run in this process; `options` as in `RunOptions`, `settings` for this once."""
        return run(self.settings(**settings), RunOptions(**options), stop or Stop())

    def backfill(self, *, settings: Mapping[str, Any] = {}, **options: Any) -> RunReport:
        """The backfill in this process; `options` as `BackfillOptions`."""
        return backfill(self.settings(**settings), BackfillOptions(**options), Stop())

    def publish(self, **settings: Any) -> RunReport:
        return publish(self.settings(**settings), Stop())

    def environment(self, **overrides: Any) -> dict[str, str]:
        """The environment in which the `enrich` command works on this world."""
        surroundings = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ENRICH_", "ELASTICSEARCH_", "DATABASE_", "SOURCE_DATABASE_"))
        }
        given = {**self.fixed, **overrides}
        settings = {variable(name): _text(value) for name, value in given.items() if value is not None}
        return {**surroundings, "OMP_NUM_THREADS": "1", **settings}

    def enrich(self, *arguments: str, **overrides: Any) -> "subprocess.CompletedProcess[str]":
        """Run the `enrich` command to its end, whatever its exit code."""
        return self.script(ENRICH[-1], *arguments, **overrides)

    def enrich_here(self, *arguments: str, **overrides: Any) -> "subprocess.CompletedProcess[str]":
        """The same inside this process, without the start-up: where only what it says and does is asked."""
        return enrich_here(self.environment(**overrides), *arguments)

    def script(self, code: str, *arguments: str, **overrides: Any) -> "subprocess.CompletedProcess[str]":
        """The same with Python code in the command's place, which may change things before it calls it."""
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=CHECKOUT,
            env=self.environment(**overrides),
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
        )

    def start(
        self, *arguments: str, program: Sequence[str] = ENRICH, **overrides: Any
    ) -> "subprocess.Popen[str]":
        """Start the `enrich` command, or another program; killed with the world where it still runs then."""
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=CHECKOUT,
            env=self.environment(**overrides),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        self._started.append(process)
        return process

    # The index

    def documents(self) -> dict[str, dict[str, Any]]:
        """All documents by id, without what may differ between the same documents (revision, enriched_at)."""
        found = {}
        for hit in self._hits():
            document = hit["_source"]
            for name in ("revision", "enriched_at"):
                (document.get("enrichment") or {}).pop(name, None)
            found[hit["_id"]] = document
        return found

    def versions(self) -> dict[str, tuple[int, int]]:
        """Of all documents (_version, _seq_no): any write to a document moves them."""
        return {hit["_id"]: (hit["_version"], hit["_seq_no"]) for hit in self._hits()}

    def writes(self) -> int:
        """Documents written and deleted at the index since it was created, whatever became of them."""
        figures = self.elasticsearch.indices.stats(index=self.index, metric="indexing")["_all"]["primaries"]
        return sum(figures["indexing"][name] for name in ("index_total", "index_failed", "delete_total"))

    def matching(self, *filters: Mapping[str, Any]) -> set[str]:
        """Ids of the documents that match all of these filters (Elasticsearch queries)."""
        query = {"bool": {"filter": list(filters)}}
        return {hit["_id"] for hit in self._hits(query)}

    def drop_indices(self) -> None:
        """Remove whatever is in the index of this world, as if it had never been."""
        for name in self.elasticsearch.indices.get(index=f"{self.index}*", expand_wildcards="all"):
            self.elasticsearch.indices.delete(index=name, ignore_unavailable=True)

    def _hits(self, query: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        try:
            self.elasticsearch.indices.refresh(index=self.index)
            answer = self.elasticsearch.search(
                index=self.index,
                query=query or {"match_all": {}},
                size=10_000,
                version=True,
                seq_no_primary_term=True,
            )
        except NotFoundError:
            return []
        hits: list[dict[str, Any]] = answer["hits"]["hits"]
        return hits

    # Our state

    def statuses(self) -> dict[str, str]:
        """Listing id -> status in our state."""
        rows = self.portal.execute("SELECT id, status FROM enrichment.listing")
        return {row.id: row.status for row in rows}

    def photo_statuses(self, id: str) -> list[str]:
        """The statuses of a listing's photos, by position."""
        photos = sorted(self.portal.state(id).photos, key=lambda photo: photo["position"])
        return [photo["status"] for photo in photos]

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()
        self.drop_indices()
        self.elasticsearch.close()


def seed_of(id: str, position: int) -> int:
    """A seed of its own for each photo of each listing, the same every time."""
    return crc32(f"{id}/{position}".encode())


def until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Poll until `condition()` is true, and answer it; fail the test when it does not come true."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience:.0f} s in vain until {what}")
        time.sleep(0.02)
    return found


def assert_same(found: Any, expected: Any, path: str = "") -> None:
    """Assert that two trees of documents are the same: equal, but confidences within 0.002."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), f"at {path or '/'}"
        for name in expected:
            assert_same(found[name], expected[name], f"{path}/{name}")
    elif path.endswith("confidence") and isinstance(found, float) and isinstance(expected, float):
        assert abs(found - expected) <= 0.002, f"at {path}: {found} is not {expected}"
    else:
        assert found == expected, f"at {path or '/'}"


def _text(value: Any) -> str:
    """A setting as it is written in the environment."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundle that recognises drawn photos."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    make_bundle(folder)
    return folder


@pytest.fixture
def world(
    migrated: Portal, photo_server: PhotoServer, elasticsearch_url: str, index_name: str, tiny_bundle: Path
) -> Iterator[World]:
    """An empty portal with our schema, a photo host, an index not made yet, and the tiny bundle."""
    world = World(migrated, photo_server, elasticsearch_url, index_name, tiny_bundle)
    yield world
    world.close()


@pytest.fixture
def world_of_each_version(
    migrated: Portal,
    photo_server: PhotoServer,
    each_server: str,
    index_name: str,
    tiny_bundle: Path,
) -> Iterator[World]:
    """As `world`, on every search server."""
    world = World(migrated, photo_server, each_server, index_name, tiny_bundle)
    yield world
    world.close()


@pytest.fixture
def on_own_postgres(
    postgres_server: PostgresServer,
    photo_server: PhotoServer,
    elasticsearch_url: str,
    index_name: str,
    tiny_bundle: Path,
) -> Iterator[World]:
    """A world on a Postgres that the test may kill."""
    portal = Portal(postgres_server.url)
    portal.execute(PORTAL_TABLES)
    migrations.upgrade(portal.url)
    world = World(portal, photo_server, elasticsearch_url, index_name, tiny_bundle)
    yield world
    world.close()
    portal.engine.dispose()
