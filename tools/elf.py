"""Shared libraries of Linux on x86-64 (ELF64): what one wants and offers, and how to make it smaller."""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SEGMENT, SECTION = 56, 64
LOAD, NOTE = 1, 4
DYNAMIC, DYNSYM, VERNEED, VERSYM = 6, 11, 0x6FFFFFFE, 0x6FFFFFFF
NEEDED, WEAK = 1, 2


@dataclass(frozen=True)
class Wanted:
    """A symbol that a library leaves to others: its name, and the version and file it is bound to, if any."""

    name: str
    version: str = ""
    file: str = ""


@dataclass(frozen=True)
class Library:
    """The files that a library needs, the symbols that it wants (without the weak ones), those it offers."""

    needed: frozenset[str]
    wanted: frozenset[Wanted]
    offered: frozenset[str]


@dataclass(frozen=True)
class Section:
    """A part of the file: name, kind, number of the section with its strings, offset and bytes."""

    name: str
    kind: int
    strings: int
    start: int
    size: int


def read(path: Path) -> Library:
    """The dynamic symbols of the library at `path`. Raises ValueError when it is not ELF64 for x86-64."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        sections = _sections(data)
        parts = {part.kind: data[part.start : part.start + part.size] for part in sections}
        names = next(sections[part.strings] for part in sections if part.kind == DYNSYM)
        texts = data[names.start : names.start + names.size]
    versions = _versions(parts.get(VERNEED, b""), texts)
    bound = [index & 0x7FFF for (index,) in struct.iter_unpack("<H", parts.get(VERSYM, b""))]
    wanted, offered = set(), set()
    for number, (at, info, _, section, _, _) in enumerate(struct.iter_unpack("<IBBHQQ", parts[DYNSYM])):
        if section:
            offered.add(_text(texts, at))
        elif at and info >> 4 != WEAK:
            wanted.add(Wanted(_text(texts, at), *versions.get(bound[number] if bound else 0, ("", ""))))
    tags = struct.iter_unpack("<qQ", parts[DYNAMIC])
    needed = frozenset(_text(texts, at) for tag, at in tags if tag == NEEDED)
    return Library(needed, frozenset(wanted), frozenset(offered))


def _sections(data: mmap.mmap) -> list[Section]:
    if data[:6] != b"\x7fELF\2\1" or struct.unpack_from("<H", data, 18) != (62,):
        raise ValueError("not a 64-bit library for x86-64")
    (table,), (count, names) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<HH", data, 60)
    rows = list(struct.iter_unpack("<IIQQQQIIQQ", data[table : table + SECTION * count]))
    texts = data[rows[names][4] : rows[names][4] + rows[names][5]]
    return [
        Section(_text(texts, at), kind, link, start, size) for at, kind, _, _, start, size, link, *_ in rows
    ]


def _text(texts: bytes, at: int) -> str:
    return texts[at : texts.index(b"\0", at)].decode()


def _versions(needs: bytes, texts: bytes) -> Mapping[int, tuple[str, str]]:
    """The (version, file) behind each index of a symbol's version."""
    found, at, following = {}, 0, 1 if needs else 0
    while following:
        _, count, file, entry, following = struct.unpack_from("<HHIII", needs, at)
        entry += at
        for _ in range(count):
            _, _, index, version, after = struct.unpack_from("<IHHII", needs, entry)
            found[index] = (_text(texts, version), _text(texts, file))
            entry += after
        at += following
    return found


def cut(path: Path, names: set[str]) -> bytes:
    """The library at `path` without the content of the sections `names`, but for parts of a page.

    What stays keeps its address, so nothing needs to be linked again. Raises ValueError when the library has
    no such section, or no room to say what it has lost.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        sections = _sections(data)
        table, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
        segments = list(struct.iter_unpack("<IIQQQQQQ", data[table : table + SEGMENT * count]))
        step: int = max(segment[-1] for segment in segments if segment[0] == LOAD)
        spans = [
            (-(-part.start // step), (part.start + part.size) // step)
            for part in sections
            if part.name in names
        ]
        holes = [(start * step, end * step) for start, end in sorted(spans) if start < end]
        if not holes:
            raise ValueError(f"{path.name} has no section {' or '.join(sorted(names))}")

        def moved(offset: int) -> int:
            return offset - sum(end - start for start, end in holes if end <= offset)

        edges = [0, *(edge for hole in holes for edge in hole), len(data)]
        whole = bytearray().join(data[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))

    pieces = [piece for segment in segments if segment[0] != NOTE for piece in _pieces(segment, holes)]
    if len(pieces) > count:
        raise ValueError(f"{path.name} has no room for {len(pieces)} segments")
    for number, (kind, flags, start, *rest) in enumerate(pieces):
        struct.pack_into("<IIQQQQQQ", whole, table + SEGMENT * number, kind, flags, moved(start), *rest)
    (headers,) = struct.unpack_from("<Q", whole, 40)
    struct.pack_into("<Q", whole, 40, moved(headers))
    struct.pack_into("<H", whole, 56, len(pieces))
    for number, part in enumerate(sections):
        at = moved(headers) + SECTION * number
        if part.name in names:
            whole[at : at + SECTION] = bytes(SECTION)
        else:
            struct.pack_into("<Q", whole, at + 24, moved(part.start))
    return bytes(whole)


def _pieces(segment: tuple[int, ...], holes: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The segment, cut at the holes that lie in it."""
    kind, flags, start, address, physical, stored, size, align = segment
    if kind != LOAD:
        return [segment]
    pieces, begin = [], start
    for first, last in holes:
        if start <= first and last <= start + stored:
            length, ahead = first - begin, begin - start
            pieces.append((kind, flags, begin, address + ahead, physical + ahead, length, length, align))
            begin = last
    ahead = begin - start
    pieces.append(
        (kind, flags, begin, address + ahead, physical + ahead, stored - ahead, size - ahead, align)
    )
    return [piece for piece in pieces if piece[6]]
