"""The indices that a job made for one alias: the one that serves, the one in the making, and earlier ones.

The one in the making stands behind an alias of its own, `<alias>-next`, and is written like any other. It
takes the place of the one that serves in one request, which moves both aliases. Its mapping's `_meta` says
what it was made for, and which index it replaced.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from enrich.errors import IndexSetupError, UsageError
from enrich.index.elastic.own import MADE_BY, OwnIndex, find, refuse_others
from enrich.index.elastic.server import Refused, Server, uuid_of
from enrich.index.mapping import Extras
from enrich.index.protocol import IndexUnavailable, SearchIndex
from enrich.model.head import Head


class _NextIndex(OwnIndex):
    """The index in the making."""

    def __init__(
        self,
        server: Server,
        alias: str,
        heads: Sequence[Head],
        copied: Mapping[str, str],
        extras: Extras,
    ) -> None:
        super().__init__(server, f"{alias}-next", heads, copied, extras)
        wanted = json.dumps([self._mapping, self._settings], sort_keys=True)
        self._stem = alias
        self._meta = {"made_by": MADE_BY, "made_for": sha256(wanted.encode()).hexdigest()}

    def fits(self, found: Mapping[str, Any]) -> bool:
        """Whether an index was made for the very mapping and settings of now."""
        return bool(_meta(found).get("made_for") == self._meta["made_for"])


class Generations:
    """See `enrich.index.protocol.Generations`."""

    def __init__(
        self,
        server: Server,
        alias: str,
        heads: Sequence[Head],
        copied: Mapping[str, str],
        extras: Extras,
    ) -> None:
        self._server = server
        self._alias = alias
        self._serving = OwnIndex(server, alias, heads, copied, extras)
        self._next = _NextIndex(server, alias, heads, copied, extras)

    @property
    def building(self) -> SearchIndex:
        return self._next

    def serving(self) -> tuple[str, str] | None:
        found = find(self._server, self._alias)
        return found and (found[0], uuid_of(found[1]))

    def take_up(self) -> bool:
        if served := find(self._server, self._alias):
            refuse_others(self._alias, *served)
        found = find(self._server, f"{self._alias}-next")
        if found is None or self._next.fits(found[1]):
            return found is not None
        self._server.delete([found[0]])
        return False

    def drop(self) -> None:
        if found := find(self._server, f"{self._alias}-next"):
            self._server.delete([found[0]])

    def count(self) -> int:
        with self._there():
            self._server.refresh(f"{self._alias}-next")
            return self._server.count(f"{self._alias}-next")

    def swap(self) -> tuple[str, str]:
        made, served = find(self._server, f"{self._alias}-next"), find(self._server, self._alias)
        if made is None:
            raise self._gone()
        name, found = made
        old = served and served[0]
        meta = {**_meta(found), "replaces": old}
        with self._there():
            self._server.put_mapping(name, dynamic="strict", _meta=meta)
            self._server.refresh(name)
        away = {"index": name, "alias": f"{self._alias}-next", "must_exist": True}
        self._move(old, name, {"remove": away})
        return name, uuid_of(found)

    @contextmanager
    def _there(self) -> Iterator[None]:
        """What is asked of the index in the making, which somebody else may have removed."""
        try:
            yield
        except Refused as error:
            if not error.absent:
                raise
            raise self._gone() from None

    def _gone(self) -> IndexUnavailable:
        return IndexUnavailable(f"the index in the making, behind {self._alias}-next, is gone")

    def rollback(self) -> tuple[str, str]:
        served = find(self._server, self._alias)
        before = served and _meta(served[1]).get("replaces")
        found = self._ours().get(before) if before else None
        if served is None or before is None or found is None:
            raise UsageError(
                f"of alias {self._alias} no index is kept that served before: there is none to go back to"
            )
        self._server.refresh(before)  # what it got last may not be searchable yet
        self._move(served[0], before)
        return before, uuid_of(found)

    def _move(self, old: str | None, new: str, *also: Mapping[str, Any]) -> None:
        """The one step: a search finds the one index or the other."""
        actions: list[Mapping[str, Any]] = [
            {"add": {"index": new, "alias": self._alias, "is_write_index": True}},
            *also,
        ]
        if old is not None:
            actions.append({"remove": {"index": old, "alias": self._alias, "must_exist": True}})
        try:
            self._server.move_aliases(actions)
        except Refused as error:
            if error.status not in (400, 404):
                raise
            raise IndexSetupError(
                f"alias {self._alias} cannot be moved to {new}: {error.reason}. It leads to where "
                "it did before; start the command again"
            ) from None

    def kept(self, most: int) -> dict[str, str]:
        ours = self._ours()
        kept: dict[str, str] = {}
        served = find(self._server, self._alias)
        name = served and _meta(served[1]).get("replaces")
        while name in ours and len(kept) < most:
            kept[name] = uuid_of(ours[name])
            name = _meta(ours[name]).get("replaces")
        return kept

    def prune(self, kept: Mapping[str, str]) -> list[str]:
        ours = self._ours()
        removed = sorted(name for name in ours if name not in kept and not ours[name]["aliases"])
        if removed:
            self._server.delete(removed)
        return removed

    def contradiction(self) -> str | None:
        try:
            self._serving.check()
        except IndexSetupError as error:
            return str(error)
        return None

    def _ours(self) -> dict[str, dict[str, Any]]:
        """All indices that the job made for this alias, by name."""
        found = self._server.indices(f"{self._alias}-*")
        named = re.compile(re.escape(self._alias) + r"-\d{20}")
        return {
            name: index
            for name, index in found.items()
            if named.fullmatch(name) and _meta(index).get("made_by") == MADE_BY
        }

    def close(self) -> None:
        self._server.close()


def _meta(found: Mapping[str, Any]) -> dict[str, Any]:
    meta: dict[str, Any] = found["mappings"].get("_meta", {})
    return meta
