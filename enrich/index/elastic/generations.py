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
from enrich.index.elastic.own import MADE_BY, OwnIndex, refuse_others
from enrich.index.elastic.reading import held
from enrich.index.elastic.server import Found, Refused, Server
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

    def fits(self, found: Found) -> bool:
        """Whether an index was made for the very mapping and settings of now."""
        return bool(found.meta.get("made_for") == self._meta["made_for"])


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
        found = self._serving.found()
        return (found.name, found.uuid) if found else None

    def held(self, ids: Sequence[str]) -> list[str]:
        return held(self._server, self._alias, ids)

    def take_up(self) -> bool:
        if served := self._serving.found():
            refuse_others(self._alias, served)
        found = self._made()
        if found is None or self._next.fits(found):
            return found is not None
        self._server.delete([found.name])
        return False

    def drop(self) -> None:
        if found := self._made():
            self._server.delete([found.name])

    def count(self) -> int:
        with self._there():
            self._server.refresh(f"{self._alias}-next")
            return self._server.count(f"{self._alias}-next")

    def swap(self) -> tuple[str, str]:
        made, served = self._made(), self._serving.found()
        if made is None:
            raise self._gone()
        old = served.name if served else None
        with self._there():
            self._server.put_mapping(made.name, dynamic="strict", _meta={**made.meta, "replaces": old})
            self._server.refresh(made.name)
        away = {"index": made.name, "alias": f"{self._alias}-next", "must_exist": True}
        self._move(old, made.name, {"remove": away})
        return made.name, made.uuid

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
        self._made()  # refuses somebody else's under that name while nothing has moved
        served = self._serving.found()
        before = served and self._ours().get(served.meta.get("replaces", ""))
        if served is None or before is None:
            raise UsageError(
                f"of alias {self._alias} no index is kept that served before: there is none to go back to"
            )
        try:
            self._server.refresh(before.name)  # what it got last may not be searchable yet
        except IndexUnavailable as error:
            raise IndexUnavailable(
                f"{before.name}, which served before, cannot serve now ({error}): if it is closed, open it"
            ) from None
        self._move(served.name, before.name)
        return before.name, before.uuid

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
        served = self._serving.found()
        name = served and served.meta.get("replaces")
        while name in ours and len(kept) < most:
            kept[name] = ours[name].uuid
            name = ours[name].meta.get("replaces")
        return kept

    def prune(self, kept: Mapping[str, str]) -> list[str]:
        ours = self._ours()
        removed = sorted(name for name in ours if name not in kept and not ours[name].aliases)
        if removed:
            self._server.delete(removed)
        return removed

    def contradiction(self) -> str | None:
        try:
            self._serving.check()
        except IndexSetupError as error:
            return str(error)
        return None

    def _made(self) -> Found | None:
        """The index in the making; refuses another one in its place, which would be dropped for it."""
        found = self._next.found()
        if found and not self._is_ours(found):
            raise IndexSetupError(
                f"alias {self._alias}-next leads to {found.name}, which was not made for {self._alias}: give "
                "that index another alias, or choose another ENRICH_INDEX"
            )
        return found

    def _ours(self) -> dict[str, Found]:
        """All indices that the job made for this alias, by name."""
        found = self._server.indices(f"{self._alias}-*")
        return {name: one for name, one in found.items() if self._is_ours(one)}

    def _is_ours(self, found: Found) -> bool:
        named = re.fullmatch(re.escape(self._alias) + r"-\d{20}", found.name)
        return bool(named) and found.meta.get("made_by") == MADE_BY

    def close(self) -> None:
        self._server.close()
