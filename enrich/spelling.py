"""How people write the values of settings that are more than a word or a number."""

import json
import shlex
from urllib.parse import urlsplit


def read_list(text: str) -> tuple[str, ...]:
    """A JSON list of strings, or names separated by commas.

    Raises:
        ValueError: it begins like a JSON list and is none of strings.
    """
    text = text.strip()
    if not text.startswith("["):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise ValueError(f'not a JSON list: {error}; write ["a","b"] or a,b') from None
    if not isinstance(parsed, list) or not all(isinstance(item, str) for item in parsed):
        raise ValueError('a JSON list of strings is needed, such as ["a","b"]')
    return tuple(parsed)


def parse_max_removed(text: str) -> tuple[float, int | None]:
    """Read `ENRICH_MAX_REMOVED`: ("5%" or "0.05") -> (0.05, None); "200" -> (0.0, 200).

    Raises:
        ValueError: neither a share nor a whole number.
    """
    value = text.strip()
    try:
        share = float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        raise ValueError(
            "a share such as 5% or 0.05, or a number of documents such as 200, is needed"
        ) from None
    if value.endswith("%") or 0 < share < 1:
        if not 0 <= share <= 1:
            raise ValueError("a share lies between 0% and 100%")
        return share, None
    if share < 0 or not share.is_integer():
        raise ValueError("a number of documents is a whole number, 0 or more")
    return 0.0, int(share)


def read_hook(text: str) -> str | list[str]:
    """Read `ENRICH_ON_FINISH`: an http(s) URL as it is, a command as its words. No shell is involved.

    Raises:
        ValueError: neither; the text itself is not told, since a webhook's URL is a secret.
    """
    text = text.strip()
    if text.startswith(("http://", "https://")):
        try:
            usable = urlsplit(text).hostname and urlsplit(text).port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("the URL has no host, or a port that is none")
        return text
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"not a command line ({error})") from None
    if not words:
        raise ValueError("a command or an http(s) URL is needed")
    return words
