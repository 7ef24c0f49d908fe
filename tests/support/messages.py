"""What every message to a user is held to."""

import re

LONGEST = 300
FAULTS = {
    "doubled punctuation": r"[?!:;,] ?[.?!:;,](?!\w)|[.] [.:;,]|(?<!\.)\.\.(?!\.)",
    "a doubled word or host": r"(?<![\w.:/-])([\w./-]{2,})[:,]?\s+\1(?![\w/-]|\.\w)",
    "a question without its mark": r"[;:] (is|are|does|has) [^?]*$",
    "a trailing colon or comma": r"[:;,]\s*$",
    "a traceback": r"Traceback|File \"",
    "a repr of an object": r"<[\w.]+ (object )?at 0x|\b(Path|PosixPath|SecretStr|URL)\(",
    "more than one line": r"\n.",
    "more than one space": r"\S  +\S",
}


def faults(message: str) -> list[str]:
    """What is wrong with a message; nothing: it can be shown to a user."""
    found = [name for name, pattern in FAULTS.items() if re.search(pattern, message)]
    if len(message) > LONGEST:
        found.append(f"more than {LONGEST} signs")
    if not message.strip() or message.strip()[0] in ".,:;":
        found.append("no beginning")
    return found
