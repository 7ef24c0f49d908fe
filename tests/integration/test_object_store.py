"""Photos in object stores: a real S3 server (moto's) where it answers well, a misbehaving one where not."""

import asyncio
import sys
import time
from hashlib import sha256
from typing import Any

import pytest

from enrich.errors import SettingsError
from enrich.photos.object_store import ObjectStoreTransport
from enrich.photos.open import open_transport
from enrich.records import Fetched, PhotoStatus, Validators
from tests.support.fetching import CAP, PHOTO, settings
from tests.support.object_store import BUCKET, ObjectServer, point_at
from tests.support.photo_server import PhotoServer, Step, close_at_once, endless, hang, lying, raw, status

ALLOWED = (f"s3://{BUCKET}",)
URL = f"s3://{BUCKET}/a.jpg"


def fetch_all(*urls: str, validators: Validators | None = None, **changed: Any) -> list[Fetched]:
    async def go() -> list[Fetched]:
        async with open_transport(settings(**{"allowed_stores": ALLOWED} | changed)) as transport:
            found = await asyncio.gather(*(transport.fetch(url, validators) for url in urls))
            return [fetched for fetched in found if isinstance(fetched, Fetched)]

    return asyncio.run(go())


def fetch(url: str, validators: Validators | None = None, **changed: Any) -> Fetched:
    (fetched,) = fetch_all(url, validators=validators, **changed)
    return fetched


def test_a_photo(object_server: ObjectServer) -> None:
    object_server.put("listings/7/kök 1%.jpg", PHOTO)
    fetched = fetch(f"s3://{BUCKET}/listings/7/k%C3%B6k%201%25.jpg#top")
    assert (fetched.status, fetched.body) == (PhotoStatus.OK, PHOTO)
    assert (fetched.sha256, fetched.bytes_read) == (sha256(PHOTO).hexdigest(), len(PHOTO))
    assert fetched.validators.etag


def test_an_object_that_is_as_it_was_is_not_sent_again(object_server: ObjectServer) -> None:
    url = object_server.put("a.jpg", PHOTO)
    first = fetch(url)
    assert fetch(url, first.validators) == Fetched(PhotoStatus.UNCHANGED, validators=first.validators)
    object_server.put("a.jpg", PHOTO[::-1])
    assert fetch(url, first.validators).body == PHOTO[::-1]


def test_what_is_not_there_or_empty_or_too_large(object_server: ObjectServer) -> None:
    object_server.put("empty.jpg", b"")
    object_server.put("large.jpg", bytes(CAP + 1))
    object_server.put("fits.jpg", bytes(CAP))
    urls = [f"s3://{BUCKET}/{name}.jpg" for name in ("none", "empty", "large", "fits")]
    found = fetch_all(*urls, "s3://nowhere/a.jpg", allowed_stores=(*ALLOWED, "s3://nowhere"))
    assert [fetched.status for fetched in found] == [
        PhotoStatus.NOT_FOUND,
        PhotoStatus.EMPTY,
        PhotoStatus.TOO_MANY_BYTES,
        PhotoStatus.OK,
        PhotoStatus.NOT_FOUND,
    ]
    assert found[2].bytes_read == 0
    assert found[0].error == f"s3://{BUCKET}: HTTP 404"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (status(403, b"hush-hush"), PhotoStatus.REFUSED),
        (status(401, b"hush-hush"), PhotoStatus.REFUSED),
        (status(301, b"hush-hush"), PhotoStatus.CONNECT),
        (status(404), PhotoStatus.NOT_FOUND),
        (status(410), PhotoStatus.GONE),
        (status(429), PhotoStatus.THROTTLED),
        (status(500, b"HttpError { kind: Connect"), PhotoStatus.SERVER_ERROR),
        (status(503, b"<Code>SlowDown</Code>"), PhotoStatus.SERVER_ERROR),
        (raw(b"no proper HTTP\r\n\r\n"), PhotoStatus.CONNECTION_LOST),
        (close_at_once(), PhotoStatus.CONNECTION_LOST),
        (lying(PHOTO, len(PHOTO) + 100), PhotoStatus.CONNECTION_LOST),
        (endless(), PhotoStatus.CONNECTION_LOST),  # S3 always says how much comes
        (lying(PHOTO, CAP + 1), PhotoStatus.TOO_MANY_BYTES),
    ],
)
def test_each_trouble_has_its_status(
    photo_server: PhotoServer, monkeypatch: pytest.MonkeyPatch, step: Step, expected: PhotoStatus
) -> None:
    point_at(photo_server.behave(f"/{BUCKET}/a.jpg", step).removesuffix(f"/{BUCKET}/a.jpg"), monkeypatch)
    fetched = fetch(URL)
    assert fetched.status is expected and fetched.body is None
    assert str(fetched.error).startswith(f"s3://{BUCKET}: ") and "hush-hush" not in str(fetched.error)
    assert "\n" not in str(fetched.error)


def test_a_bucket_in_another_region_is_called_that(
    photo_server: PhotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers with a redirect that leads nowhere."""
    path = f"/{BUCKET}/a.jpg"
    point_at(photo_server.behave(path, status(301)).removesuffix(path), monkeypatch)
    assert "another region" in str(error := fetch(URL).error) and "AWS_REGION" in str(error)


def test_a_passing_trouble_is_tried_again_but_not_for_ever(
    photo_server: PhotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/{BUCKET}/a.jpg"
    point_at(photo_server.add(path, PHOTO).removesuffix(path), monkeypatch)
    photo_server.behave(path, status(503), raw(photo_answer()))
    assert fetch(URL).body == PHOTO and photo_server.requests() == 2
    photo_server.behave(path, status(503))
    photo_server.forget()
    assert fetch(URL).status is PhotoStatus.SERVER_ERROR and photo_server.requests() == 3


def photo_answer() -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
    return head.encode() + PHOTO


def test_a_store_that_does_not_answer_costs_a_photo_its_time(
    photo_server: PhotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/{BUCKET}/a.jpg"
    point_at(photo_server.behave(path, hang()).removesuffix(path), monkeypatch)
    started = time.monotonic()
    fetched = fetch(URL, fetch_timeout=0.5)
    assert fetched.status is PhotoStatus.TIMEOUT and time.monotonic() - started < 5


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_a_store_that_is_not_there(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(endpoint, monkeypatch)
    assert fetch(URL).status is PhotoStatus.CONNECT


def test_no_more_requests_at_once_than_allowed(
    photo_server: PhotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(answer: Any) -> None:
        time.sleep(0.1)
        raw(photo_answer())(answer)

    paths = [f"/{BUCKET}/{number}.jpg" for number in range(9)]
    for path in paths:
        photo_server.behave(path, slowly)
    point_at(photo_server.url(""), monkeypatch)
    found = fetch_all(*(f"s3:/{path}" for path in paths), fetch_concurrency=3)
    assert {fetched.status for fetched in found} == {PhotoStatus.OK}
    assert photo_server.busiest <= 3


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (URL, ()),
        (URL, ("s3://other",)),
        (URL, (f"gs://{BUCKET}", f"az://{BUCKET}")),
        (f"gs://{BUCKET}/a.jpg", ALLOWED),
        (f"az://{BUCKET}/a.jpg", ALLOWED),
        (f"s3://{BUCKET}-private/a.jpg", ALLOWED),
        (URL, (f"s3://{BUCKET}/listings/",)),
        (f"s3://{BUCKET}/listings-private/a.jpg", (f"s3://{BUCKET}/listings",)),
        (f"s3://{BUCKET}/listings", (f"s3://{BUCKET}/listings",)),
    ],
)
def test_only_named_buckets_and_folders_are_asked(
    photo_server: PhotoServer, monkeypatch: pytest.MonkeyPatch, url: str, allowed: tuple[str, ...]
) -> None:
    point_at(photo_server.url(""), monkeypatch)
    fetched = fetch(url, allowed_stores=allowed)
    assert fetched.status is PhotoStatus.FORBIDDEN_ADDRESS and "ENRICH_ALLOWED_STORES" in str(fetched.error)
    assert photo_server.requests() == 0


@pytest.mark.parametrize("allowed", [f"s3://{BUCKET}/listings", f"s3://{BUCKET}/listings/"])
def test_a_folder_of_a_bucket_is_allowed(object_server: ObjectServer, allowed: str) -> None:
    url = object_server.put("listings/7/1.jpg", PHOTO)
    assert fetch(url, allowed_stores=(allowed,)).body == PHOTO


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a/",
        "/a.jpg",
        "a//b.jpg",
        "listings/../a.jpg",
        "listings/%2e%2e/a.jpg",
        "./a.jpg",
        "a.jpg?v=1",
        "%ff",
    ],
)
def test_urls_that_name_no_object(
    photo_server: PhotoServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    point_at(photo_server.url(""), monkeypatch)
    assert fetch(f"s3://{BUCKET}/{key}").status is PhotoStatus.BAD_URL
    assert fetch(f"s3://user:hush@{BUCKET}/a.jpg").status is PhotoStatus.BAD_URL
    assert photo_server.requests() == 0


@pytest.mark.parametrize(
    ("bucket", "environment", "store"),
    [
        ("s3://portal-photos", {"AWS_REGION": "eu-north-1"}, "S3Store"),
        ("gs://portal-photos", {"GOOGLE_SKIP_SIGNATURE": "true"}, "GCSStore"),
        ("az://portal-photos", {"AZURE_STORAGE_ACCOUNT_NAME": "portal"}, "AzureStore"),
    ],
)
def test_each_scheme_has_its_store(
    bucket: str, environment: dict[str, str], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    opened = ObjectStoreTransport(settings())._open(bucket)
    assert type(opened).__name__ == store and "portal-photos" in opened.config.values()


def test_a_store_that_lacks_its_variables_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    fetched = fetch("az://photos/a.jpg", allowed_stores=("az://photos",))
    assert fetched.status is PhotoStatus.CONNECT and "AZURE_…" in str(fetched.error)


def test_without_obstore_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obstore", "obstore.exceptions", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    fetched = fetch(URL)
    assert fetched.status.transient(earlier_failures=5)
    assert "pip install 'listing-enrichment[cloud]'" in str(fetched.error)


@pytest.mark.parametrize("entry", ["portal-photos", "s3:/portal", "s3://", "ftp://portal", "s3://a b"])
def test_an_entry_that_names_no_bucket_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="ENRICH_ALLOWED_STORES"):
        ObjectStoreTransport(settings(allowed_stores=(entry,)))
