"""Faster arithmetics of a fit: what is made, and that no head or backbone judges what it learnt from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enrich.errors import UsageError
from enrich.model.arithmetic import cpu_has
from enrich.model.bundle import Bundle
from tests.support.bundles import binary_head, faster, make_bundle, room_head
from tests.support.evaluating import OTHER, draw_homes
from training.data.photos import PhotoSet
from training.evaluate.faster import Making
from training.evaluate.labelled import load_labelled
from training.fit.arithmetics import add_held_out, plan_making
from training.fit.options import FitOptions
from training.models.backbones import Backbone, backbone_of, load_backbone
from training.models.heads import FittedHead, LinearHead

PLAIN = [*OTHER, *OTHER]
HOMES = [["balcony", *PLAIN[1:]]] * 12 + [[*PLAIN[:-1], "fireplace"]] * 12
COUNTS = {part: {"hits": 10, "of": 12} for part in ("precision", "recall")}
needs_both = pytest.mark.skipif(
    not (cpu_has("bf16") and cpu_has("int8")), reason="needs a CPU with bf16 and int8 instructions"
)


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, PhotoSet]:
    """The tiny bundle as if it had been fitted on drawn homes."""
    folder = tmp_path_factory.mktemp("fit")
    metrics = {"metrics": {"true": {"cross_fitted": COUNTS}}}
    heads = [binary_head("balcony") | metrics, binary_head("fireplace") | metrics, room_head()]
    bundle = make_bundle(folder / "bundle", heads=heads)
    photos, _ = load_labelled(draw_homes(folder / "photos", HOMES), bundle)
    return bundle, replace(photos, split=np.full(len(photos), "train"))


def judged(
    fit: tuple[Bundle, PhotoSet],
    scratch: Path,
    balcony_of_fold_1: float = 1.0,
    by_fold: Sequence[Backbone] = (),
    making: Making = Making(("bf16",)),  # noqa: B008
) -> float:
    """Average precision of `balcony` in the arithmetic made: every other home is in fold 1, whose head is the
    bundle's own times `balcony_of_fold_1`."""
    bundle, photos = fit
    fold = np.unique(photos.group, return_inverse=True)[1] % 2
    tensors = bundle.tensors(bundle.members[0])
    heads = []
    for head in bundle.heads:
        one = LinearHead(tensors[f"head.{head.name}.weight"], tensors[f"head.{head.name}.bias"])
        times = balcony_of_fold_1 if head.name == "balcony" else 1.0
        other = LinearHead(one.weight * np.float32(times), one.bias * np.float32(times))
        logits = np.zeros((len(photos), head.outputs))
        heads.append(FittedHead(head.name, one, None, {0: one, 1: other}, logits, fold))
    options = FitOptions(photos.folder, scratch)
    draft, _ = add_held_out(bundle, heads, by_fold, photos, making, options, scratch)
    spec = draft.manifest["members"][0]["arithmetics"][making.arithmetics[-1]]
    assert spec["figures"]["photos"] == len(photos)
    assert spec["figures"]["heads"]["balcony"]["fp32"]["recall"] == COUNTS["recall"], "as the fit found"
    figures: float = spec["figures"]["heads"]["balcony"]["here"]["average_precision"]
    return figures


@needs_both
def test_a_photo_is_judged_by_the_head_that_did_not_learn_from_it(
    fit: tuple[Bundle, PhotoSet], tmp_path: Path
) -> None:
    assert judged(fit, tmp_path / "same") == 1.0
    assert judged(fit, tmp_path / "other", balcony_of_fold_1=-1.0) < 0.6


@needs_both
def test_a_photo_is_judged_by_the_backbone_that_did_not_learn_from_it(
    fit: tuple[Bundle, PhotoSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.evaluate import faster as module

    bundle, photos = fit
    calibrated: list[set[str]] = []
    sampled = module.sampled

    def watched(paths: Sequence[Path], *other: object) -> object:
        calibrated.append({str(path.relative_to(photos.folder)) for path in paths})
        return sampled(paths[:4], *other)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "sampled", watched)
    own, other = backbone_of(bundle), load_backbone("timm:test_resnet", "none", size=64, seed=1)
    making = Making(("int8",), tuple(photos.folder / path for path in photos.paths))
    assert judged(fit, tmp_path, by_fold=[own, other], making=making) < 0.9
    fold = np.unique(photos.group, return_inverse=True)[1] % 2
    paths = np.array(photos.paths)
    assert calibrated == [set(paths), set(paths[fold == 1]), set(paths[fold == 0])]
    assert judged(fit, tmp_path / "own", by_fold=[own, own], making=making) > 0.9


def test_what_a_bundle_has_is_carried_along_as_far_as_this_cpu_computes_it(
    fit: tuple[Bundle, PhotoSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_bundle(tmp_path / "base", arithmetics={name: faster() for name in ("bf16", "int8")})
    monkeypatch.setattr("training.evaluate.faster.cpu_has", lambda name: True)
    assert plan_making((), base, fit[1], 0) == (Making(("bf16", "int8"), origin=base), [])
    making, _ = plan_making(("int8",), None, fit[1], 3)
    assert (making.arithmetics, len(making.calibration), making.seed) == (("int8",), len(fit[1]), 3)
    monkeypatch.setattr("training.evaluate.faster.cpu_has", lambda name: name == "bf16")
    making, (told,) = plan_making((), base, fit[1], 0)
    assert making.arithmetics == ("bf16",)
    assert told.startswith("int8 is left out: this CPU has no int8 instructions")
    with pytest.raises(UsageError, match="int8 is fitted on what this CPU makes of the photos"):
        plan_making(("int8",), base, fit[1], 0)
