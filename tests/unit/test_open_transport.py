"""Which transport a photo's URL leads to, and that URLs of every scheme keep their keys."""

import asyncio

import pytest

from enrich.photos.open import open_transport
from enrich.records import Fetched, PhotoStatus
from enrich.setting_values import SIGNING_PARAMS
from enrich.source.urls import strip_url
from tests.support.fetching import settings


def fetch(url: str) -> Fetched:
    async def go() -> Fetched:
        async with open_transport(settings()) as transport:
            fetched = await transport.fetch(url)
            assert isinstance(fetched, Fetched)
            return fetched

    return asyncio.run(go())


@pytest.mark.parametrize(
    "url", ["ftp://x/a.jpg", "data:image/png;base64,AA", "/srv/a.jpg", "s3:/a/b.jpg", ""]
)
def test_a_url_of_no_known_scheme(url: str) -> None:
    assert fetch(url) == Fetched(
        PhotoStatus.BAD_URL,
        error="the URL is not http://, https://, file://, s3://, gs:// or az://",
    )


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("http://127.0.0.1:1/a.jpg", "ENRICH_ALLOWED_PRIVATE_HOSTS"),
        ("HTTPS://127.0.0.1:1/a.jpg", "ENRICH_ALLOWED_PRIVATE_HOSTS"),
        ("file:///etc/hostname", "ENRICH_ALLOWED_FOLDERS"),
        ("s3://photos/a.jpg", "ENRICH_ALLOWED_STORES"),
        ("GS://photos/a.jpg", "ENRICH_ALLOWED_STORES"),
        (" az://photos/a.jpg", "ENRICH_ALLOWED_STORES"),
    ],
)
def test_without_a_setting_nothing_but_public_addresses_is_asked(
    url: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.fetching.load_settings", lambda **_: settings_of_nothing)
    fetched = fetch(url)
    assert fetched.status is PhotoStatus.FORBIDDEN_ADDRESS and setting in str(fetched.error)


settings_of_nothing = settings(allowed_private_hosts=())


@pytest.mark.parametrize("start", ["file:///srv", "s3://photos", "gs://photos", "az://photos"])
def test_urls_of_stored_photos_are_stripped_like_any_other(start: str) -> None:
    assert strip_url(f"{start}/7/k%C3%B6k%201.jpg#top", SIGNING_PARAMS) == f"{start}/7/k%C3%B6k%201.jpg"
    assert strip_url(f"{start}/7/1.jpg", SIGNING_PARAMS) == f"{start}/7/1.jpg"
