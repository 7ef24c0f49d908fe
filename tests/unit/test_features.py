"""Features: whose they are, how exactly they are kept, and that heads on them say what the engine says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from enrich.model.bundle import Bundle, load_bundle
from enrich.model.engine import Engine
from enrich.model.features import LinearHeads, feature_id, pack, unpack
from enrich.model.openvino_engine import OpenVinoEngine
from enrich.model.torch_engine import TorchEngine
from enrich.model.writing import write_bundle
from enrich.records import Embedding
from enrich.settings import STARTER_BUNDLE
from tests.support.bundles import (
    COLOURS,
    binary_head,
    draw,
    faster,
    make_bundle,
    preprocessing,
    tiny_tensors,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def variant(folder: Path, tensors: dict[str, NDArray[Any]], **fields: Any) -> Bundle:
    member = {
        "backbone": "timm:test_resnet",
        "weights": "w.safetensors",
        "preprocessing": preprocessing(),
        "heads": [binary_head("balcony")],
        **fields,
    }
    return write_bundle(folder, {"name": "variant", "members": [member]}, {"w.safetensors": tensors})


def one_head(**changed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {
        name: tensor
        for name, tensor in {**tiny_tensors(), **changed}.items()
        if name.startswith(("backbone.", "head.balcony."))
    }


def test_other_heads_on_the_same_backbone_share_its_features(bundle: Bundle, tmp_path: Path) -> None:
    (member,) = bundle.members
    turned = one_head(**{"head.balcony.weight": -tiny_tensors()["head.balcony.weight"]})
    (other,) = variant(tmp_path / "other", turned).members
    assert other.model_id != member.model_id
    assert feature_id(other) == feature_id(member)


@pytest.mark.parametrize("what", ["weights", "pool", "preprocessing"])
def test_other_features_have_another_id(bundle: Bundle, tmp_path: Path, what: str) -> None:
    tensors, fields = one_head(), {}
    if what == "weights":
        name = next(name for name in tensors if name.startswith("backbone."))
        tensors = one_head(**{name: tensors[name] * np.float32(1.001)})
    elif what == "pool":
        fields = {"pool": "max"}
    elif what == "preprocessing":
        fields = {"preprocessing": {**preprocessing(), "interpolation": "bilinear"}}
    (other,) = variant(tmp_path / what, tensors, **fields).members
    assert feature_id(other) != feature_id(bundle.members[0])


def test_features_of_each_arithmetic_have_their_own_id(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "bundle", arithmetics={"bf16": faster(), "int8": faster()})
    assert len({feature_id(made.at(name).members[0]) for name in made.arithmetics}) == 3


@pytest.mark.parametrize("seed", range(20))
def test_int8_is_exact_to_half_a_step_of_the_largest_feature(seed: int) -> None:
    draws = np.random.default_rng(seed)
    features = (draws.standard_normal(2560) * 10 ** draws.uniform(-3, 3)).astype(np.float32)
    packed = pack(features, "int8")
    assert packed is not None and len(packed.data) == 2560
    assert np.abs(unpacked(packed) - features).max() <= np.abs(features).max() / 127 / 2 * 1.001


def test_float16_is_exact_to_half_a_thousandth_of_each_feature() -> None:
    features = np.random.default_rng(1).uniform(0.001, 6, 2560).astype(np.float32)
    packed = pack(features, "float16")
    assert packed is not None and len(packed.data) == 5120
    assert np.abs(unpacked(packed) / features - 1).max() < 0.0005


def unpacked(packed: Embedding) -> NDArray[np.float32]:
    return unpack(packed.kind, np.array([packed.scale]), packed.data)[0]


def test_features_that_do_not_fit_are_not_kept() -> None:
    zeros = np.zeros(4, np.float32)
    none = pack(zeros, "int8")
    assert none is not None and (unpacked(none) == 0).all()
    assert pack(zeros + 1e6, "float16") is None and pack(zeros + np.nan, "float16") is None
    assert pack(zeros + np.inf, "int8") is None and pack(zeros + np.nan, "int8") is None
    assert pack(zeros + 1e6, "int8") is not None


def test_photos_that_were_packed_one_by_one_are_unpacked_together() -> None:
    rows = np.random.default_rng(3).standard_normal((5, 16)).astype(np.float32)
    packed = [one for row in rows if (one := pack(row, "int8"))]
    scales, data = np.array([one.scale for one in packed]), b"".join(one.data for one in packed)
    assert np.abs(unpack("int8", scales, data) - rows).max() < 0.02


@pytest.mark.parametrize("which", ["tiny", "starter"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_heads_on_the_features_of_an_engine_say_what_it_says(
    which: str, engine: str, bundle: Bundle, tmp_path: Path
) -> None:
    used = bundle if which == "tiny" else load_bundle(STARTER_BUNDLE)
    (member,) = used.members
    height, width = member.preprocessing.size
    photos = [(np.asarray(draw(kind, 5).resize((width, height))),) for kind in COLOURS]
    opened: Engine = TorchEngine(used, "cpu") if engine == "torch" else OpenVinoEngine(used, tmp_path)
    outputs = [made[member.model_id] for made in opened.score(photos)]
    features = np.stack([output.features for output in outputs])
    assert features.dtype == np.float32
    found = LinearHeads(used, member).scores(features)
    for scores, output in zip(found, outputs, strict=True):
        assert list(scores) == list(output.scores)
        for head in scores:
            assert scores[head] == pytest.approx(output.scores[head], abs=1e-4)
