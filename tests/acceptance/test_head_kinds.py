"""A third kind of head is one class: the one defined here goes through the whole job without another edit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enrich.errors import BundleError, UsageError
from enrich.index.protocol import Query
from enrich.model.head import Head
from enrich.model.kind import KINDS, Answer, Condition, Floats, Kind
from enrich.model.seen import Seen
from enrich.state.summary import summary
from jobs.cli.parse import read_assignment, read_query
from jobs.migrate import migrate
from jobs.run.services import open_services
from jobs.views.search import show_hits
from jobs.views.show import explain, show_listing
from jobs.views.status import as_plain
from tests.support.bundles import bundle_with
from tests.support.harness import World

BRIGHT = {"name": "light", "kind": "score"}


@pytest.fixture(autouse=True)
def score() -> Iterator[None]:
    class Score(Kind, word="score"):
        """How much of something the best photo shows, 0 to 1: `X_score`."""

        field = "{}_score"

        def outputs(self, head: Head) -> int:
            return 1

        def problems(self, head: Head, thresholds: set[str]) -> Iterator[str]:
            if thresholds or head.classes:
                yield f"head {head.name!r} is a score: it has no thresholds and no classes; leave them out"

        def chances(self, scaled: Floats) -> Floats:
            return np.asarray(1 / (1 + np.exp(-scaled)))

        def answer(self, head: Head, logits: Floats, seen: Seen) -> Answer:
            best = round(float(head.probabilities(logits).max()), 4) if seen.photos else None
            return Answer({f"{head.name}_score": best})

        def fields(self, name: str) -> dict[str, str]:
            return {f"{name}_score": "float"}

        def columns(self, name: str) -> dict[str, str]:
            return {f"{name}_score": "real"}

        def condition(self, head: Head, value: str | None) -> Condition:
            try:
                return Condition(f"{head.name}_score", float(value or ""), at_least=True)
            except ValueError:
                raise UsageError(f"--type {head.name}={value}: write a number from 0 to 1") from None

        def ranked_by(self, name: str) -> str | None:
            return f"{name}_score"

        def shown(self, name: str, document: Mapping[str, Any]) -> str:
            found = document.get(f"{name}_score")
            return "?" if found is None else f"score {found:.1f}"

        def plain(self, head: Head, chances: Floats) -> float:
            return round(float(chances[0]), 4)

        def photo_shown(self, head: Head, plain: float) -> tuple[str, bool]:
            return f"photo {plain:.1f}", False

        def why(self, head: Head, logits: Floats, seen: Seen) -> str:
            return f"the best of {len(seen.photos)} photos"

    yield
    del KINDS["score"]


def test_its_manifest_is_checked_by_its_own_rules(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="'light' is a score"):
        bundle_with(tmp_path, ({**BRIGHT, "thresholds": {"true": 0.5, "false": 0.1}}, "balcony"))


@pytest.mark.parametrize("where", ["Elasticsearch", "embedded"])
def test_a_third_kind_goes_from_the_photos_to_what_people_read(
    world: World, tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fixed["bundle"] = bundle_with(tmp_path, (BRIGHT, "balcony"))
    if where == "embedded":
        world.fixed["elasticsearch_url"] = None
    world.listing("bright", "kitchen", "balcony", city="Solna")
    world.listing("dark", "kitchen", "bedroom", city="Lund")
    world.portal.add("unseen", [], city="Lund")
    migrate(world.settings())
    assert world.run().exit_code == 0
    if where == "Elasticsearch":
        world.elasticsearch.indices.refresh(index=world.index)

    with open_services(world.settings()) as services:
        query = read_query([], [], ["light=0.9"], [], 20)
        (hit,) = services.index.search(query).documents
        assert hit["listing_id"] == "bright" and 0.9 < hit["light_score"] < 1
        ranked = services.index.search(Query(types={"light": ("0",)})).documents
        assert [document["listing_id"] for document in ranked] == ["bright", "dark"]
        with pytest.raises(UsageError, match="write a number"):
            services.index.search(Query(types={"light": ("much",)}))
        with pytest.raises(UsageError, match="no attribute 'light'; there is: balcony, fireplace"):
            services.index.search(Query(has=("light",)))

        with pytest.raises(UsageError, match="has_balcony, has_fireplace, room_types"):
            read_assignment("light_score=1", services.bundle.heads)
        with pytest.raises(UsageError, match="'light_score' cannot be overridden"):
            services.overrides.set_override("bright", "light_score", 1.0, None, None)

        show_hits(services.index.search(query), query, services.bundle.heads, [])
        found = capsys.readouterr().out
        assert "light" in found and "score 1.0" in found
        explained = explain(services, "bright")
        assert [photo["probabilities"]["light"] > 0.9 for photo in explained["photos"]] == [False, True]
        show_listing(explained, services.bundle.heads)
        shown = capsys.readouterr().out
        assert all(
            text in shown for text in ("light_score", "score 1.0", "photo 1.0", "the best of 2 photos")
        )
        plain = as_plain(summary(services.database), [], None, services.model)
        assert plain["bundle"]["arithmetic"] == "fp32"
        assert plain["bundle"]["precision_basis"].keys() == {"balcony", "fireplace"}

    view = "SELECT id, light_score, has_balcony FROM enrichment.listing_attributes ORDER BY id"
    rows = {row.id: row for row in world.portal.execute(view)}
    assert rows["bright"].light_score == pytest.approx(hit["light_score"], abs=1e-4)
    assert rows["dark"].light_score < 0.1 and rows["unseen"].light_score is None
    if where == "Elasticsearch":
        (index,) = world.elasticsearch.indices.get(index=world.index).values()
        assert index["mappings"]["properties"]["light_score"] == {"type": "float"}


def test_its_fields_are_taken_out_of_the_portal_s_documents_when_the_head_is_gone(
    world: World, tmp_path: Path
) -> None:
    world.listing("a", "kitchen")
    world.elasticsearch.index(index=world.index, id="a", document={"title": "A home"})
    tiny = world.fixed["bundle"]
    world.fixed |= {
        "index_mode": "merge",
        "bundle": bundle_with(tmp_path, (BRIGHT, "balcony")),
        "index_columns": (),
    }
    world.run()
    assert world.documents()["a"]["light_score"] < 0.1
    world.fixed["bundle"] = tiny
    world.backfill()
    assert world.documents()["a"]["light_score"] is None
    assert world.documents()["a"]["title"] == "A home"
