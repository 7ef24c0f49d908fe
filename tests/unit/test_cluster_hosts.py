"""Photos that wait by host: who asks whom, and pauses that hold for everyone."""

import pytest

from enrich.photos.transport import Paused
from enrich.pipeline.listing import PATIENCE
from enrich.pipeline.outcome import Known
from enrich.records import Fetched, Photo, PhotoStatus
from jobs.run.cluster.hosts import Ask, Hosts, Page, host_of

REFUSAL = Fetched(PhotoStatus.THROTTLED, error="HTTP 429")


def ask(url: str) -> Ask:
    return Ask(Photo(0, url, url, url), Known(), Page(1))


def hosts_with(*urls: str) -> Hosts[str]:
    hosts: Hosts[str] = Hosts()
    for url in urls:
        hosts.add(ask(url))
    return hosts


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Photos.example:8443/a.jpg?sig=1", "photos.example"),
        ("http://user:secret@photos.example/a.jpg", "photos.example"),
        (" http://photos.example/a.jpg", "photos.example"),
        ("s3://bucket/a.jpg", "bucket"),
        ("http://[::1]:80/a.jpg", "::1"),
        ("file:///photos/a.jpg", ""),
        ("http://[/a.jpg", ""),
        ("", ""),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host


def test_a_host_with_enough_under_way_waits_and_others_go_on() -> None:
    hosts = hosts_with(*[f"http://a/{n}" for n in range(5)], "http://b/0")
    (a, b) = hosts.askable(0.0, most=3)
    assert [each.photo.url for each in hosts.take(a, 3)] == ["http://a/0", "http://a/1", "http://a/2"]
    assert list(hosts.askable(0.0, most=3)) == [b] and hosts.waiting == 3
    a.asked -= 1
    assert list(hosts.askable(0.0, most=3)) == [b, a], "the one that was served last comes last"


def test_a_paused_host_is_left_alone_until_its_pause_is_over_and_the_photo_comes_first() -> None:
    hosts = hosts_with("http://a/0", "http://a/1", "http://b/0")
    a, b = hosts.askable(0.0, most=9)
    (first,) = hosts.take(a, 1)
    a.asked -= 1
    assert hosts.paused(a, first, Paused(30.0, REFUSAL), now=0.0) is None
    assert list(hosts.askable(29.9, most=9)) == [b]
    assert list(hosts.askable(30.0, most=9)) == [b, a]
    assert hosts.take(a, 1) == [first]


def test_an_idle_host_is_forgotten_but_not_while_it_is_paused() -> None:
    hosts = hosts_with("http://a/0")
    (a,) = hosts.askable(0.0, most=9)
    a.owner = "fetcher"
    (photo,) = hosts.take(a, 1)
    a.asked -= 1
    hosts.paused(a, photo, Paused(30.0), now=0.0)
    hosts.take(a, 1)
    a.asked -= 1
    assert not list(hosts.askable(1.0, most=9)) and hosts.owned() == {"fetcher": 1}
    assert not list(hosts.askable(31.0, most=9)) and not hosts.owned()


def test_the_third_refusal_of_a_photo_is_its_answer() -> None:
    hosts = hosts_with("http://a/0")
    (a,) = hosts.askable(0.0, most=9)
    (photo,) = hosts.take(a, 1)
    answers = [hosts.paused(a, photo, Paused(1.0, REFUSAL), now=float(n)) for n in range(3)]
    assert answers == [None, None, REFUSAL]


def test_photos_of_a_host_that_never_relents_are_given_up() -> None:
    hosts = hosts_with("http://a/0", "http://a/1")
    (a,) = hosts.askable(0.0, most=9)
    now, given_up = 0.0, []
    while not given_up:
        assert now < PATIENCE
        (photo,) = hosts.take(a, 1)
        a.asked -= 1
        hosts.paused(a, photo, Paused(300.0), now)
        given_up = hosts.given_up(a)
        now += 300.0
    assert len(given_up) == 2 and hosts.waiting == 0


def test_a_photo_that_is_redirected_to_a_paused_host_waits_alone() -> None:
    hosts = hosts_with("http://a/0", "http://a/1")
    (a,) = hosts.askable(0.0, most=9)
    (first,) = hosts.take(a, 1)
    a.asked -= 1
    assert hosts.paused(a, first, Paused(30.0, REFUSAL, elsewhere=True), now=0.0) is None
    assert list(hosts.askable(0.0, most=9)) == [a] and hosts.waiting == 2
    assert [each.photo.url for each in hosts.take(a, 9)] == ["http://a/1"]
    a.asked -= 1
    assert not list(hosts.askable(29.9, most=9)) and hosts.waiting == 1
    assert list(hosts.askable(30.0, most=9)) == [a], "it is not forgotten meanwhile"
    assert hosts.take(a, 9) == [first] and hosts.waiting == 0


def test_a_photo_does_not_wait_for_ever_for_where_it_is_redirected_to() -> None:
    hosts = hosts_with("http://a/0")
    (a,) = hosts.askable(0.0, most=9)
    now = 0.0
    while not (left := hosts.given_up(a)):
        assert now <= PATIENCE
        assert list(hosts.askable(now, most=9)) == [a]
        (photo,) = hosts.take(a, 1)
        a.asked -= 1
        hosts.paused(a, photo, Paused(300.0, elsewhere=True), now)
        now += 300.0
    assert left == [photo] and hosts.waiting == 0
    assert not list(hosts.askable(now, most=9))
