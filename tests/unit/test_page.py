"""Who may come in to the page, what an address asks for, and the folder of photos: without a server."""

import io
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import Request
from PIL import Image
from starlette.datastructures import QueryParams

from enrich.errors import SettingsError, UsageError
from enrich.index.protocol import Query
from enrich.settings import load_settings
from jobs.views import cell
from jobs.web.access import COOKIE, FORM_COOKIE, Access, Visitor, form_token, same_origin
from jobs.web.asking import PER_PAGE, read, written
from jobs.web.photos import SIZES, Folder, Shown, thumbnails
from jobs.web.rendering import answered, listing_link, web_link
from tests.support.bundles import draw, draw_bytes
from tests.support.command import enrich_here

VIEW, EDIT = "view-token-0123456789", "edit-token-0123456789"
ANYWHERE = "0.0.0.0"
PROXIED: dict[str, Any] = {
    "web_trusted_header": "X-User",
    "web_trusted_proxies": ("10.0.0.0/8",),
    "web_editors": ("eva",),
}


def access(address: str = "127.0.0.1", **settings: Any) -> Access:
    return Access(load_settings(**settings), address)


def request(
    host: str = "localhost:8080", peer: str = "127.0.0.1", path: str = "/", **headers: str
) -> Request:
    given = {"host": host, **{name.replace("_", "-").lower(): value for name, value in headers.items()}}
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 8080),
            "client": (peer, 5000),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
    )


# Who may come in


def test_on_this_machine_everybody_may_edit_and_elsewhere_nobody_comes_in_unsaid() -> None:
    assert access().visitor(request()) == Visitor(edits=True)
    for address in (ANYWHERE, "::", "192.168.1.5", "page.example"):
        with pytest.raises(SettingsError, match="set ENRICH_WEB_EDIT_TOKEN"):
            access(address)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"web_token": "short"}, "ENRICH_WEB_TOKEN is shorter than 16 signs"),
        ({"web_token": VIEW, "web_edit_token": VIEW}, "are the same"),
        ({"web_trusted_header": "X-User"}, "name the proxies"),
        ({**PROXIED, "web_trusted_proxies": ("somewhere",)}, "'somewhere' is no address"),
    ],
)
def test_settings_that_let_in_whoever_likes_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        access(ANYWHERE, **settings)


def test_a_token_lets_in_by_header_and_by_cookie_in_its_role_only() -> None:
    site = access(ANYWHERE, web_token=VIEW, web_edit_token=EDIT)
    assert site.visitor(request()) is None
    assert site.visitor(request(authorization=f"Bearer {VIEW}")) == Visitor(edits=False, bearer=True)
    assert site.visitor(request(authorization=f"bearer {EDIT}")) == Visitor(edits=True, bearer=True)
    assert site.visitor(request(authorization="Bearer äöü")) is None
    assert site.visitor(request(authorization=f"Basic {EDIT}")) is None
    assert site.log_in("wrong") is None
    cookie = site.log_in(VIEW)
    assert cookie is not None and VIEW not in cookie
    assert site.visitor(request(cookie=f"{COOKIE}={cookie}")) == Visitor(edits=False)
    forged = cookie.replace("view", "edit")
    later = cookie.replace(cookie.split(".")[1], str(int(time.time()) + 10**8))
    for wrong in (forged, later, cookie[:-1], "view..", "edit.9.", ".", "x" * 5000, "view.٣.a"):
        assert site.visitor(request(cookie=f"{COOKIE}={wrong}")) is None, wrong
    other = access(ANYWHERE, web_token="another-token-0123456789")
    assert other.visitor(request(cookie=f"{COOKIE}={cookie}")) is None


def test_a_login_ends_after_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    site = access(ANYWHERE, web_token=VIEW)
    cookie = site.log_in(VIEW)
    monkeypatch.setattr("jobs.web.access.STAYS", -1)
    ended = site.log_in(VIEW)
    assert site.visitor(request(cookie=f"{COOKIE}={cookie}")) is not None
    assert site.visitor(request(cookie=f"{COOKIE}={ended}")) is None


def test_a_header_is_believed_from_the_named_proxies_only() -> None:
    site = access(ANYWHERE, **PROXIED)
    assert site.visitor(request(peer="10.1.2.3", X_User="eva")) == Visitor(True, "eva")
    assert site.visitor(request(peer="10.1.2.3", X_User="olof")) == Visitor(False, "olof")
    assert site.visitor(request(peer="10.1.2.3")) is None
    assert site.visitor(request(peer="11.1.2.3", X_User="eva")) is None
    twice = request(peer="10.1.2.3", X_User="eva")
    twice.scope["headers"].append((b"x-user", b"olof"))
    assert site.visitor(Request(twice.scope)) is None
    everybody = access(ANYWHERE, **{**PROXIED, "web_editors": ("*",)})
    assert everybody.visitor(request(peer="10.1.2.3", X_User="olof")) == Visitor(True, "olof")


def test_the_user_of_a_proxy_may_have_a_name_in_any_script() -> None:
    site = access(ANYWHERE, **{**PROXIED, "web_editors": ("åsa",)})
    assert site.visitor(request(peer="10.1.2.3", X_User="åsa")) == Visitor(True, "åsa")
    older = request(peer="10.1.2.3")
    older.scope["headers"].append((b"x-user", "åsa".encode("latin-1")))
    assert site.visitor(Request(older.scope)) == Visitor(True, "åsa")


def test_a_proxy_is_known_by_its_ipv4_address_where_the_page_listens_for_both() -> None:
    site = access("::", **PROXIED)
    assert site.visitor(request(peer="::ffff:10.1.2.3", X_User="eva")) == Visitor(True, "eva")
    assert site.visitor(request(peer="::ffff:11.1.2.3", X_User="eva")) is None
    assert site.visitor(request(peer="::a01:203", X_User="eva")) is None


def test_whether_anybody_may_edit_is_known() -> None:
    assert access(ANYWHERE, web_token=VIEW).nobody_edits
    assert not access(ANYWHERE, web_token=VIEW, web_edit_token=EDIT).nobody_edits
    assert access(ANYWHERE, **{**PROXIED, "web_editors": ()}).nobody_edits
    assert not access().nobody_edits


def test_on_this_machine_the_page_answers_to_its_own_names_only() -> None:
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:9", "[::1]:8080"):
        assert access().knows_host(request(host))
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", ""):
        assert not access().knows_host(request(host))
    assert access(web_hosts=("page.example",)).knows_host(request("page.example"))
    tokened = access(ANYWHERE, web_token=VIEW)
    assert tokened.knows_host(request("page.example"))  # who has no token gets nothing by any name
    named = access(ANYWHERE, web_token=VIEW, web_hosts=("page.example",))
    assert not named.knows_host(request("other.example"))
    assert named.knows_host(request("10.0.0.7:8080", path="/healthz"))  # as a container is asked


def test_only_a_page_of_ours_sends_forms() -> None:
    assert same_origin(request(sec_fetch_site="same-origin"))
    for site in ("cross-site", "same-site", "none"):
        assert not same_origin(request(sec_fetch_site=site, origin="http://localhost:8080"))
    assert same_origin(request(origin="http://localhost:8080"))
    for origin in ("null", "http://evil.example", "http://localhost:9090", "http://localhost"):
        assert not same_origin(request(origin=origin))
    assert not same_origin(request())


def test_a_form_token_is_the_cookie_s_or_new() -> None:
    known = form_token(request())
    assert form_token(request(cookie=f"{FORM_COOKIE}={known}")) == known
    assert form_token(request()) != known
    assert form_token(request(cookie=f"{FORM_COOKIE}=<script>")) != "<script>"


def test_enrich_serve_refuses_what_anybody_could_enter_and_a_port_that_is_taken(tmp_path: Path) -> None:
    environment = {"ENRICH_EMBEDDED": "true", "ENRICH_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    refused = enrich_here(environment, "serve", "--host", ANYWHERE)
    assert refused.returncode == 2 and "anybody who reaches it could come in" in refused.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = enrich_here(environment, "serve", "--port", str(taken.getsockname()[1]))
    assert busy.returncode == 2 and "choose another --port" in busy.stderr


def test_enrich_serve_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.web.serving.find_spec", lambda name: None)
    for command in (["serve"], ["demo", "--serve"]):
        done = enrich_here({"ENRICH_EMBEDDED": "true"}, *command)
        assert done.returncode == 2 and "pip install 'listing-enrichment[web]'" in done.stderr


# What an address asks for


@pytest.mark.parametrize(
    ("address", "query"),
    [
        ("", Query()),
        ("has.balcony=any&where.city=&from.price=&sort=", Query()),
        ("has.a=yes&has.b=no&has.c=unknown", Query(("a",), lacks=("b",), unknown=("c",))),
        ("type.room=hall&type.room=attic&type.room=hall", Query(types={"room": ("hall", "attic")})),
        ("where.city=any", Query(where={"city": "any"})),
        ("where.city=+Solna++&where.town=+&where.area=", Query(where={"city": " Solna  "})),
        ("where.city=Malm%C3%B6+C%26A", Query(where={"city": "Malmö C&A"})),
        ("from.price=1+000&to.price=2.5", Query(between={"price": (1000, 2.5)})),
        ("from.price=2,5&to.price=3+500,25", Query(between={"price": (2.5, 3500.25)})),
        ("to.rooms=3", Query(between={"rooms": (None, 3)})),
        ("sort=balcony&page=3&unknown=1", Query(sort="balcony", offset=2 * PER_PAGE)),
    ],
)  # fmt: skip
def test_an_address_is_a_query_and_a_query_an_address(address: str, query: Query) -> None:
    expected = replace(query, limit=PER_PAGE)
    assert read(QueryParams(address)) == expected
    assert read(QueryParams(written(expected).removeprefix("?"))) == expected


@pytest.mark.parametrize(
    "address",
    [
        "has.balcony=maybe",
        "from.price=cheap",
        "from.price=2,500",
        "from.price=1.0,5",
        "to.price=nan",
        "page=0",
        "page=-1",
        "page=x",
        "page=999999",
    ],
)
def test_an_address_that_says_nothing_sensible_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match=address.partition("=")[0]):
        read(QueryParams(address))


# What is shown


def test_ids_of_any_kind_have_an_address_that_a_browser_leaves_alone() -> None:
    assert listing_link("a/../b?x=1#y") == "/listing/a%2F..%2Fb%3Fx%3D1%23y"
    for odd in (".", "..", "a\nb"):
        assert listing_link(odd).startswith("/listing/?id=")


def test_only_addresses_of_the_web_are_links() -> None:
    assert web_link("https://photos.example/1.jpg") == "https://photos.example/1.jpg"
    scripts = ("javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", " javascript:alert(1)")
    for url in (*scripts, "file:///etc/passwd", "//x", "http://[", ""):
        assert web_link(url) is None


def test_values_and_answers_are_said_in_words() -> None:
    assert [cell(value) for value in (None, True, ["a", "b"], {"lat": 1, "lon": 2}, 4350000, 7)] == [
        "", "yes", "a, b", "1, 2", "4,350,000", "7"
    ]  # fmt: skip
    assert [answered(text) for text in ("✓ 0.97", "✗ 0.01", "?", "-", "living_room ×2, kitchen")] == [
        "yes 0.97", "no 0.01", "unknown", "none", "living room ×2, kitchen"
    ]  # fmt: skip


# Photos


def test_thumbnails_are_new_jpegs_that_fit_and_carry_nothing_else() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where it was taken"
    draw("balcony", size=(3000, 1500)).save(file, "JPEG", exif=exif, comment=b"secret")
    made = thumbnails(file.getvalue(), 100_000_000)
    assert isinstance(made, dict)
    small, large = (Image.open(io.BytesIO(made[size])) for size in SIZES)
    assert small.size == (160, 320) and large.size == (640, 1280)  # upright
    assert not small.getexif() and b"secret" not in made[320] and b"taken" not in made[320]
    tiny = thumbnails(draw_bytes("kitchen", size=(64, 48)), 100_000_000)
    assert isinstance(tiny, dict) and Image.open(io.BytesIO(tiny[1280])).size == (64, 48)
    difference = np.asarray(Image.open(io.BytesIO(tiny[320])), int) - np.asarray(
        draw("kitchen", size=(64, 48)), int
    )
    assert abs(difference).mean() < 6


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", draw_bytes("kitchen")[:200]])
def test_what_is_no_photo_is_not_passed_on(data: bytes) -> None:
    assert isinstance(shown := thumbnails(data, 100_000_000), Shown) and shown.status == 404 and shown.reason
    assert isinstance(thumbnails(draw_bytes("kitchen"), 100), Shown)


def name(number: int) -> str:
    return f"{number:040x}-{number:016x}-320.jpg"


def test_the_folder_stays_below_its_bound_and_what_was_not_read_for_longest_goes(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"x" * 2000)  # not the page's to remove
    folder = Folder(tmp_path, 1000)
    for number in range(9):
        folder.write(name(number), bytes(100))
        os.utime(tmp_path / name(number), ns=(number, number))
    assert folder.read(name(0)) == bytes(100)  # now the one that was read last
    for number in (9, 10):
        folder.write(name(number), bytes(100))
    kept = {path.name for path in tmp_path.iterdir()} - {"mine.jpg"}
    assert kept == {name(number) for number in (0, 3, 4, 5, 6, 7, 8, 9, 10)}
    assert folder.read(name(1)) is None
    assert (tmp_path / "mine.jpg").exists()
    again = Folder(tmp_path, 300)  # as another process finds it, with less room
    again.write(name(11), bytes(100))
    assert sum(path.stat().st_size for path in tmp_path.glob("*-320.jpg")) <= 300


def test_what_another_process_takes_away_while_it_is_read_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, 1000)
    folder.write(name(1), b"one")
    read_bytes = Path.read_bytes

    def taken_away(path: Path) -> bytes:
        data = read_bytes(path)
        path.unlink()
        return data

    monkeypatch.setattr(Path, "read_bytes", taken_away)
    assert folder.read(name(1)) == b"one" and not list(tmp_path.iterdir())


def test_two_processes_may_write_the_same_photo_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = Folder(tmp_path, 1000), Folder(tmp_path, 1000)
    replace_ = Path.replace

    def meanwhile(part: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace_)
        other.write(name(1), b"other")
        return replace_(part, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    one.write(name(1), b"one")
    assert one.read(name(1)) == b"one" and caplog.text == ""
    assert [path.name for path in tmp_path.iterdir()] == [name(1)]


def test_a_folder_that_cannot_be_used_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="set ENRICH_PHOTO_CACHE"):
        Folder(tmp_path / "file" / "in", 1000)
