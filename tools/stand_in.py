"""Stand-ins for libraries in C that are not there, written as ELF files so that no compiler is needed."""

import struct
from collections.abc import Iterable, Sequence

from tools.elf import SECTION, SEGMENT

PAGE = 0x1000
SYMBOL, TAGS = 24, 10


def stand_in(soname: str, version: str, functions: Iterable[str], error: int, message: str) -> bytes:
    """A library that offers `functions` under `version`, or under none if that is empty.

    They do nothing: each returns `error`, or the text `message` where its name asks for a text.
    """
    names = sorted(functions)
    texts, at = b"\0", []
    for text in (*names, soname, version, message):
        at.append(len(texts))
        texts += text.encode() + b"\0"
    *name_at, soname_at, version_at, message_at = at

    # What is read, what is run, what the loader writes to: each begins on a page of its own.
    symbols_at = SECTION + 5 * SEGMENT
    hash_at = symbols_at + SYMBOL * (len(names) + 1)
    version_of_at = hash_at + 4 * (2 + 2 * (len(names) + 1))
    versions_at = version_of_at + 2 * (len(names) + 1)
    versions_at += -versions_at % 8
    texts_at = versions_at + 2 * 28
    code_at = -(-(texts_at + len(texts)) // PAGE) * PAGE
    dynamic_at = code_at + PAGE

    returns_error = b"\xb8" + struct.pack("<I", error) + b"\xc3"  # mov eax, error; ret
    returns_text = (
        b"\x48\x8d\x05" + struct.pack("<i", texts_at + message_at - code_at - 16 - 7) + b"\xc3"
    )  # lea rax
    table = [bytes(SYMBOL)]
    for name, name_offset in zip(names, name_at, strict=True):
        place = code_at + 16 * name.endswith(("ErrorString", "ErrorName"))
        table.append(struct.pack("<IBBHQQ", name_offset, 0x12, 0, 1, place, 0))

    tags = [(14, soname_at), (4, hash_at), (5, texts_at), (10, len(texts)), (6, symbols_at), (11, SYMBOL)]
    if version:
        tags += [(0x6FFFFFF0, version_of_at), (0x6FFFFFFC, versions_at), (0x6FFFFFFD, 2)]
    whole = b""
    for offset, part in (
        (0, _header(texts_at + len(texts), code_at, dynamic_at)),
        (symbols_at, b"".join(table)),
        (hash_at, _hash_table(names)),
        (version_of_at, struct.pack(f"<{len(table)}H", 0, *[2 if version else 1] * len(names))),
        (versions_at, _version(1, soname, soname_at) + _version(2, version, version_at)),
        (texts_at, texts),
        (code_at, returns_error),
        (code_at + 16, returns_text),
        (dynamic_at, b"".join(struct.pack("<qQ", *tag) for tag in tags).ljust(16 * TAGS, b"\0")),
    ):
        whole = whole.ljust(offset, b"\0") + part
    return whole


def _header(read: int, code: int, dynamic: int) -> bytes:
    """The file's header and its segments: `read` bytes to read, 32 of code, and what the loader needs."""
    segments = [  # kind, flags, start, length, alignment
        (1, 4, 0, read, PAGE),
        (1, 5, code, 32, PAGE),
        (1, 6, dynamic, 16 * TAGS, PAGE),
        (2, 6, dynamic, 16 * TAGS, 8),
        (0x6474E551, 6, 0, 0, 16),
    ]
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header += struct.pack("<HHIQQQI", 3, 62, 1, 0, SECTION, 0, 0)
    header += struct.pack("<HHHHHH", SECTION, SEGMENT, len(segments), SECTION, 0, 0)
    return header + b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, align)
        for kind, flags, at, size, align in segments
    )


def _version(number: int, name: str, name_at: int) -> bytes:
    last = number == 2
    return struct.pack("<HHHHIIIII", 1, not last, number, 1, _hash(name), 20, 0 if last else 28, name_at, 0)


def _hash_table(names: Sequence[str]) -> bytes:
    buckets, chain = [0] * (len(names) + 1), [0] * (len(names) + 1)
    for number, name in enumerate(names, 1):
        bucket = _hash(name) % len(buckets)
        chain[number], buckets[bucket] = buckets[bucket], number
    return struct.pack(f"<{2 + 2 * len(chain)}I", len(buckets), len(chain), *buckets, *chain)


def _hash(name: str) -> int:
    """The hash of System V's ABI."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value
