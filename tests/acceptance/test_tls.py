"""Postgres and Elasticsearch over TLS: trusted by the authority's certificate that is given, else refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from enrich.state.database import parse_url
from tests.support.harness import World
from tests.support.tls import TlsProxy, certificate

Encrypted = Callable[..., dict[str, object]]


@pytest.fixture
def encrypted(world: World, tmp_path: Path) -> Iterator[Encrypted]:
    """Settings that reach both servers over TLS; an authority of their certificates, and a name in them."""
    proxies: list[TlsProxy] = []

    def settings(authority: trustme.CA, name: str = "localhost") -> dict[str, object]:
        url = parse_url(world.portal.url)
        host = url.query.get("host") or url.host or "127.0.0.1"
        assert isinstance(host, str)
        port = url.port or 5432
        postgres = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        index = urlsplit(world.fixed["elasticsearch_url"])
        proxies.append(TlsProxy(authority, postgres, name=name, postgres=True))
        proxies.append(TlsProxy(authority, (index.hostname or "", index.port or 0), name=name))
        there = url.set(host="localhost", port=proxies[-2].port, query={"sslmode": "verify-full"})
        return {
            "database_url": there.set(drivername="postgresql").render_as_string(hide_password=False),
            "elasticsearch_url": f"https://localhost:{proxies[-1].port}",
        }

    yield settings
    for proxy in proxies:
        proxy.close()


def trusting(settings: dict[str, object], ca: Path) -> dict[str, object]:
    return {
        **settings,
        "database_url": f"{settings['database_url']}&sslrootcert={ca}",
        "elasticsearch_ca": ca,
    }


def test_a_whole_run_over_tls_with_the_authority_s_certificate(
    world: World, encrypted: Encrypted, tmp_path: Path
) -> None:
    authority = trustme.CA()
    world.listing("a", "kitchen", "balcony")
    report = world.run(settings=trusting(encrypted(authority), certificate(authority, tmp_path / "ca.pem")))
    assert report.exit_code == 0
    assert world.documents()["a"]["has_balcony"] is True


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_server_that_is_not_who_it_should_be_is_refused(
    world: World, encrypted: Encrypted, tmp_path: Path, wrong: str
) -> None:
    authority = trustme.CA()
    trusted = certificate(trustme.CA() if wrong == "authority" else authority, tmp_path / "ca.pem")
    other = trusting(encrypted(authority, "elsewhere.example" if wrong == "name" else "localhost"), trusted)
    for name, advice in (
        ("database_url", "TLS does not work as set up (sslmode, sslrootcert)"),
        ("elasticsearch_url", "set ELASTICSEARCH_CA to its authority's certificate"),
    ):
        one = {name: other[name], "elasticsearch_ca": trusted}
        done = world.enrich_here("run", **one)
        assert done.returncode == 2 and advice in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert world.statuses() == {}
