"""Faster arithmetics of a bundle: loaded and verified, keyed apart, and taken only where they are as good."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import enrich.model.arithmetic
import enrich.model.open
from enrich.errors import BundleError, SettingsError
from enrich.model.arithmetic import cpu_has
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.open import choose
from enrich.model.openvino_engine import OpenVinoEngine
from enrich.settings import STARTER_BUNDLE, load_settings
from tests.support.bundles import (
    COLOURS,
    IR,
    draw,
    faster,
    make_bundle,
    tiny_ir,
    tiny_tensors,
)
from tests.support.bundles import write_bundle as write

ALL = frozenset({"avx512_bf16", "avx512_vnni"})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "all"
    return make_bundle(folder, arithmetics={"bf16": faster(true=0.7), "int8": faster(true=0.8)})


def test_each_arithmetic_has_thresholds_and_a_model_id_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "plain")
    assert plain.arithmetics == ("fp32",) and bundle.arithmetics == ("fp32", "bf16", "int8")
    assert (bundle.arithmetic, bundle.members[0].model_id) == ("fp32", plain.members[0].model_id)
    found = {name: bundle.at(name) for name in bundle.arithmetics}
    assert {name: one.heads[0].true_threshold for name, one in found.items()} == {
        "fp32": 0.9,
        "bf16": 0.7,
        "int8": 0.8,
    }
    ids = [one.members[0].model_id for one in found.values()]
    assert len(set(ids)) == 3
    assert {one.bundle_id for one in found.values()} == {bundle.bundle_id}
    assert [one.arithmetic for one in found.values()] == ["fp32", "bf16", "int8"]
    assert found["int8"].at("bf16") == found["bf16"] and found["int8"].at("fp32") == bundle
    again = load_bundle(bundle.folder)
    assert [again.at(name).members[0].model_id for name in again.arithmetics] == ids


def test_the_model_id_of_int8_moves_with_its_network_and_not_with_thresholds(
    bundle: Bundle, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", arithmetics={"bf16": faster(), "int8": faster(true=0.99)})
    for name in ("bf16", "int8"):
        assert other.at(name).members[0].model_id == bundle.at(name).members[0].model_id
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    irs = {IR["ir"]: tiny_ir()[IR["ir"]] + b"\n", IR["weights"]: tiny_ir()[IR["weights"]]}
    moved = write(tmp_path / "moved", manifest, {"tiny.safetensors": tiny_tensors()}, irs)
    assert moved.at("int8").members[0].model_id != bundle.at("int8").members[0].model_id
    assert moved.at("bf16").members[0].model_id == bundle.at("bf16").members[0].model_id


Change = Callable[[dict[str, Any]], object]


def _spec(name: str, change: Change) -> Change:
    return lambda manifest: change(manifest["members"][0]["arithmetics"][name])


def _without_files(manifest: dict[str, Any]) -> None:
    del manifest["members"][0]["arithmetics"]["int8"]["files"]
    for name in IR.values():
        del manifest["files"][name]


def _move_files(manifest: dict[str, Any]) -> None:
    arithmetics = manifest["members"][0]["arithmetics"]
    arithmetics["bf16"]["files"] = arithmetics["int8"].pop("files")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_files, "int8 needs files"),
        (_move_files, "bf16 has no files"),
        (_spec("int8", lambda one: one["heads"].pop()), "int8 has other heads than the member"),
        (_spec("bf16", lambda one: one["heads"].reverse()), "bf16 has other heads than the member"),
        (
            _spec("bf16", lambda one: one["heads"][2]["classes"].pop()),
            "bf16 has other heads than the member",
        ),
        (_spec("bf16", lambda one: one["heads"][0]["thresholds"].update(false=0.95)), "swap them"),
        (_spec("bf16", lambda one: one["figures"].pop("photos")), "photos: Field required"),
        (_spec("int8", lambda one: one["files"].update(ir="../x.xml")), "String should match pattern"),
        (_spec("int8", lambda one: one["files"].update(ir=IR["weights"])), "files and the members"),
        (lambda manifest: manifest["members"][0]["arithmetics"].update(fp16={}), "Input should be 'bf16'"),
        (lambda manifest: manifest["files"].pop(IR["ir"]), "must name the same files"),
    ],
)
def test_a_contradiction_is_an_error_of_one_line(
    bundle: Bundle, tmp_path: Path, change: Change, message: str
) -> None:
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", IR.values())
@pytest.mark.parametrize("damage", ["gone", "another"])
def test_the_network_in_int8_is_verified_while_loading(
    bundle: Bundle, tmp_path: Path, file: str, damage: str
) -> None:
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    path = tmp_path / "bundle" / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{file}: {'cannot be read' if damage == 'gone' else 'sha256'}"):
        load_bundle(path.parent)


AS_GOOD = {"bf16": {}, "int8": {}}


@pytest.mark.parametrize(
    ("flags", "made", "chosen", "why"),
    [
        (ALL, AS_GOOD, "int8", "as good as fp32"),
        ({"avx512_bf16"}, AS_GOOD, "bf16", "as good as fp32"),
        ({"avx512_vnni"}, AS_GOOD, "int8", "as good as fp32"),
        ({"avx_vnni"}, AS_GOOD, "int8", "as good as fp32"),
        ({"avx2"}, AS_GOOD, "fp32", "this CPU has no int8 instructions"),
        (ALL, {}, "fp32", "the bundle has no thresholds for it"),
        (ALL, {"bf16": {}}, "bf16", "as good as fp32"),
        (ALL, {"int8": {"precision": 0.895}}, "int8", "as good as fp32"),
        (ALL, {"int8": {"precision": 0.894}}, "fp32", "average precision of balcony 0.8940, fp32's 0.9"),
        (ALL, {"bf16": {}, "int8": {"precision": 0.894}}, "bf16", "as good as fp32"),
        (ALL, {"int8": {"found": (56, 60)}}, "int8", "as good as fp32"),
        (ALL, {"int8": {"found": (55, 60)}}, "fp32", "precision of balcony 55 of 60 held-out homes"),
        (ALL, {"int8": {"found": (9, 10)}}, "fp32", "precision of balcony 9 of 10 held-out homes"),
        (ALL, {"int8": {"found": (0, 0)}}, "fp32", "precision of balcony 0 of 0 held-out homes"),
        (ALL, {"int8": {"figures": None}}, "fp32", "no held-out figures"),
    ],
)
def test_auto_takes_the_fastest_that_is_as_good(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: frozenset[str],
    made: dict[str, dict[str, Any]],
    chosen: str,
    why: str,
) -> None:
    machine(monkeypatch, flags)
    bundle = make_bundle(tmp_path / "b", arithmetics={name: faster(**how) for name, how in made.items()})
    found = choose(bundle, load_settings(device="auto"))
    assert found.bundle.arithmetic == chosen and why in found.why
    assert str(found).startswith(f"{chosen} (")


@pytest.mark.parametrize(
    ("here", "exact", "chosen"),
    [((0, 0), (0, 0), "int8"), ((0, 0), (1, 1), "fp32"), ((1, 2), (0, 0), "fp32"), (None, (0, 0), "fp32")],
)
def test_an_attribute_that_fp32_never_says_yes_of_keeps_nothing_from_the_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    here: tuple[int, int] | None,
    exact: tuple[int, int],
    chosen: str,
) -> None:
    machine(monkeypatch, ALL)
    made = faster()
    balcony = made["figures"]["heads"]["balcony"]
    for of, counted in ((balcony["here"], here), (balcony["fp32"], exact)):
        of["precision"] = counted and dict(zip(("hits", "of"), counted, strict=True))
    bundle = make_bundle(tmp_path / "b", arithmetics={"int8": made})
    assert choose(bundle, load_settings(device="auto")).bundle.arithmetic == chosen


@pytest.mark.parametrize(
    ("asked", "flags", "refused"),
    [
        ({"precision": "fp32"}, ALL, None),
        ({"precision": "bf16"}, ALL, None),
        ({"precision": "int8"}, ALL, None),
        ({"precision": "int8"}, {"avx2"}, "this CPU has no int8"),
        ({"precision": "bf16"}, {"avx2"}, "this CPU has no bf16"),
        ({"precision": "bf16", "engine": "torch"}, {"avx2"}, None),
        ({"precision": "int8", "engine": "torch"}, ALL, "only OpenVINO runs it, on a CPU"),
        ({"precision": "int8", "device": "cuda"}, ALL, "only OpenVINO runs it, on a CPU"),
        ({"precision": "bf16", "device": "cuda"}, {"avx2"}, None),
    ],
)
def test_what_is_asked_for_is_taken_or_refused(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, str],
    flags: frozenset[str],
    refused: str | None,
) -> None:
    machine(monkeypatch, flags)
    settings = load_settings(**{"device": "auto", **asked})
    if refused is None:
        assert choose(bundle, settings).bundle.arithmetic == asked["precision"]
    else:
        with pytest.raises(SettingsError, match=f"ENRICH_PRECISION={asked['precision']}: {refused}"):
            choose(bundle, settings)


@pytest.mark.parametrize("wanted", ["bf16", "int8"])
def test_what_the_bundle_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    machine(monkeypatch, ALL)
    with pytest.raises(SettingsError, match="the bundle has no thresholds for it; set it to auto or fp32"):
        choose(make_bundle(tmp_path / "plain"), load_settings(precision=wanted))


def test_auto_on_pytorch_takes_bf16_where_it_is_no_emulation(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {}
    for flags in (ALL, frozenset({"avx2"})):
        machine(monkeypatch, flags)
        found = choose(bundle, load_settings(engine="torch", device="cpu"))
        chosen[found.bundle.arithmetic] = found.why
    assert chosen.keys() == {"bf16", "fp32"} and "only emulates it" in chosen["fp32"]
    assert choose(bundle, load_settings(device="cuda")).bundle.arithmetic == "bf16"


@pytest.mark.parametrize(("major", "taken"), [(7, "fp32"), (8, "bf16")])
def test_auto_takes_no_bf16_on_a_gpu_that_emulates_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, major: int, taken: str
) -> None:
    machine(monkeypatch, ALL)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    found = choose(bundle, load_settings(device="cuda"))
    assert found.bundle.arithmetic == taken
    assert ("bf16: this GPU only emulates it" in found.why) is (taken == "fp32")


def machine(monkeypatch: pytest.MonkeyPatch, flags: frozenset[str] | set[str]) -> None:
    """A machine without a GPU whose CPU has these instruction sets."""
    monkeypatch.setattr(enrich.model.open, "NVIDIA", ())
    monkeypatch.setattr(enrich.model.arithmetic, "cpu_flags", lambda: frozenset(flags))


@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_scores_are_kept_by_the_arithmetic_and_say_what_the_photos_show(
    bundle: Bundle, tmp_path: Path, name: Any
) -> None:
    if not cpu_has(name):
        pytest.skip(f"this CPU does not compute in {name}")
    here = bundle.at(name)
    photos = [(np.asarray(draw(kind, 5).resize((64, 64))),) for kind in COLOURS]
    exact = OpenVinoEngine(bundle, tmp_path).score(photos)
    for kind, scores, before in zip(
        COLOURS, OpenVinoEngine(here, tmp_path).score(photos), exact, strict=True
    ):
        (said,) = scores.values()
        assert scores.keys() == {here.members[0].model_id}
        assert (said.scores["balcony"][0] > 0) == (kind == "balcony")
        assert (said.scores["fireplace"][0] > 0) == (kind == "fireplace")
        assert (
            0 < abs(said.scores["balcony"][0] - before[bundle.members[0].model_id].scores["balcony"][0]) < 3
        )


def test_int8_starts_without_pytorch_and_without_a_cache(bundle: Bundle, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from enrich.model.bundle import load_bundle\n"
        "from enrich.model.openvino_engine import OpenVinoEngine\n"
        "engine = OpenVinoEngine(load_bundle(Path(sys.argv[1])).at('int8'), Path(sys.argv[2]))\n"
        "print(len(engine.score([(np.zeros((64, 64, 3), np.uint8),)])), 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(bundle.folder), str(tmp_path / "cache")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert told == ["1", "False"] and not (tmp_path / "cache").exists()


def test_a_backbone_for_other_pixels_or_heads_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (member,) = bundle.manifest["members"]
    wide = {**member, "preprocessing": {**member["preprocessing"], "size": [64, 96]}}
    tensors = tiny_tensors()
    narrow = {
        name: one[:, :16] if name.endswith("weight") and name.startswith("head") else one
        for name, one in tensors.items()
    }
    for case, entry, weights, reason in (
        ("wide", wide, tensors, r"the manifest asks for pixels \[-1, 64, 96, 3\]"),
        ("narrow", member, narrow, r"the manifest asks for .* features \[-1, 16\]"),
    ):
        manifest = {"name": case, "members": [entry]}
        found = write(tmp_path / case, manifest, {"tiny.safetensors": weights}, tiny_ir())
        with pytest.raises(BundleError, match=reason):
            OpenVinoEngine(found.at("int8"), tmp_path)
    broken = {**tiny_ir(), IR["ir"]: b"<net/>"}
    cut = write(tmp_path / "cut", bundle.manifest, {"tiny.safetensors": tiny_tensors()}, broken)
    with pytest.raises(BundleError, match="OpenVINO cannot read it") as caught:
        OpenVinoEngine(cut.at("int8"), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_packed_network_says_what_the_plain_one_says_and_a_damaged_one_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    names = {part: f"{name}.gz" for part, name in IR.items()}
    manifest["members"][0]["arithmetics"]["int8"]["files"] = names
    packed = {f"{name}.gz": gzip.compress(data) for name, data in tiny_ir().items()}

    def int8(case: str, irs: dict[str, bytes]) -> Bundle:
        return write(tmp_path / case, manifest, {"tiny.safetensors": tiny_tensors()}, irs).at("int8")

    photos = [(np.asarray(draw(kind, 5).resize((64, 64))),) for kind in COLOURS]
    found = [
        [next(iter(photo.values())).scores for photo in OpenVinoEngine(one, tmp_path).score(photos)]
        for one in (bundle.at("int8"), int8("packed", packed))
    ]
    assert found[0] == found[1]
    weights = packed[names["weights"]]
    flipped = weights[:200] + bytes([weights[200] ^ 0xFF]) + weights[201:]
    for case, damaged in {"cut": weights[:-30], "plain": b"no gzip", "flipped": flipped}.items():
        with pytest.raises(BundleError, match="OpenVINO cannot read it") as caught:
            OpenVinoEngine(int8(case, {**packed, names["weights"]: damaged}), tmp_path)
        assert "make the bundle again" in str(caught.value)


def test_a_bundle_takes_no_place_where_another_packed_file_lies(bundle: Bundle, tmp_path: Path) -> None:
    archive = tmp_path / "taken" / "backup.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"mine")
    with pytest.raises(BundleError, match=r"holds 'backup\.tar\.gz', which is no part of a bundle"):
        write(archive.parent, bundle.manifest, {"tiny.safetensors": tiny_tensors()}, tiny_ir())
    assert archive.read_bytes() == b"mine"


def test_the_starter_bundle_is_as_good_in_int8_and_bf16() -> None:
    starter = load_bundle(STARTER_BUNDLE)
    assert starter.arithmetics == ("fp32", "bf16", "int8")
    assert starter.flaw("int8") is None and starter.flaw("bf16") is None
    # Other weights are another model, which asks every portal for all photos again: CHANGELOG.md says so.
    assert starter.members[0].model_id.startswith("7f25383971f17caa")
