"""Which hosts are asked at all, how many at once, and when not."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from enrich.errors import SettingsError
from enrich.photos.http import HttpTransport
from enrich.photos.transport import Paused
from enrich.records import Fetched, PhotoStatus
from tests.support.fetching import PHOTO, fetch, fetch_all, patiently, settings
from tests.support.photo_server import FINE, Answer, PhotoServer, close_at_once, hang, redirect, status


class TestAddresses:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "LOCALHOST",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0x7f000001",
            "0177.0.0.1",
            "0.0.0.0",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[::1]",
            "[::]",
        ],
    )
    def test_no_way_of_writing_it_reaches_a_private_host(self, photo_server: PhotoServer, host: str) -> None:
        photo_server.add("/a.jpg", PHOTO)
        result = fetch(f"http://{host}:{photo_server.port}/a.jpg", allowed_private_hosts=())
        # Notations that no standard knows are refused as URLs.
        assert result.status in (PhotoStatus.FORBIDDEN_ADDRESS, PhotoStatus.BAD_URL)
        assert photo_server.connections == 0

    @pytest.mark.parametrize(
        "address", ["169.254.169.254", "10.0.0.1", "100.64.0.1", "224.0.0.1", "[fd00::1]"]
    )
    def test_private_addresses_are_refused_before_a_connection(self, address: str) -> None:
        assert fetch(f"http://{address}/a.jpg").status is PhotoStatus.FORBIDDEN_ADDRESS

    def test_ipv6(self) -> None:
        with PhotoServer("::1") as server:
            url = server.add("/a.jpg", PHOTO)
            assert fetch(url).status is PhotoStatus.FORBIDDEN_ADDRESS
            assert server.connections == 0
            assert fetch(url, allowed_private_hosts=("::1",)).body == PHOTO

    def test_an_allowed_name_allows_only_itself_also_under_load(self, photo_server: PhotoServer) -> None:
        photo_server.add("/a.jpg", PHOTO)
        urls = [f"http://{host}:{photo_server.port}/a.jpg" for host in ("localhost", "127.0.0.1") * 50]
        results = fetch_all(*urls, allowed_private_hosts=("localhost",))
        assert [r.status for r in results] == [PhotoStatus.OK, PhotoStatus.FORBIDDEN_ADDRESS] * 50
        assert photo_server.requests() == 50

    @pytest.mark.parametrize(
        ("addresses", "expected"),
        [
            (["127.0.0.2", "127.0.0.1"], PhotoStatus.OK),
            (["127.0.0.2", "127.0.0.3"], PhotoStatus.FORBIDDEN_ADDRESS),
            (["127.0.0.2", "::1", "10.0.0.1"], PhotoStatus.FORBIDDEN_ADDRESS),
        ],
    )
    def test_a_name_with_several_addresses(
        self,
        photo_server: PhotoServer,
        other_server: PhotoServer,
        monkeypatch: pytest.MonkeyPatch,
        addresses: list[str],
        expected: PhotoStatus,
    ) -> None:
        # The names of a real DNS server cannot be made up here; what it answers can.
        def answer(host: str, port: int, *_: object, **__: object) -> list[Any]:
            assert host == "photos.example"
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (a, port, 0, 0))
                if ":" in a
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
                for a in addresses
            ]

        photo_server.add("/a.jpg", PHOTO)
        monkeypatch.setattr(socket, "getaddrinfo", answer)
        result = fetch(f"http://photos.example:{photo_server.port}/a.jpg")
        assert result.status is expected
        assert other_server.connections == 0

    def test_a_proxy_in_the_environment_is_not_used(
        self, photo_server: PhotoServer, other_server: PhotoServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, other_server.url(""))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert fetch(photo_server.add("/a.jpg", PHOTO)).body == PHOTO
        assert other_server.connections == 0


class TestTurns:
    def test_a_throttled_photo_is_asked_again_after_the_pause(self, photo_server: PhotoServer) -> None:
        url = photo_server.add("/a.jpg", PHOTO)
        photo_server.behave("/a.jpg", status(429, Retry_After="1"), status(503, Retry_After="1"), FINE)
        assert fetch(url, fetch_timeout=1.9).body == PHOTO  # its pauses, of 2 s together, do not count
        assert photo_server.requests() == 3

    def test_a_pause_holds_the_host_and_no_other(
        self, photo_server: PhotoServer, other_server: PhotoServer
    ) -> None:
        now, later = status(429, Retry_After="0"), status(429, Retry_After="3")
        throttled = photo_server.behave("/a.jpg", now, now, later)
        waiting = photo_server.add("/b.jpg", PHOTO)

        async def go() -> Fetched:
            allowed = settings(allowed_private_hosts=("127.0.0.0/8",))
            async with HttpTransport(allowed) as fetcher, asyncio.timeout(60):
                assert (await patiently(fetcher, throttled)).status is PhotoStatus.THROTTLED
                second = asyncio.create_task(patiently(fetcher, waiting))
                for _ in range(5):
                    assert (await fetcher.fetch(other_server.add("/a.jpg", PHOTO))).status is PhotoStatus.OK
                assert photo_server.requests("/b.jpg") == 0
                return await second

        assert asyncio.run(go()).body == PHOTO

    @pytest.mark.parametrize("code", [429, 503])
    def test_a_paused_host_is_said_at_once_for_each_of_its_photos(
        self, photo_server: PhotoServer, code: int
    ) -> None:
        together = threading.Barrier(2, timeout=20)

        def refuse(answer: Answer) -> None:
            together.wait()  # so that the others wait for a slot of the host
            status(code, Retry_After="300")(answer)

        urls = [photo_server.behave(f"/{number}.jpg", refuse) for number in range(20)]

        async def go() -> list[Fetched | Paused]:
            async with HttpTransport(settings(fetch_per_host=2)) as fetcher, asyncio.timeout(20):
                return await asyncio.gather(*(fetcher.fetch(url) for url in urls))

        answers = asyncio.run(go())
        assert photo_server.requests() == 2
        assert {isinstance(answer, Paused) and 280 < answer.seconds <= 300 for answer in answers} == {True}
        refusals = [answer.refusal for answer in answers if isinstance(answer, Paused) and answer.refusal]
        ends = PhotoStatus.THROTTLED if code == 429 else PhotoStatus.SERVER_ERROR
        assert [refusal.status for refusal in refusals] == [ends] * 2

    def test_a_pause_of_where_a_photo_was_redirected_to_is_not_its_own_host_s(
        self, photo_server: PhotoServer, other_server: PhotoServer
    ) -> None:
        refusing = other_server.behave("/a.jpg", status(429, Retry_After="300"))
        away = photo_server.behave("/away.jpg", redirect(refusing))
        photo_server.behave("/a.jpg", status(429, Retry_After="300"))
        within = photo_server.behave("/within.jpg", redirect("/a.jpg"))

        async def go() -> list[Fetched | Paused]:
            allowed = settings(allowed_private_hosts=("127.0.0.0/8",))
            async with HttpTransport(allowed) as fetcher, asyncio.timeout(20):
                return [await fetcher.fetch(url) for url in (away, away, refusing, within)]

        told = asyncio.run(go())
        assert [isinstance(answer, Paused) and answer.elsewhere for answer in told] == [
            True,
            True,
            False,
            False,
        ]

    @pytest.mark.parametrize(("limits", "most"), [({"fetch_per_host": 3}, 3), ({"fetch_concurrency": 2}, 2)])
    def test_limits(self, photo_server: PhotoServer, limits: dict[str, int], most: int) -> None:
        together = threading.Barrier(most, timeout=20)

        def answer_together(answer: Answer) -> None:
            together.wait()
            FINE(answer)

        url = photo_server.add("/a.jpg", PHOTO)
        photo_server.behave("/a.jpg", answer_together)
        results = fetch_all(*[url] * 12, **limits)
        assert {r.status for r in results} == {PhotoStatus.OK}
        assert photo_server.busiest == most

    def test_redirects_across_full_hosts_do_not_wait_for_each_other(
        self, photo_server: PhotoServer, other_server: PhotoServer
    ) -> None:
        here = photo_server.behave("/to", redirect(other_server.add("/a.jpg", PHOTO)))
        there = other_server.behave("/to", redirect(photo_server.add("/a.jpg", PHOTO)))
        results = fetch_all(
            *[here, there] * 10,
            fetch_per_host=1,
            fetch_concurrency=2,
            allowed_private_hosts=("127.0.0.0/8",),
        )
        assert {r.body for r in results} == {PHOTO}

    def test_a_cancelled_fetch_gives_its_turn_back(self, photo_server: PhotoServer) -> None:
        url = photo_server.add("/a.jpg", PHOTO)
        arrived = threading.Event()

        def get_stuck(answer: Answer) -> None:
            arrived.set()
            hang()(answer)

        stuck = photo_server.behave("/stuck.jpg", get_stuck)

        async def go() -> Fetched:
            async with HttpTransport(settings(fetch_per_host=1)) as fetcher, asyncio.timeout(60):
                task = asyncio.create_task(fetcher.fetch(stuck))
                assert await asyncio.to_thread(arrived.wait, 30)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return await fetcher.fetch(url)

        assert asyncio.run(go()).body == PHOTO


class TestConnections:
    def test_are_kept(self, photo_server: PhotoServer) -> None:
        photo_server.add("/a.jpg", PHOTO)
        photo_server.behave("/to", redirect("/a.jpg"))

        async def go() -> None:
            async with HttpTransport(settings()) as fetcher:
                for _ in range(5):
                    await fetcher.fetch(photo_server.url("/a.jpg"))
                    await fetcher.fetch(photo_server.url("/to"))
                    await fetcher.fetch(photo_server.url("/missing.jpg"))

        asyncio.run(go())
        assert photo_server.requests() == 20
        assert photo_server.connections == 1

    def test_one_gone_stale_costs_no_photo(self, photo_server: PhotoServer) -> None:
        url = photo_server.add("/a.jpg", PHOTO)
        other = photo_server.add("/b.jpg", PHOTO)
        photo_server.behave("/b.jpg", close_at_once(), FINE)

        async def go() -> list[Fetched]:
            async with HttpTransport(settings()) as fetcher:
                results = [await fetcher.fetch(url), await fetcher.fetch(other)]
                photo_server.drop_connections()
                return [*results, await fetcher.fetch(url)]

        assert {r.status for r in asyncio.run(go())} == {PhotoStatus.OK}

    def test_cookies_are_not_kept(self, photo_server: PhotoServer) -> None:
        photo_server.behave("/a.jpg", status(200, PHOTO, Set_Cookie="id=1; Path=/"))

        async def go() -> None:
            async with HttpTransport(settings()) as fetcher:
                await fetcher.fetch(photo_server.url("/a.jpg"))
                await fetcher.fetch(photo_server.url("/a.jpg"))

        asyncio.run(go())
        assert ["cookie" in request.headers for request in photo_server.log] == [False, False]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"allowed_private_hosts": ("10.0.0.0/99",)}, "ENRICH_ALLOWED_PRIVATE_HOSTS"),
        ({"user_agent": "a\r\nb: c"}, "ENRICH_USER_AGENT"),
    ],
)
def test_settings_that_cannot_be_used(changed: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        HttpTransport(settings(**changed))
