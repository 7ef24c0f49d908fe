"""Which URLs and addresses photos may be fetched from.

`photo_url` says what a URL asks for, `stored_url` where a stored file or object lies; `is_public` and
`AllowedHosts` check the address that is about to be connected, whatever name, redirect or notation led there.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote_to_bytes

from yarl import URL

from enrich.errors import SettingsError

Address = IPv4Address | IPv6Address

_LONGEST_URL = 8_192
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URI = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")

_UNICAST6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Not public, though `ipaddress` of Python 3.11 calls them global.
_CLOSED = (
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
    IPv4Network("192.0.0.0/24"),  # protocols' own; a cloud's metadata service answers at 192.0.0.192
    IPv4Network("168.63.129.16/32"),  # a cloud's own services, seen from its machines
)


class BadUrlError(ValueError):
    """No photo can be asked for under this URL; the message says why, without the URL."""


def photo_url(text: str, base: URL | None = None) -> URL:
    """Read a photo's URL; `base` is the URL that a redirect's relative one is relative to.

    What is a well-formed URI is sent byte for byte (a signature may cover it); anything else is quoted
    first. The fragment is dropped.

    Raises:
        BadUrlError: not http(s), no usable host or port, control characters, or a user name in it, which
            would end up in documents.
    """
    text = _plain(text)
    try:
        url = URL(text, encoded=_URI.fullmatch(text) is not None)
        if base is not None:
            url = base.join(url)
        if url.scheme not in ("http", "https"):
            raise BadUrlError("the URL is not http:// or https://")
        host = _host(url)
        port = url.port
        named = url.user is not None or url.password is not None
    except (ValueError, IndexError) as error:  # yarl indexes an empty host where brackets precede an @
        raise error if isinstance(error, BadUrlError) else BadUrlError("the URL is malformed") from None
    if not port:
        raise BadUrlError("the URL has port 0")
    if named:
        raise BadUrlError("the URL carries a user name or password")
    return url.with_host(host).with_fragment(None)


def stored_url(text: str) -> tuple[str, bytes]:
    """Read the URL of a file or an object: its authority (the host or bucket) and its path, percent-decoded.

    The path has no slash before it. The fragment is dropped.

    Raises:
        BadUrlError: no path, a query (a `?` in a name is written `%3F`), or control characters.
    """
    _, _, rest = _plain(text).partition("://")
    rest, _, _ = rest.partition("#")
    authority, _, path = rest.partition("/")
    if "?" in rest:
        raise BadUrlError("the URL has a query; a ? in a name is written %3F")
    decoded = unquote_to_bytes(path)
    if not decoded:
        raise BadUrlError("the URL names nothing in its host or bucket")
    if any(byte < 32 or byte == 127 for byte in decoded):
        raise BadUrlError("the URL contains control characters")
    return authority, decoded


def _plain(text: str) -> str:
    text = text.strip(" ")
    if not text:
        raise BadUrlError("the URL is empty")
    if len(text) > _LONGEST_URL:
        raise BadUrlError(f"the URL is longer than {_LONGEST_URL} characters")
    if _CONTROL.search(text):
        raise BadUrlError("the URL contains control characters")
    return text


def _host(url: URL) -> str:
    """The URL's host as DNS wants it: lower case, IDNA; or an address literal."""
    host = URL.build(scheme="http", host=url.host or "").raw_host or ""
    if not host:
        raise BadUrlError("the URL has no host")
    if ":" in host and "%" not in host:
        return str(IPv6Address(host))
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUrlError("the URL's host is not a host name")
    return host


def is_public(address: Address) -> bool:
    """Whether the address belongs to one machine on the open internet.

    An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4) is as public as that one.
    """
    inner = _carried(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, IPv6Address) and address not in _UNICAST6:
        return False
    if any(address in network for network in _CLOSED):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _carried(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


class AllowedHosts:
    """The private hosts of `ENRICH_ALLOWED_PRIVATE_HOSTS`: names, addresses and CIDRs.

    A name allows connections made for that name, to whatever address it resolves; an address or CIDR
    allows connections to it, by whatever name.

    Raises:
        SettingsError: an entry is none of the three.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        names: set[str] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                names.add(_allowed_name(entry))
        self._names = frozenset(names)
        self._networks = tuple(networks)

    def allow(self, host: str, address: str) -> bool:
        """Whether a connection made for `host` (as in the URL) may go to `address`."""
        there = ip_address(address)
        if is_public(there) or host.rstrip(".") in self._names:
            return True
        carried = _carried(there)
        return any(there in n or (carried is not None and carried in n) for n in self._networks)


def _allowed_name(entry: str) -> str:
    try:
        return _host(URL.build(scheme="http", host=entry)).rstrip(".")
    except ValueError:
        raise SettingsError(
            f"ENRICH_ALLOWED_PRIVATE_HOSTS: {entry!r} is not a host name, an address or a CIDR; "
            "write the host alone, such as photos.internal, 10.1.2.3 or 10.0.0.0/8"
        ) from None
