"""A bundle that loads is whole and says what it is; a broken one is refused with one line that says why."""

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from enrich.atomic import new_folder
from enrich.errors import BundleError, UsageError
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.head import Head, HeadClass
from enrich.model.writing import check_free, write_bundle
from tests.support.bundles import binary_head, make_bundle, preprocessing, room_head, tiny_tensors


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle")


def rewrite(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle.folder / "manifest.json").read_bytes())
    change(manifest)
    (bundle.folder / "manifest.json").write_text(json.dumps(manifest))


def rewrite_tensors(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors and, as a careless exporter would, the hash with them."""
    path = bundle.folder / "tiny.safetensors"
    tensors = safetensors.numpy.load(path.read_bytes())
    change(tensors)
    path.write_bytes(safetensors.numpy.save(tensors))
    digest = sha256(path.read_bytes()).hexdigest()
    rewrite(bundle, lambda manifest: manifest["files"].update({"tiny.safetensors": digest}))


def test_what_was_written_is_what_is_loaded(bundle: Bundle) -> None:
    raw = (bundle.folder / "manifest.json").read_bytes()
    (member,) = bundle.members
    assert bundle.bundle_id == sha256(raw).hexdigest()
    assert bundle.manifest == json.loads(raw)
    assert [head.name for head in bundle.heads] == ["balcony", "fireplace", "room"]
    assert bundle.heads[0].true_threshold == 0.9
    assert bundle.heads[0].false_threshold == 0.2
    assert bundle.heads[2].classes[3] == HeadClass("other", publish=False, threshold=0.6)
    assert bundle.preprocessings == (member.preprocessing,)
    assert member.preprocessing.size == (64, 64)
    loaded = bundle.tensors(member)
    assert all((loaded[name] == tensor).all() for name, tensor in tiny_tensors().items())


def test_loading_needs_no_torch(bundle: Bundle) -> None:
    code = (
        "import sys; from pathlib import Path; from enrich.model.bundle import load_bundle; "
        f"load_bundle(Path({str(bundle.folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_model_id_moves_with_what_moves_scores_only(tmp_path: Path) -> None:
    def model_id(**fields: Any) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return make_bundle(folder, **fields).members[0].model_id

    first = model_id()
    room = {**room_head(), "temperature": 2.0}
    sure = {**binary_head("balcony"), "thresholds": {"true": 0.99, "false": 0.01}}
    assert model_id() == first
    assert model_id(name="other name") == first
    assert model_id(heads=[sure, binary_head("fireplace"), room]) == first
    assert model_id(preprocessing={**preprocessing(), "size": [64, 96]}) != first
    renamed = {**room, "classes": [{**kind, "name": f"{kind['name']}_x"} for kind in room["classes"]]}
    assert model_id(heads=[sure, binary_head("fireplace"), renamed]) != first


def test_what_earlier_versions_wrote_of_bf16_still_loads_and_decides_nothing(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "plain")
    earlier = make_bundle(tmp_path / "earlier", bf16={"delta_p999": 0.002})
    assert earlier.members[0].model_id == plain.members[0].model_id
    assert earlier.arithmetics == plain.arithmetics == ("fp32",)


def test_half_precision_weights_are_loaded_as_float32(tmp_path: Path) -> None:
    halved = {
        name: torch.from_numpy(tensor).half() if tensor.dtype == np.float32 else tensor
        for name, tensor in tiny_tensors().items()
    }
    bundle = make_bundle(tmp_path / "bundle")
    again = write_bundle(bundle.folder, bundle.manifest, {"tiny.safetensors": halved})
    assert again.bundle_id != bundle.bundle_id
    assert again.members[0].model_id != bundle.members[0].model_id
    weight = again.tensors(again.members[0])["head.room.weight"]
    assert weight.dtype == np.float32
    assert (weight == tiny_tensors()["head.room.weight"].astype(np.float16)).all()


def _in_member(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: change(manifest["members"][0])


def _in_head(number: int, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return _in_member(lambda member: member["heads"][number].update(fields))


BROKEN_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (lambda m: m.update(format=2), "format 2"),
    "no format": (lambda m: m.pop("format"), "format None"),
    "no members": (lambda m: m.update(members=[]), "members"),
    "path in weights": (_in_member(lambda m: m.update(weights="../a.safetensors")), "members[0].weights"),
    "absolute weights": (_in_member(lambda m: m.update(weights="/a.safetensors")), "members[0].weights"),
    "pickle": (_in_member(lambda m: m.update(weights="model.pt")), "members[0].weights"),
    "file unused": (lambda m: m["files"].update({"b.safetensors": "0" * 64}), "same files"),
    "path in files": (lambda m: m["files"].update({"../b.safetensors": "0" * 64}), "files"),
    "library": (_in_member(lambda m: m.update(backbone="keras:resnet50")), "members[0].backbone"),
    "hub": (_in_member(lambda m: m.update(backbone="timm:hf-hub:a/b")), "members[0].backbone"),
    "no size": (_in_member(lambda m: m["preprocessing"].pop("size")), "preprocessing.size"),
    "zero std": (_in_member(lambda m: m["preprocessing"].update(std=[0, 1, 1])), "preprocessing.std[0]"),
    "NaN mean": (_in_member(lambda m: m["preprocessing"].update(mean=[float("nan"), 0, 0])), "mean[0]"),
    "squash ratio": (_in_member(lambda m: m["preprocessing"].update(crop_ratio=0.9)), "crop_ratio"),
    "unknown field": (_in_member(lambda m: m.update(head=[])), "members[0].head"),
    "head name": (_in_head(0, name="Balcony; drop"), "members[0].heads[0].name"),
    "long name": (_in_head(0, name="b" * 32), "members[0].heads[0].name"),
    "same name": (_in_head(0, name="fireplace"), "two heads are called 'fireplace'"),
    "kind": (_in_head(0, kind="regression"), "members[0].heads[0].kind"),
    "threshold": (_in_head(0, thresholds={"true": 1.5, "false": 0.1}), "heads[0].thresholds.true"),
    "threshold text": (_in_head(0, thresholds={"true": "0.5", "false": 0.1}), "thresholds.true"),
    "threshold typo": (_in_head(0, thresholds={"True": 0.5, "false": 0.1}), "'balcony'"),
    "no thresholds": (_in_member(lambda m: m["heads"][0].pop("thresholds")), "'balcony'"),
    "crossed thresholds": (_in_head(0, thresholds={"true": 0.1, "false": 0.5}), "'balcony'"),
    "temperature": (_in_head(0, temperature=0), "heads[0].temperature"),
    "aggregation": (_in_head(0, aggregation={"method": "median"}), "aggregation.method"),
    "slope": (_in_head(0, aggregation={"method": "max", "slope": -1.0}), "aggregation.slope"),
    "binary with classes": (_in_head(0, classes=room_head()["classes"]), "'balcony' is binary"),
    "one class": (_in_head(2, classes=room_head()["classes"][:1]), "'room' needs two"),
    "same class": (_in_head(2, classes=room_head()["classes"][:1] * 2), "'room' needs two"),
    "class name": (
        _in_head(2, classes=[{"name": "a b", "publish": True, "threshold": 0.5}]),
        "classes[0].name",
    ),
    "class added": (
        _in_member(
            lambda m: m["heads"][2]["classes"].append({"name": "x", "publish": True, "threshold": 0.5})
        ),
        "'head.room.weight' has shape [4, 96]",
    ),
    "head not in weights": (_in_head(0, name="garage"), "'head.garage.weight' is missing"),
    "head dropped": (_in_member(lambda m: m["heads"].pop()), "'head.room.bias' belongs to no head"),
}


@pytest.mark.parametrize("broken", BROKEN_MANIFESTS)
def test_a_wrong_manifest_is_refused_by_field(bundle: Bundle, broken: str) -> None:
    change, message = BROKEN_MANIFESTS[broken]
    rewrite(bundle, change)
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle.folder)
    assert message in str(caught.value)
    assert str(bundle.folder) in str(caught.value)
    assert "\n" not in str(caught.value)


BROKEN_TENSORS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda t: t.pop("head.room.bias"), "'head.room.bias' is missing"),
    "shape": (
        lambda t: t.update({"head.room.bias": np.zeros(3, np.float32)}),
        "'head.room.bias' has shape [3]",
    ),
    "features": (
        lambda t: t.update({"head.room.weight": np.zeros((4, 95), np.float32)}),
        "'head.room.weight' has shape [4, 95]",
    ),
    "flat": (lambda t: t.update({"head.balcony.weight": np.zeros(96, np.float32)}), "shape [96]"),
    "nan": (lambda t: t["head.room.bias"].fill(np.nan), "not finite"),
    "infinite": (lambda t: t["backbone.conv1.0.weight"].fill(np.inf), "not finite"),
    "double": (lambda t: t.update({"head.room.bias": np.zeros(4)}), "float64"),
    "stranger": (lambda t: t.update({"optimizer.step": np.zeros(1, np.float32)}), "'optimizer.step'"),
    "no backbone": (
        lambda t: [t.pop(name) for name in list(t) if name.startswith("backbone.")],
        "no tensor 'backbone.",
    ),
}


@pytest.mark.parametrize("broken", BROKEN_TENSORS)
def test_wrong_weights_are_refused_by_tensor(bundle: Bundle, broken: str) -> None:
    change, message = BROKEN_TENSORS[broken]
    rewrite_tensors(bundle, change)
    with pytest.raises(BundleError, match=r"tiny\.safetensors") as caught:
        load_bundle(bundle.folder)
    assert message in str(caught.value)


def test_missing_and_foreign_files_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="ENRICH_BUNDLE"):
        load_bundle(tmp_path / "nowhere")
    weights = bundle.folder / "tiny.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="is not the manifest's"):
        load_bundle(bundle.folder)
    weights.write_bytes(b"\x80\x04pickle")
    digest = sha256(b"\x80\x04pickle").hexdigest()
    rewrite(bundle, lambda manifest: manifest["files"].update({"tiny.safetensors": digest}))
    with pytest.raises(BundleError, match="not readable as safetensors"):
        load_bundle(bundle.folder)
    weights.unlink()
    with pytest.raises(BundleError, match=r"tiny\.safetensors: cannot be read"):
        load_bundle(bundle.folder)
    (bundle.folder / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        load_bundle(bundle.folder)


def test_weights_swapped_after_loading_are_refused(bundle: Bundle) -> None:
    (bundle.folder / "tiny.safetensors").write_bytes(b"another model")
    with pytest.raises(BundleError, match="is not the manifest's"):
        bundle.tensors(bundle.members[0])


def test_writing_replaces_a_bundle_whole_or_not_at_all(bundle: Bundle, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    broken = {**tiny_tensors(), "head.room.bias": np.zeros(3, np.float32)}
    with pytest.raises(BundleError, match=r"head\.room\.bias"):
        write_bundle(bundle.folder, bundle.manifest, {"tiny.safetensors": broken})
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before
    renamed = write_bundle(
        bundle.folder, {**bundle.manifest, "name": "second"}, {"tiny.safetensors": tiny_tensors()}
    )
    assert load_bundle(bundle.folder).name == renamed.name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_writing_does_not_take_the_place_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match=r"thesis\.txt"):
        make_bundle(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("mine", "place", "said"),
    [
        ("labels.csv", "labels.csv", "labels.csv is a file: name a folder"),
        ("voc/home1.xml", "voc", "voc: holds 'home1.xml' and no manifest.json, so it is no bundle"),
        ("weights/own.safetensors", "weights", "weights: holds 'own.safetensors' and no manifest.json"),
        ("bundle/years.bin/thesis.txt", "bundle", "bundle: holds 'years.bin', which is no part of a bundle"),
    ],
)
def test_writing_deletes_nothing_that_is_no_bundle(
    bundle: Bundle, tmp_path: Path, mine: str, place: str, said: str
) -> None:
    (tmp_path / mine).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / mine).write_text("years of work")
    with pytest.raises(BundleError) as caught:
        make_bundle(tmp_path / place)
    assert said in str(caught.value)
    assert (tmp_path / mine).read_text() == "years of work"


def test_a_place_where_no_bundle_can_be_written_is_said_before_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label")
    with pytest.raises(UsageError, match=r"labels\.csv/bundle cannot be written: (File exists|Not a dir)"):
        check_free(tmp_path / "labels.csv" / "bundle")
    check_free(tmp_path / "new" / "folder" / "bundle")
    assert not (tmp_path / "new").exists()


def test_a_bundle_cannot_take_the_place_of_what_is_mounted(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == bundle.folder)
    with pytest.raises(UsageError, match="cannot be written: something is mounted there"):
        check_free(bundle.folder)


@pytest.mark.parametrize("named", [".", "../there", "../link"])
def test_a_bundle_takes_the_place_of_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    make_bundle(tmp_path / "there")
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "there")
    check_free(Path(named))
    with new_folder(Path(named)) as made:
        (made / "mine").touch()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    assert (tmp_path / "link").is_symlink()


def test_probabilities_are_temperature_scaled_and_stable() -> None:
    binary = Head("balcony", "binary", temperature=2.0)
    assert binary.probabilities([2.0])[0] == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert binary.probabilities([[-5000.0], [5000.0]]).tolist() == [[0.0], [1.0]]
    classes = tuple(HeadClass(name, True, 0.5) for name in ("a", "b", "c"))
    room = Head("room", "multiclass", classes, temperature=2.0)
    odds = np.exp(np.array([0.0, 1.0, 2.0]))
    assert room.probabilities([0.0, 2.0, 4.0]) == pytest.approx(odds / odds.sum())
    assert room.probabilities([[9e3, 0, 0], [0, 0, 0]]).sum(axis=1) == pytest.approx([1, 1])
