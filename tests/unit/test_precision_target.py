"""ENRICH_PRECISION_TARGET: the same models, other thresholds, another bundle."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import BundleError
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.open import choose
from enrich.settings import load_settings
from tests.support.bundles import binary_head, make_bundle, room_head

TRUE_AT = {"0.8": 0.3, "0.9": 0.6, "0.95": 0.8}


def head(name: str = "balcony") -> dict[str, Any]:
    entry = binary_head(name)
    entry["thresholds"] = {"true": 0.8, "false": 0.4, "true_at": TRUE_AT}
    counts = {"0.9": {"cross_fitted": {"precision": {"of": 90}}, "basis": "homes"}}
    true = {
        "target": 0.95,
        "basis": "estimate",
        "cross_fitted": {"precision": {"of": 40}},
        "by_target": counts,
    }
    return {**entry, "metrics": {"true": true}}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(
        tmp_path / "bundle",
        heads=[head(), head("fireplace"), room_head()],
    )


def test_the_target_takes_its_thresholds_and_its_figures(bundle: Bundle) -> None:
    at = choose(bundle, load_settings(device="cpu", precision_target=0.9)).bundle
    balcony, _, rooms = at.heads
    assert (balcony.true_threshold, balcony.false_threshold) == (0.6, 0.4)
    assert (balcony.precision_target, balcony.precision_basis, balcony.backing_homes) == (0.9, "homes", 90)
    assert rooms == bundle.heads[2]


def test_no_is_never_said_above_yes(bundle: Bundle) -> None:
    at = choose(bundle, load_settings(device="cpu", precision_target=0.8)).bundle
    assert (at.heads[0].true_threshold, at.heads[0].false_threshold) == (0.3, 0.3)


def test_it_is_another_bundle_with_the_same_models(bundle: Bundle) -> None:
    at = choose(bundle, load_settings(device="cpu", precision_target=0.9)).bundle
    again = choose(load_bundle(bundle.folder), load_settings(device="cpu", precision_target=0.9)).bundle
    assert at.bundle_id == again.bundle_id != bundle.bundle_id
    assert [one.model_id for one in at.members] == [one.model_id for one in bundle.members]


def test_the_bundles_own_target_is_the_bundle_itself(bundle: Bundle) -> None:
    own = choose(bundle, load_settings(device="cpu", precision_target=0.95)).bundle
    assert own.bundle_id == bundle.bundle_id == choose(bundle, load_settings(device="cpu")).bundle.bundle_id


def test_a_target_that_the_bundle_has_not_is_refused_with_those_that_it_has(bundle: Bundle) -> None:
    with pytest.raises(
        BundleError, match=r"balcony has no threshold .* 0\.97 \(there are: 0\.8, 0\.9, 0\.95\)"
    ):
        choose(bundle, load_settings(device="cpu", precision_target=0.97))


@pytest.mark.parametrize(
    ("true_at", "refused"), [({"high": 0.5}, "not 'high'"), ({"0.9": 1.5}, "less than or equal to 1")]
)
def test_a_manifest_with_other_names_or_numbers_is_refused(
    bundle: Bundle, true_at: dict[str, float], refused: str
) -> None:
    manifest = copy.deepcopy(bundle.manifest)
    manifest["members"][0]["heads"][0]["thresholds"]["true_at"] = true_at
    (bundle.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=refused):
        load_bundle(bundle.folder)
