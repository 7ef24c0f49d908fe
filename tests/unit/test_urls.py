"""The stripped URL: the same photo keeps its key however it is signed."""

import pytest

from enrich.setting_values import SIGNING_PARAMS
from enrich.source.urls import strip_url, url_key


@pytest.mark.parametrize(
    ("url", "stripped"),
    [
        ("https://x/a.jpg", "https://x/a.jpg"),
        ("https://x/a.jpg#top", "https://x/a.jpg"),
        ("https://x/a.jpg?", "https://x/a.jpg"),
        ("https://x/a.jpg?w=800", "https://x/a.jpg?w=800"),
        ("https://x/a.jpg?X-Amz-Date=1&w=800&X-Amz-Signature=ab%2Fc", "https://x/a.jpg?w=800"),
        ("https://x/a.jpg?w=800&Expires=1#f", "https://x/a.jpg?w=800"),
        ("https://x/a.jpg?Expires=1&Signature=x&Key-Pair-Id=k&Policy=p", "https://x/a.jpg"),
        ("https://x/a.jpg?sig=x&se=2025-01-01T00:00:00Z&sp=r", "https://x/a.jpg?sp=r"),
        ("https://x/a.jpg?token", "https://x/a.jpg"),
        ("https://x/a.jpg?token=&v=2", "https://x/a.jpg?v=2"),
        ("https://x/a.jpg?tokens=1&mysig=2&expires=3", "https://x/a.jpg?tokens=1&mysig=2&expires=3"),
        ("https://x/a.jpg?v=Expires=1&w=sig", "https://x/a.jpg?v=Expires=1&w=sig"),
        ("https://x/a.jpg?next=a?token=1", "https://x/a.jpg?next=a?token=1"),
        ("https://x/a.jpg#?token=1", "https://x/a.jpg"),
        ("https://x/a.jpg?token=1\n", "https://x/a.jpg"),
        ("https://x/a.jpg?token\n", "https://x/a.jpg?token\n"),
        ("", ""),
    ],
)
def test_only_signing_parameters_and_the_fragment_go(url: str, stripped: str) -> None:
    assert strip_url(url, SIGNING_PARAMS) == stripped


def test_nothing_to_ignore_keeps_the_query() -> None:
    assert strip_url("https://x/a.jpg?token=1&#f", ()) == "https://x/a.jpg?token=1&"


def test_names_are_names_not_patterns() -> None:
    assert strip_url("https://x/?a.b=1&axb=2&(=3", ("a.b", "(")) == "https://x/?axb=2"


def test_the_key_is_the_sha256_of_the_stripped_url() -> None:
    assert url_key("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
