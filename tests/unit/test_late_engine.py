"""An engine that is opened when there is something to score, in the thread that scores."""

from collections.abc import Sequence
from pathlib import Path
from threading import get_ident

import pytest

from enrich.errors import SettingsError
from enrich.model import open as opening
from enrich.model.bundle import Bundle
from enrich.model.engine import Pixels, lane_pool
from enrich.model.open import LateEngine
from enrich.records import Output
from enrich.settings import Settings, load_settings
from tests.support.bundles import make_bundle


@pytest.fixture
def late(tmp_path: Path) -> LateEngine:
    return LateEngine(make_bundle(tmp_path / "bundle"), load_settings())


def test_what_keeps_it_from_opening_is_told_to_who_scores(
    late: LateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(bundle: Bundle, settings: Settings) -> None:
        raise SettingsError("ENRICH_DEVICE=cuda: there is none")

    monkeypatch.setattr(opening, "open_engine", refuse)
    with lane_pool(late) as lanes, pytest.raises(SettingsError, match="ENRICH_DEVICE=cuda"):
        lanes.submit(late.score, []).result()


def test_its_lanes_are_started_once_by_the_threads_that_score(
    late: LateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, int]] = []

    class Real:
        def start_lane(self) -> None:
            called.append(("start", get_ident()))

        def score(self, batch: Sequence[Pixels]) -> list[dict[str, Output]]:
            called.append(("score", get_ident()))
            return []

    monkeypatch.setattr(opening, "open_engine", lambda bundle, settings: Real())
    for _ in range(2):  # one after another, as the pages of `rescore`
        with lane_pool(late) as lanes:
            for _ in range(2):
                lanes.submit(late.score, []).result()
    first, _, _, second, _, _ = called
    assert [name for name, _ in called] == ["start", "score", "score"] * 2
    assert first[0] == second[0] == "start"
    assert all(thread == called[place // 3 * 3][1] for place, (_, thread) in enumerate(called))
