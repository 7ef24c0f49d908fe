"""Promise 7: only http(s), only public addresses unless a setting names the private ones."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from enrich.errors import SettingsError
from enrich.photos.addresses import AllowedHosts, BadUrlError, is_public, photo_url

PUBLIC = ["8.8.8.8", "1.1.1.1", "193.10.5.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",  # carrier NAT
    "127.0.0.1",
    "127.8.9.10",
    "168.63.129.16",  # a cloud's host agent
    "169.254.169.254",  # metadata service
    "172.16.0.1",
    "192.0.0.192",  # another cloud's metadata service
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert AllowedHosts(()).allow("photos.example", address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not AllowedHosts(()).allow("photos.example", address)


@given(st.ip_addresses(v=4))
def test_a_carried_address_is_as_public_as_the_bare_one(inner: IPv4Address) -> None:
    bits = int(inner)
    mapped = IPv6Address((0xFFFF << 32) | bits)
    nat64 = IPv6Address((0x0064_FF9B << 96) | bits)
    six_to_four = IPv6Address((0x2002 << 112) | (bits << 80) | 1)
    assert {is_public(a) for a in (mapped, nat64, six_to_four)} == {is_public(inner)}


@pytest.mark.parametrize(
    ("entry", "host", "address", "allowed"),
    [
        ("minio", "minio", "10.0.0.5", True),
        ("MinIO", "minio.", "10.0.0.5", True),
        ("minio", "other", "10.0.0.5", False),
        ("minio", "minio.evil.example", "10.0.0.5", False),
        ("minio", "evil-minio", "10.0.0.5", False),
        ("bücher.internal", "xn--bcher-kva.internal", "10.0.0.5", True),
        ("10.0.0.5", "any.example", "10.0.0.5", True),
        ("10.0.0.5", "any.example", "10.0.0.6", False),
        ("10.0.0.0/8", "any.example", "10.200.0.1", True),
        ("10.0.0.0/8", "any.example", "::ffff:10.200.0.1", True),
        ("10.0.0.0/8", "any.example", "11.0.0.1", True),  # public
        ("10.0.0.0/8", "any.example", "192.168.0.1", False),
        ("::1", "localhost", "::1", True),
        ("[::1]", "localhost", "::1", True),
        ("fd00::/8", "any.example", "fd12::1", True),
        ("fd00::/8", "any.example", "fe80::1%1", False),
    ],
)
def test_allowed_private_hosts(entry: str, host: str, address: str, allowed: bool) -> None:
    assert AllowedHosts((entry,)).allow(host, address) is allowed


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.0/99", "minio:9000", "http://minio", "user@minio", "a b", "*.internal", "fe80::/x"]
)
def test_an_entry_that_cannot_be_used(entry: str) -> None:
    with pytest.raises(SettingsError, match="ENRICH_ALLOWED_PRIVATE_HOSTS"):
        AllowedHosts((entry,))


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://EXAMPLE.com/", "http://example.com/"),
        ("HTTPS://example.com:443/a#part", "https://example.com/a"),
        ("http://example.com/a b/å.jpg?x=ä", "http://example.com/a%20b/%C3%A5.jpg?x=%C3%A4"),
        (" http://example.com/a ", "http://example.com/a"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://example.com:8080/a", "http://example.com:8080/a"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://10.1.2.3/a", "http://10.1.2.3/a"),
    ],
)
def test_urls_that_can_be_asked(text: str, asked: str) -> None:
    assert str(photo_url(text)) == asked


def test_a_signed_url_is_asked_byte_for_byte() -> None:
    signed = "https://example.com/a%2Fb%7E/./c.jpg?sig=a%2Bb%3d&e=1+2&k=%7E~&empty="
    assert str(photo_url(signed)) == signed


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("c.jpg", "https://example.com/a/c.jpg"),
        ("/c.jpg?sig=%2F", "https://example.com/c.jpg?sig=%2F"),
        ("//cdn.example/c.jpg", "https://cdn.example/c.jpg"),
        ("http://cdn.example/c.jpg", "http://cdn.example/c.jpg"),
    ],
)
def test_relative_redirects(location: str, asked: str) -> None:
    assert str(photo_url(location, base=URL("https://example.com/a/b.jpg?x=1"))) == asked


BAD_URLS = [
    "",
    " ",
    "photo.jpg",
    "//example.com/a.jpg",
    "ftp://example.com/a.jpg",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "http://",
    "http:///a.jpg",
    "http:example.com/a.jpg",
    "http://:80/a.jpg",
    "http://example.com:99999/",
    "http://example.com:0/",
    "http://example.com:port/",
    "http://exa mple.com/",
    "http://exa\nmple.com/",
    "http://example.com/a\r\nHost: other",
    "http://example.com/\x00",
    "http://user:secret@example.com/",
    "http://user@example.com/",
    "http://example.com\\@other.example/",
    "http://a..b/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 140 + "com/",
    "http://-a.com/",
    "http://%00/",
    "http://a%2fb/",
    "http://[::1/",
    "http://[::g]/",
    "http://[::1]@/a.jpg",
    "http://user[secret]@",
    "http://[fe80::1%25eth0]/",
    "http://\ud800/",
    "http://example.com/" + "a" * 9_000,
]


@pytest.mark.parametrize("text", BAD_URLS)
def test_bad_urls(text: str) -> None:
    with pytest.raises(BadUrlError) as caught:
        photo_url(text)
    assert "secret" not in str(caught.value)


@given(st.one_of(st.text(), st.text().map("http://".__add__), st.text().map("http://example.com/".__add__)))
def test_any_text_is_a_url_or_a_bad_one(text: str) -> None:
    try:
        url = photo_url(text)
    except BadUrlError:
        return
    assert url.scheme in ("http", "https")
    assert url.raw_host
    assert str(url).isascii() and str(url).isprintable()
