"""A real S3 server on loopback (moto's), and what the environment says of it."""

import logging
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest

BUCKET = "portal-photos"


class ObjectServer:
    """The server with one bucket, `BUCKET`; objects are put with obstore, as a portal would."""

    def __init__(self, url: str) -> None:
        from obstore.store import S3Store

        self.url = url
        self.create(BUCKET)
        self._store = S3Store(BUCKET)

    def create(self, bucket: str) -> None:
        urlopen(Request(f"{self.url}/{bucket}", method="PUT")).close()

    def put(self, key: str, body: bytes) -> str:
        """Store an object; its URL, for keys that need no quoting."""
        self._store.put(key, body)
        return f"s3://{BUCKET}/{key}"


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name `url` as the S3 service, as somebody with a store of their own does."""
    for name, value in {
        "AWS_ENDPOINT": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def object_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """A fresh S3 server; the environment points at it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()  # its objects outlive the server
        point_at(url, monkeypatch)
        yield ObjectServer(url)
    finally:
        server.stop()
