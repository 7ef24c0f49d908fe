"""Each thing a photo host can answer, done by a real server, ends in its named status."""

import asyncio
import gzip
import hashlib
import re
import socket
from pathlib import Path

import pytest
import trustme

from enrich.photos.http import HttpTransport
from enrich.records import Fetched, PhotoStatus, Validators
from tests.support.fetching import CAP, PHOTO, fetch, settings
from tests.support.photo_server import (
    FINE,
    Answer,
    PhotoServer,
    Step,
    close_at_once,
    drip,
    endless,
    hang,
    lying,
    raw,
    redirect,
    status,
)
from tests.support.tls import TlsProxy


def test_a_photo(photo_server: PhotoServer) -> None:
    url = photo_server.add("/a.jpg", PHOTO, etag='"1"', last_modified="Sun, 01 Mar 2026 12:00:00 GMT")
    assert fetch(url + "?sig=a%2Fb#part", user_agent="portal/2") == Fetched(
        PhotoStatus.OK,
        body=PHOTO,
        sha256=hashlib.sha256(PHOTO).hexdigest(),
        validators=Validators('"1"', "Sun, 01 Mar 2026 12:00:00 GMT"),
        bytes_read=len(PHOTO),
    )
    (request,) = photo_server.log
    assert (request.method, request.path) == ("GET", "/a.jpg?sig=a%2Fb")
    assert request.headers["user-agent"] == "portal/2"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer", "if-none-match"} & request.headers.keys()


def test_a_folder_of_photos(photo_server: PhotoServer, tmp_path: Path) -> None:
    (tmp_path / "home 1").mkdir()
    (tmp_path / "home 1" / "1.jpg").write_bytes(PHOTO)
    base = photo_server.serve_folder(tmp_path, "/photos")
    (tmp_path / "home1.jpg").write_bytes(PHOTO)
    first = fetch(f"{base}/home1.jpg")
    assert first.body == PHOTO
    assert fetch(f"{base}/home1.jpg", first.validators).status is PhotoStatus.UNCHANGED


@pytest.mark.parametrize(
    ("step", "expected", "requests"),
    [
        (status(404), PhotoStatus.NOT_FOUND, 1),
        (status(410), PhotoStatus.GONE, 1),
        (status(401), PhotoStatus.REFUSED, 1),
        (status(403, b"no"), PhotoStatus.REFUSED, 1),
        (status(418), PhotoStatus.REFUSED, 1),
        (status(408), PhotoStatus.TIMEOUT, 1),
        (status(429, Retry_After="0"), PhotoStatus.THROTTLED, 3),
        (status(500), PhotoStatus.SERVER_ERROR, 1),
        (status(503), PhotoStatus.SERVER_ERROR, 1),
        (status(503, Retry_After="soon"), PhotoStatus.SERVER_ERROR, 1),
        (status(503, Retry_After="0"), PhotoStatus.SERVER_ERROR, 3),
        (status(304), PhotoStatus.SERVER_ERROR, 1),  # nobody asked for a condition
        (status(302), PhotoStatus.SERVER_ERROR, 1),  # to nowhere
        (status(300), PhotoStatus.SERVER_ERROR, 1),
        (status(200), PhotoStatus.EMPTY, 1),
        (status(204), PhotoStatus.EMPTY, 1),
        (lying(PHOTO, declared=len(PHOTO) + 1), PhotoStatus.CONNECTION_LOST, 1),
        (lying(b"", declared=10), PhotoStatus.CONNECTION_LOST, 1),
        (lying(PHOTO, declared=CAP + 1), PhotoStatus.TOO_MANY_BYTES, 1),
        (lying(PHOTO, declared=10**15), PhotoStatus.TOO_MANY_BYTES, 1),
        (endless(), PhotoStatus.TOO_MANY_BYTES, 1),
        (close_at_once(), PhotoStatus.CONNECTION_LOST, 2),  # might have been a connection gone stale
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), PhotoStatus.SERVER_ERROR, 1),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * CAP + b"\r\n\r\n"), PhotoStatus.SERVER_ERROR, 1),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * CAP + b"\r\n"), PhotoStatus.SERVER_ERROR, 1),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcde"), PhotoStatus.SERVER_ERROR, 1),
    ],
)
def test_bad_answers(photo_server: PhotoServer, step: Step, expected: PhotoStatus, requests: int) -> None:
    result = fetch(photo_server.behave("/a.jpg", step) + "?token=SECRET")
    assert (result.status, result.body, result.sha256) == (expected, None, None)
    assert photo_server.requests("/a.jpg") == requests
    assert result.bytes_read < 20 * CAP
    assert result.error
    assert "SECRET" not in result.error


@pytest.mark.parametrize(
    "answer",
    [
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
    ],
)
def test_garbled_bodies(photo_server: PhotoServer, answer: bytes) -> None:
    result = fetch(photo_server.behave("/a.jpg", raw(b"HTTP/1.1 200 OK\r\n" + answer)))
    # Noticed with the headers or after them, as the packets happen to come.
    assert result.status in (PhotoStatus.SERVER_ERROR, PhotoStatus.CONNECTION_LOST)


@pytest.mark.parametrize("step", [hang(), drip()])
def test_slow_answers(photo_server: PhotoServer, step: Step) -> None:
    result = fetch(photo_server.behave("/a.jpg", step), fetch_timeout=0.5)
    assert result.status is PhotoStatus.TIMEOUT
    assert result.error == "127.0.0.1: not done within 0.5 s"


def test_the_deadline_covers_all_redirects_together(photo_server: PhotoServer) -> None:
    def slowly_back(answer: Answer) -> None:
        photo_server.stopping.wait(0.3)
        redirect("/a.jpg")(answer)

    url = photo_server.behave("/a.jpg", slowly_back)
    assert fetch(url, fetch_timeout=1.0, fetch_max_redirects=20).status is PhotoStatus.TIMEOUT


@pytest.mark.parametrize("step", [status(404), status(500), hang(), close_at_once()])
def test_what_passes_comes_right_at_the_next_try(photo_server: PhotoServer, step: Step) -> None:
    url = photo_server.add("/a.jpg", PHOTO)
    photo_server.behave("/a.jpg", step)
    assert all(fetch(url, fetch_timeout=0.5).status.transient() for _ in range(2))
    photo_server.behave("/a.jpg", FINE)
    assert fetch(url).body == PHOTO


def test_exactly_the_cap_is_not_too_much(photo_server: PhotoServer) -> None:
    assert fetch(photo_server.add("/a.jpg", PHOTO), fetch_max_bytes=len(PHOTO)).body == PHOTO
    too_small = fetch(photo_server.url("/a.jpg"), fetch_max_bytes=len(PHOTO) - 1)
    assert (too_small.status, too_small.bytes_read) == (PhotoStatus.TOO_MANY_BYTES, 0)


def test_a_body_that_was_compressed_all_the_same(photo_server: PhotoServer) -> None:
    photo_server.behave("/a.jpg", status(200, gzip.compress(PHOTO), Content_Encoding="gzip"))
    assert fetch(photo_server.url("/a.jpg")).body == PHOTO
    photo_server.behave("/a.jpg", status(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"))
    bomb = fetch(photo_server.url("/a.jpg"))
    assert bomb.status is PhotoStatus.TOO_MANY_BYTES
    assert bomb.bytes_read < 20 * CAP


def test_bytes_after_the_body_do_not_end_up_in_the_next_photo(photo_server: PhotoServer) -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10240\r\n\r\n" + PHOTO + extra
    photo_server.behave("/a.jpg", raw(answer, then_close=False))
    photo_server.add("/b.jpg", PHOTO[::-1])

    async def go() -> tuple[Fetched, Fetched]:
        async with HttpTransport(settings()) as fetcher:
            return await fetcher.fetch(photo_server.url("/a.jpg")), await fetcher.fetch(
                photo_server.url("/b.jpg")
            )

    first, second = asyncio.run(go())
    assert first.body == PHOTO
    assert second.body == PHOTO[::-1]


class TestConditions:
    def test_unchanged(self, photo_server: PhotoServer) -> None:
        url = photo_server.add("/a.jpg", PHOTO, etag='"1"', last_modified="Sun, 01 Mar 2026 12:00:00 GMT")
        known = fetch(url).validators
        assert fetch(url, known) == Fetched(PhotoStatus.UNCHANGED, validators=known)
        assert fetch(url, Validators(None, known.last_modified)).status is PhotoStatus.UNCHANGED
        assert photo_server.log[-1].headers["if-modified-since"] == known.last_modified

    def test_changed(self, photo_server: PhotoServer) -> None:
        url = photo_server.add("/a.jpg", PHOTO, etag='"1"')
        known = fetch(url).validators
        photo_server.add("/a.jpg", PHOTO[::-1], etag='"2"')
        result = fetch(url, known)
        assert (result.body, result.validators) == (PHOTO[::-1], Validators('"2"'))

    def test_no_known_validators_no_condition(self, photo_server: PhotoServer) -> None:
        url = photo_server.add("/a.jpg", PHOTO, etag='"1"')
        assert fetch(url, Validators()).body == PHOTO

    def test_an_unchanged_photo_without_validators_in_the_answer_keeps_those_known(
        self, photo_server: PhotoServer
    ) -> None:
        url = photo_server.behave("/a.jpg", status(304))
        assert fetch(url, Validators('"1"')).validators == Validators('"1"')

    @pytest.mark.parametrize("etag", ["x" * 600, "\xe9", "\xc3\xa9"])
    def test_validators_that_cannot_be_stored_are_dropped(self, photo_server: PhotoServer, etag: str) -> None:
        result = fetch(photo_server.add("/a.jpg", PHOTO, etag=etag))
        assert (result.status, result.validators) == (PhotoStatus.OK, Validators())

    def test_validators_go_along_with_a_redirect(self, photo_server: PhotoServer) -> None:
        photo_server.add("/b.jpg", PHOTO, etag='"1"')
        url = photo_server.behave("/a.jpg", redirect("/b.jpg"))
        assert fetch(url, fetch(url).validators).status is PhotoStatus.UNCHANGED

    def test_a_date_does_not(self, photo_server: PhotoServer) -> None:
        """A host takes every file that is no newer for the one that is known, also one at another URL."""
        url = photo_server.add("/a.jpg", PHOTO, last_modified="Sun, 01 Mar 2026 12:00:00 GMT")
        known = fetch(url).validators
        photo_server.add("/b.jpg", PHOTO[::-1], last_modified="Sun, 01 Feb 2026 12:00:00 GMT")
        photo_server.behave("/a.jpg", redirect("/b.jpg"))
        result = fetch(url, known)
        assert (result.body, result.validators) == (PHOTO[::-1], Validators())


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "photo.jpg",
            "ftp://h/a",
            "file:///etc/passwd",
            "http://h:99999/",
            "http://a b/",
            "http://u:SECRET@h/",
        ],
    )
    def test_bad_urls(self, url: str) -> None:
        result = fetch(url)
        assert result.status is PhotoStatus.BAD_URL
        assert result.error and "SECRET" not in result.error

    def test_a_name_that_does_not_exist(self) -> None:
        assert fetch("http://no-such-host.invalid/a.jpg").status is PhotoStatus.DNS

    def test_nobody_listens(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            assert fetch(f"http://127.0.0.1:{port}/a.jpg").status is PhotoStatus.CONNECT

    def test_nobody_accepts(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            queued = [socket.socket() for _ in range(8)]
            for sock in queued:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}/a.jpg"
            result = fetch(url, fetch_connect_timeout=0.3, fetch_timeout=2)
            for sock in queued:
                sock.close()
        assert result.status is PhotoStatus.CONNECT

    def test_no_tls_where_https_is_asked(self, photo_server: PhotoServer) -> None:
        url = photo_server.add("/a.jpg", PHOTO).replace("http:", "https:")
        result = fetch(url)
        assert result.status is PhotoStatus.CONNECT
        assert re.search(r"^127\.0\.0\.1: no TLS connection \(.*(record|version)", str(result.error), re.I)

    def test_a_certificate_that_nobody_trusts(self, photo_server: PhotoServer) -> None:
        photo_server.add("/a.jpg", PHOTO)
        proxy = TlsProxy(trustme.CA(), ("127.0.0.1", photo_server.port), name="127.0.0.1")
        result = fetch(f"https://127.0.0.1:{proxy.port}/a.jpg")
        proxy.close()
        assert result.status is PhotoStatus.CONNECT
        assert re.fullmatch(r"127\.0\.0\.1: no TLS connection \(.*certificate.*\)", str(result.error))


class TestRedirects:
    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_followed(self, photo_server: PhotoServer, code: int) -> None:
        photo_server.add("/b.jpg", PHOTO)
        photo_server.behave("/x/a.jpg", redirect("../b.jpg?s=%2F", code))
        assert fetch(photo_server.url("/x/a.jpg")).body == PHOTO
        assert photo_server.log[-1].path == "/b.jpg?s=%2F"

    def test_to_another_host(self, photo_server: PhotoServer, other_server: PhotoServer) -> None:
        url = photo_server.behave("/a.jpg", redirect(other_server.add("/a.jpg", PHOTO)))
        assert fetch(url, allowed_private_hosts=("127.0.0.0/8",)).body == PHOTO

    def test_loop(self, photo_server: PhotoServer) -> None:
        url = photo_server.behave("/a.jpg", redirect("/a.jpg"))
        assert fetch(url, fetch_max_redirects=3).status is PhotoStatus.TOO_MANY_REDIRECTS
        assert photo_server.requests() == 4

    def test_as_many_as_allowed(self, photo_server: PhotoServer) -> None:
        photo_server.add("/2", PHOTO)
        photo_server.behave("/0", redirect("/1"))
        photo_server.behave("/1", redirect("/2"))
        assert fetch(photo_server.url("/0"), fetch_max_redirects=2).body == PHOTO
        assert fetch(photo_server.url("/0"), fetch_max_redirects=1).status is PhotoStatus.TOO_MANY_REDIRECTS

    def test_to_a_private_address(self, photo_server: PhotoServer, other_server: PhotoServer) -> None:
        url = photo_server.behave("/a.jpg", redirect(other_server.url("/a.jpg?token=SECRET")))
        result = fetch(url)
        assert result.status is PhotoStatus.FORBIDDEN_ADDRESS
        assert result.error == "127.0.0.2 is neither public nor in ENRICH_ALLOWED_PRIVATE_HOSTS"
        assert other_server.connections == 0

    @pytest.mark.parametrize(
        "location", ["file:///etc/passwd", "http://u:SECRET@h/", "http://h:99999/", "http://[SECRET]@/"]
    )
    def test_to_a_bad_url(self, photo_server: PhotoServer, location: str) -> None:
        result = fetch(photo_server.behave("/a.jpg", redirect(location)))
        assert result.status is PhotoStatus.BAD_URL
        assert result.error and "SECRET" not in result.error
