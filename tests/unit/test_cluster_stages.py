"""A scorer on another node has the bundle that the command has, and puts no copy of it on a disk."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from enrich.errors import BundleError, UsageError
from enrich.model.bundle import load_bundle
from enrich.model.open import open_engine
from enrich.model.openvino_engine import OpenVinoEngine
from enrich.settings import STARTER_BUNDLE, load_settings
from jobs.run.cluster.stages import Scorer, packed, unpacked
from tests.support.bundles import draw, faster, make_bundle


def test_a_packed_bundle_scores_as_its_folder_does_and_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scorer that is killed while it loads would leave what it wrote."""
    here = make_bundle(tmp_path / "bundle", arithmetics={"int8": faster()})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    there = load_bundle(unpacked(packed(here.folder)))
    assert there.bundle_id == here.bundle_id and there.heads == here.heads
    photos = [(np.asarray(draw("kitchen").resize((64, 64))),)]
    for arithmetic in ("fp32", "int8"):
        one, other = (
            OpenVinoEngine(bundle.at(arithmetic), tmp_path / name).score(photos)
            for name, bundle in {"here": here, "there": there}.items()
        )
        for model, output in one[0].items():
            assert output.scores == other[0][model].scores


def test_what_is_wrong_with_it_is_said_as_of_a_folder(tmp_path: Path) -> None:
    here = make_bundle(tmp_path / "bundle")
    (here.folder / "tiny.safetensors").write_bytes(b"part")
    with pytest.raises(BundleError, match=r"^bundle/tiny\.safetensors: sha256"):
        load_bundle(unpacked(packed(here.folder)))


def test_a_node_without_the_command_s_arithmetic_says_what_the_command_is_to_be_told() -> None:
    """Nobody asked for int8 by name: the machine of the command took it, and told its nodes."""
    settings = load_settings(precision="int8", engine="torch", device="cpu")
    with pytest.raises(
        UsageError, match=r"only OpenVINO runs it.*; set ENRICH_PRECISION=fp32, or bf16"
    ) as told:
        Scorer().ready(settings, packed(STARTER_BUNDLE), open_engine)
    assert "auto" not in str(told.value) and "\n" not in str(told.value)
