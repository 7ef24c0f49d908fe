"""Keeps secrets out of everything that is printed: messages, logs and tracebacks."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from enrich.errors import SettingsError
from enrich.setting_values import line, surroundings
from enrich.settings import Settings, secret_variables, secrets_in_files, variable

HIDDEN = "******"
_SHORTEST = 3  # a shorter secret would tear every other word apart; in URLs it is hidden all the same
_IN_URL = re.compile(r'(://[^\s:/@"]*:)(?!password@)[^\s/"]*@')  # our own messages show how to write a URL
_IN_QUERY = re.compile(r"(\bpassword=)[^\s&]+")


class Redactor:
    """Replaces the secrets in the settings, however they are written, by asterisks."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        given = {name.lower(): value for name, value in environ.items()}
        found: set[str] = set()
        for name in Settings.model_fields:
            if variable(name) in secret_variables():
                for written in (variable(name).lower(), f"enrich_{name}"):  # pydantic-settings reads both
                    found.update(_secrets(line(given.get(written, ""))))
        spelled = {form for secret in found if len(secret) >= _SHORTEST for form in _spellings(secret)}
        longest_first = sorted(spelled, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @classmethod
    def from_surroundings(cls) -> "Redactor":
        """From the places that the settings are read from: `.env`, the environment, and files."""
        given = dict(os.environ)
        try:
            given = {name: value for name, value in surroundings().items() if value}
            return cls(given | secrets_in_files())
        except SettingsError:  # said where the settings are loaded
            return cls(given)

    def __call__(self, text: str) -> str:
        text = _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_URL.sub(rf"\1{HIDDEN}@", text))
        return self._known.sub(HIDDEN, text) if self._known else text


def _secrets(value: str) -> Iterator[str]:
    if "://" not in value:
        yield value  # an empty or short one is left out by the caller
        return
    # A password that should have been percent-encoded may hold any sign: take all up to the last @.
    userinfo = re.search(r"://([^:/@]*):(.*)@", value)
    if userinfo and unquote(userinfo[2]) not in _public(value, userinfo[1]):
        yield unquote(userinfo[2])
        yield userinfo[2]
    for name, text in parse_qsl(value.partition("?")[2]):
        if "password" in name:
            yield text


def _public(url: str, user: str) -> set[str]:
    """Parts of the URL that messages name: a password that equals one of them cannot be told from it."""
    try:
        path = urlsplit(url).path
    except ValueError:
        path = ""
    return {unquote(user), path.strip("/")}


def _spellings(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
