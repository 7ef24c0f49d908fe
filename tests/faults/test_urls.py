"""What must not be fetched is refused before a connection, whatever led there; what should work does."""

import asyncio
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from enrich.photos.open import open_transport
from enrich.photos.transport import Paused
from enrich.records import Fetched, PhotoStatus
from tests.faults.conftest import Record
from tests.faults.urls import NAMES, WELCOME, WELCOME_NAMES, names, refused
from tests.support.fetching import PHOTO, settings
from tests.support.photo_server import PhotoServer, redirect

HOST = "127.0.0.3"  # stands for the open internet: the one private address that these tests allow
LEAST = 100
REFUSALS = {PhotoStatus.FORBIDDEN_ADDRESS, PhotoStatus.BAD_URL}
LOCAL = re.compile(r"[0-9a-fx.]+|localhost\.?|.*:.*", re.IGNORECASE)

_connects: list[Any] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _connects is not None:
        _connects.append(arguments[1])


sys.addaudithook(_watch)  # Python has no way to take it off again


@pytest.fixture
def connects() -> Iterator[list[Any]]:
    """Where this process tries to connect to during the test, as Python's audit events tell."""
    global _connects
    _connects = found = []
    yield found
    _connects = None


class Trap:
    """Listens on loopback, IPv4 and IPv6, on one port."""

    def __init__(self) -> None:
        first = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port = first.getsockname()[1]
        second = socket.create_server(("127.0.0.2", self.port), backlog=500)
        third = socket.create_server(("::1", self.port), family=socket.AF_INET6, backlog=500)
        self.sockets = (first, second, third)

    def caught(self) -> int:
        """How many connections came since the last time."""
        count = 0
        for listening in self.sockets:
            listening.setblocking(False)
            while True:
                try:
                    listening.accept()[0].close()
                except BlockingIOError:
                    break
                count += 1
        return count


@pytest.fixture
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    for listening in trap.sockets:
        listening.close()


@pytest.fixture
def host() -> Iterator[PhotoServer]:
    with PhotoServer(HOST) as server:
        yield server
    assert server.errors == []


Dns = Callable[[str, Callable[[], Sequence[str]]], None]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    """`dns(name, answer)`. Names of a real DNS cannot be made up here; what it answers can."""
    known: dict[str, Callable[[], Sequence[str]]] = {}
    real = socket.getaddrinfo

    def answer(name: str, port: int, *rest: Any, **more: Any) -> Any:
        if name in known:
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in known[name]()
            ]
        if LOCAL.fullmatch(name):
            return real(name, port, *rest, **more)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known.__setitem__


def fetch_all(urls: Sequence[str], **changed: Any) -> list[Fetched | Paused]:
    async def go() -> list[Fetched | Paused]:
        chosen = settings(**{"allowed_private_hosts": (HOST,), "fetch_per_host": 200, **changed})
        async with open_transport(chosen) as transport, asyncio.timeout(120):
            return await asyncio.gather(*(transport.fetch(url) for url in urls))

    return asyncio.run(go())


def test_nothing_that_must_not_be_fetched_is(
    trap: Trap, connects: list[Any], dns: Dns, record: Record
) -> None:
    for name, addresses in names().items():
        dns(name, lambda addresses=addresses: addresses)
    urls = refused(trap.port)
    assert len(urls) == len(set(urls)) >= LEAST
    results = fetch_all(urls)
    # A notation that is no address to this system's resolver is a name that nobody has.
    ends = REFUSALS | {PhotoStatus.DNS}
    wrong = {
        url: r
        for url, r in zip(urls, results, strict=True)
        if not isinstance(r, Fetched) or r.status not in ends
    }
    caught = trap.caught()
    escapes = max(caught, len(connects), len(wrong))
    record("urls", "URLs that must not be fetched", len(urls), escapes=escapes)
    assert (caught, connects, wrong) == (0, [], {})
    assert "secret" not in "".join(r.error or "" for r in results if isinstance(r, Fetched))


def test_no_redirect_leads_there_either(
    trap: Trap, connects: list[Any], dns: Dns, host: PhotoServer, record: Record
) -> None:
    for name, addresses in names().items():
        dns(name, lambda addresses=addresses: addresses)
    sendable = [
        url for url in refused(trap.port) if url.strip() and re.fullmatch("[^\x00-\x1f\ud800-\udfff]+", url)
    ]
    urls = [
        host.behave(f"/{number}", redirect(url.encode().decode("latin-1")))
        for number, url in enumerate(sendable)
    ]
    assert len(urls) >= LEAST
    results = fetch_all(urls)
    # A relative one leads back to the host that sent it; a long one is no header.
    back = {PhotoStatus.NOT_FOUND, PhotoStatus.TOO_MANY_REDIRECTS, PhotoStatus.SERVER_ERROR}
    ends = REFUSALS | {PhotoStatus.DNS} | back
    wrong = {
        url: r
        for url, r in zip(sendable, results, strict=True)
        if not isinstance(r, Fetched) or r.status not in ends
    }
    elsewhere = [address for address in connects if address[:2] != (HOST, host.port)]
    caught = trap.caught()
    escapes = max(caught, len(elsewhere), len(wrong))
    record("redirects", "Redirects to them", len(urls), escapes=escapes)
    assert (caught, elsewhere, wrong) == (0, [], {})
    assert len(connects) >= 1


def test_a_name_that_dns_moves_between_check_and_use_is_refused(
    trap: Trap, connects: list[Any], dns: Dns, host: PhotoServer, record: Record
) -> None:
    """The first look-up of a name is fine, the second leads elsewhere: what is connected to counts."""
    urls = []
    for number in range(LEAST):
        later = ("127.0.0.1", "127.0.0.2", "::1", "10.0.0.1")[number % 4]
        answers = iter([[HOST], *[[later]] * 9])
        dns(f"r{number}.example", lambda answers=answers: next(answers))
        # Another port of the same name, so that it is looked up again.
        host.behave(f"/{number}", redirect(f"http://r{number}.example:{trap.port}/"))
        urls.append(f"http://r{number}.example:{host.port}/{number}")
    results = fetch_all(urls)
    assert host.requests() == len(urls)
    wrong = [
        r for r in results if not isinstance(r, Fetched) or r.status is not PhotoStatus.FORBIDDEN_ADDRESS
    ]
    caught = trap.caught()
    elsewhere = [address for address in connects if address[0] != HOST]
    escapes = max(caught, len(elsewhere), len(wrong))
    record("rebinding", "Names that DNS moves between check and use", len(urls), escapes=escapes)
    assert (caught, elsewhere, wrong) == (0, [], [])


def test_the_trap_catches_what_is_allowed_to_go_there(trap: Trap, connects: list[Any], dns: Dns) -> None:
    """Without the guard these tests would see it."""
    dns("loopback.example", lambda: NAMES["loopback.example"])
    urls = [f"http://{host}:{trap.port}/" for host in ("127.0.0.1", "127.0.0.2", "[::1]", "loopback.example")]
    fetch_all(urls, allowed_private_hosts=("127.0.0.0/8", "::1"), fetch_timeout=0.5)
    assert trap.caught() == len(connects) == len(urls)


def test_urls_that_should_work_do(host: PhotoServer, connects: list[Any], dns: Dns, record: Record) -> None:
    for name in WELCOME_NAMES:
        for spelled in (name, name + "."):
            dns(spelled, lambda: [HOST])
    urls = {url.replace("{port}", str(host.port)): asked for url, asked in WELCOME.items()}
    for asked in urls.values():
        host.add(asked.partition("?")[0], PHOTO)
    lost = {}
    for url, asked in urls.items():
        host.forget()
        (result,) = fetch_all([url])
        paths = [request.path for request in host.log]
        if not isinstance(result, Fetched) or result.body != PHOTO or paths != [asked]:
            lost[url] = (result, paths)
    record("welcome", "Odd URLs that must be fetched", len(urls), losses=len(lost))
    assert lost == {}
