"""A night in fp32, one in int8 or bf16: each scores the photos itself and judges by its own thresholds."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from enrich.model.arithmetic import Faster, cpu_has
from enrich.model.bundle import load_bundle
from jobs.run.services import open_records
from jobs.views.show import explain
from tests.support.bundles import faster, make_bundle
from tests.support.harness import World


@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_scores_of_two_arithmetics_are_never_mixed(world: World, name: str) -> None:
    if not cpu_has(name):  # type: ignore[arg-type]
        pytest.skip(f"this CPU does not compute in {name}")
    # In fp32 a drawn balcony is far above the threshold; in the other arithmetic nothing may reach its own.
    make_bundle(world.fixed["bundle"].parent / "both", arithmetics={name: faster(true=1.0)})
    world.fixed["bundle"] = world.fixed["bundle"].parent / "both"
    ids = {one: load_bundle(world.fixed["bundle"]).at(one).members[0].model_id for one in ("fp32", name)}
    world.listing("7", "kitchen", "balcony")

    def has_balcony() -> bool | None:
        found: bool | None = world.documents()["7"].get("has_balcony")
        return found

    def scored() -> dict[str, int]:
        rows = world.portal.execute(
            "SELECT model_id, count(*) AS photos FROM enrichment.photo_score GROUP BY model_id"
        )
        by_id = {row.model_id: row.photos for row in rows}
        assert by_id.keys() <= set(ids.values())
        return {one: by_id.get(id, 0) for one, id in ids.items()}

    assert world.run().figures.scored == 2
    assert has_balcony() is True and scored() == {"fp32": 2, name: 0}
    again = world.backfill(settings={"precision": name})
    assert again.figures.scored == 2, "what fp32 scored is no score of the other"
    assert has_balcony() is None and scored() == {"fp32": 2, name: 2}
    back = world.backfill()
    assert back.figures.scored == 0, "its own scores are still known"
    assert has_balcony() is True
    told = world.enrich_here("status", precision=name).stdout
    assert f"scores in          {name} (as ENRICH_PRECISION says)" in told


@pytest.fixture(params=["bf16", "int8"])
def another(world: World, request: pytest.FixtureRequest) -> str:
    """Another arithmetic of the bundle with which a listing was made in fp32."""
    name: Faster = request.param
    if not cpu_has(name):
        pytest.skip(f"this CPU does not compute in {name}")
    made = make_bundle(world.fixed["bundle"].parent / "both", arithmetics={name: faster(true=1.0)})
    world.fixed["bundle"] = made.folder
    world.listing("7", "kitchen", "balcony")
    world.run()
    return name


def test_a_machine_with_another_arithmetic_explains_what_was_made_in_the_first_one(
    world: World, another: str
) -> None:
    told = {}
    for one in ("fp32", another):
        with open_records(world.settings(precision=one)) as records:
            told[one] = explain(records, "7")
    assert told[another] == told["fp32"]
    assert told[another]["arithmetic"] == "fp32" and "yes from" in told[another]["why"]["balcony"]
    shown = world.enrich_here("show", "7", precision=another).stdout
    assert shown == world.enrich_here("show", "7", precision="fp32").stdout


def test_a_machine_with_another_arithmetic_exports_the_features_that_were_kept(
    world: World, tmp_path: Path, another: str
) -> None:
    rows = []
    for one in ("fp32", another):
        ended = world.enrich_here("export-features", str(tmp_path / f"{one}.parquet"), precision=one)
        assert ended.returncode == 0, ended.stderr
        rows.append(pq.read_table(tmp_path / f"{one}.parquet").to_pylist())
    assert rows[0] == rows[1] and rows[0][0]["views"] == 2


def test_a_machine_with_another_arithmetic_exports_tasks_of_what_the_nights_scored(
    world: World, tmp_path: Path, another: str
) -> None:
    ended = world.enrich_here(
        "labels", "export", str(tmp_path), "--format", "label-studio", precision=another
    )
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads((tmp_path / "tasks.json").read_text())) == 2
