"""Who may look at the page and who may change things: whoever is on this machine, holds a token, or is named
by a reverse proxy. And what keeps other sites out: the names by which the page answers, the origin of a form,
and a token in it.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, Response

from enrich.errors import SettingsError
from enrich.settings import Settings

COOKIE, FORM_COOKIE = "enrich_login", "enrich_form"
STAYS = 7 * 86_400  # seconds that a login holds
SHORTEST = 16  # signs of a token
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORM_TOKEN = re.compile(r"[\w-]{43}")
_VIEW, _EDIT = "view", "edit"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. `name` is a reverse proxy's word; `bearer`: a program, to which forms of other sites are no
    danger."""

    edits: bool
    name: str | None = None
    bearer: bool = False


class Access:
    """What the settings say of who may come in at the address that the page listens on.

    Raises:
        SettingsError: anybody could come in, or nobody.
    """

    def __init__(self, settings: Settings, address: str) -> None:
        given = {_VIEW: settings.web_token, _EDIT: settings.web_edit_token}
        self._tokens = {role: secret.get_secret_value() for role, secret in given.items() if secret}
        self._header = settings.web_trusted_header
        self._editors = frozenset(settings.web_editors)
        self._proxies = [_network(one) for one in settings.web_trusted_proxies]
        self._loopback = _is_loopback(address)
        self._names = {name.lower() for name in settings.web_hosts}
        if self._loopback:
            self._names |= _LOOPBACK_NAMES | {address.lower()}
        self._verify(address)

    def _verify(self, address: str) -> None:
        for role, token in self._tokens.items():
            if len(token) < SHORTEST:
                name = "ENRICH_WEB_TOKEN" if role == _VIEW else "ENRICH_WEB_EDIT_TOKEN"
                raise SettingsError(
                    f"{name} is shorter than {SHORTEST} signs: `openssl rand -hex 16` makes one"
                )
        if len(set(self._tokens.values())) < len(self._tokens):
            raise SettingsError("ENRICH_WEB_TOKEN and ENRICH_WEB_EDIT_TOKEN are the same: set two, or one")
        if self._header and not self._proxies:
            raise SettingsError(
                "ENRICH_WEB_TRUSTED_HEADER is set, but anybody can send a header: name the proxies that may, "
                "in ENRICH_WEB_TRUSTED_PROXIES"
            )
        if not (self._loopback or self._tokens or self._header):
            raise SettingsError(
                f"on {address} anybody who reaches it could come in: set ENRICH_WEB_EDIT_TOKEN (and "
                "ENRICH_WEB_TOKEN for those who only look), or ENRICH_WEB_TRUSTED_HEADER with "
                "ENRICH_WEB_TRUSTED_PROXIES behind a proxy that knows its users, or leave --host at 127.0.0.1"
            )

    @property
    def has_login(self) -> bool:
        """Whether there is a token to come in with."""
        return bool(self._tokens)

    @property
    def nobody_edits(self) -> bool:
        """Whether the page only shows."""
        return (self.has_login or bool(self._header)) and _EDIT not in self._tokens and not self._editors

    def knows_host(self, request: Request) -> bool:
        """Whether the page goes by the name that the browser asks for.

        Another site whose name leads to this address could else read the page in a visitor's browser.
        """
        if not self._names or (not self._loopback and request.scope["path"] == "/healthz"):
            return True
        name = re.sub(r":\d+$", "", request.headers.get("host", "")).lower()
        return name in self._names

    def visitor(self, request: Request) -> Visitor | None:
        """Who asks; None: somebody who may not come in."""
        if self._header and self._from_proxy(request):
            names = [_utf8(name) for name in request.headers.getlist(self._header)]
            if len(names) == 1 and names[0]:  # of two, one may be what the visitor sent himself
                return Visitor(bool(self._editors & {names[0], "*"}), names[0])
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (role := self._role(token.strip())):
            return Visitor(role == _EDIT, bearer=True)
        if role := self._logged_in(request.cookies.get(COOKIE, "")):
            return Visitor(role == _EDIT)
        return None if self._tokens or self._header else Visitor(edits=True)

    def log_in(self, token: str) -> str | None:
        """What the cookie holds for whoever holds this token; None: it is no token of ours."""
        role = self._role(token)
        if role is None:
            return None
        told = f"{role}.{int(time.time()) + STAYS}"
        return f"{told}.{self._signature(role, told)}"

    def _logged_in(self, cookie: str) -> str | None:
        role, _, rest = cookie.partition(".")
        until, _, signature = rest.partition(".")
        if role not in self._tokens or not re.fullmatch(r"\d{1,12}", until, re.ASCII):
            return None
        real = _equal(signature, self._signature(role, f"{role}.{until}"))
        return role if real and int(until) > time.time() else None

    def _signature(self, role: str, told: str) -> str:
        return hmac.new(self._tokens[role].encode(), told.encode(), hashlib.sha256).hexdigest()

    def _role(self, token: str) -> str | None:
        found = [role for role, known in self._tokens.items() if _equal(token, known)]
        return found[0] if found else None

    def _from_proxy(self, request: Request) -> bool:
        try:
            peer = ipaddress.ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        if peer.version == 6:  # a socket for both takes IPv4 so
            peer = peer.ipv4_mapped or peer
        return any(peer in network for network in self._proxies)


def same_origin(request: Request) -> bool:
    """Whether a page of ours sent this form, by the browser's word."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site == "same-origin"
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def form_token(request: Request) -> str:
    """What a form must carry: the same as the browser's cookie, which no other site can read."""
    known = request.cookies.get(FORM_COOKIE, "")
    return known if _FORM_TOKEN.fullmatch(known) else secrets.token_urlsafe(32)


def keep(response: Response, request: Request, name: str, value: str, seconds: int | None = None) -> None:
    """Have the browser keep a cookie that it sends to this page only, and shows to no script.

    It comes along where a link of another site leads here, but not with another site's form.
    """
    told = request.headers.get("x-forwarded-proto", request.url.scheme)
    response.set_cookie(name, value, seconds, httponly=True, samesite="lax", secure=told == "https")


async def form_checked(request: Request) -> None:
    """Refuse a form that does not come from a page of ours."""
    if request.state.visitor is not None and request.state.visitor.bearer:
        return
    sent = (await request.form()).get("form_token")
    kept = request.cookies.get(FORM_COOKIE, "")
    if not (kept and isinstance(sent, str) and _equal(sent, kept)):
        raise HTTPException(403, "This form is out of date: load the page again, and send it once more.")


async def _editing(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    if not visitor.edits:
        raise HTTPException(403, "You may look, but not change anything: that takes another token or user.")
    await form_checked(request)
    return visitor


Editor = Annotated[Visitor, Depends(_editing)]
"""A parameter of whatever changes something: who does, and may."""


def _equal(one: str, other: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(one.encode(), other.encode())


def _utf8(header: str) -> str:
    """A header's text as proxies send names; what is no UTF-8 stays as the server read it."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SettingsError(f"ENRICH_WEB_TRUSTED_PROXIES: {text!r} is no address and no CIDR") from None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address.lower() == "localhost"
