"""Keeps what strangers wrote, such as a title or an address, from giving orders to a terminal."""

import re

_ORDERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")


def readable(text: str) -> str:
    """The text with its control characters written out, as JSON writes them; line breaks and tabs stay."""
    return _ORDERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
