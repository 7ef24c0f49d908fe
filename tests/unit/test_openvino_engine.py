"""OpenVINO says what PyTorch says, is converted once, and starts without PyTorch."""

import gzip
import logging
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import enrich.model.open
from enrich.errors import BundleError, SettingsError
from enrich.model.arithmetic import cpu_has
from enrich.model.backbones import build_backbone
from enrich.model.bundle import Bundle, load_bundle
from enrich.model.engine import CPU_BATCH, Engine, Pixels, lane_pool
from enrich.model.open import open_engine
from enrich.model.openvino_engine import OpenVinoEngine, backbone
from enrich.model.torch_engine import TorchEngine
from enrich.model.writing import write_bundle
from enrich.settings import STARTER_BUNDLE, load_settings
from tests.support.bundles import (
    COLOURS,
    binary_head,
    draw,
    draw_bytes,
    make_bundle,
    preprocessing,
    room_head,
    tiny_tensors,
)
from training.evaluate.faster import Making, with_arithmetics


def pictures(bundle: Bundle, count: int) -> list[Pixels]:
    kinds = sorted(COLOURS)
    sizes = [each.size for each in bundle.preprocessings]
    return [
        tuple(np.asarray(draw(kinds[n % len(kinds)], n).resize((width, height))) for height, width in sizes)
        for n in range(count)
    ]


def logits(engine: Engine, photos: list[Pixels]) -> NDArray[Any]:
    return np.array(
        [
            [value for model in sorted(made) for logits in made[model].scores.values() for value in logits]
            for made in engine.score(photos)
        ]
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("which", ["tiny", "starter"])
def test_logits_are_those_of_pytorch(which: str, tiny: Bundle, cache: Path) -> None:
    bundle = tiny if which == "tiny" else load_bundle(STARTER_BUNDLE)
    photos = pictures(bundle, 12)
    found, wanted = (
        logits(OpenVinoEngine(bundle, cache), photos),
        logits(TorchEngine(bundle, "cpu"), photos),
    )
    assert found.shape == wanted.shape == (12, sum(head.outputs for head in bundle.heads))
    assert np.abs(found - wanted).max() < 1e-3


def test_a_network_that_was_replaced_since_the_bundle_was_loaded_is_refused(tmp_path: Path) -> None:
    """Its scores would be kept as those of the network that was there, under its model id."""
    bundle = load_bundle(shutil.copytree(STARTER_BUNDLE, tmp_path / "bundle")).at("int8")
    (member,) = bundle.members
    assert member.variant.ir is not None
    weights = bundle.folder / member.variant.ir.weights
    weights.write_bytes(weights.read_bytes() + gzip.compress(b"\0"))
    with pytest.raises(BundleError, match=rf"{weights.name}: sha256 .* is not the manifest's"):
        backbone(bundle, member, tmp_path / "cache")


def test_members_of_different_sizes_each_get_their_own_pixels(tmp_path: Path) -> None:
    small = {"backbone": "timm:test_resnet", "weights": "a.safetensors", "preprocessing": preprocessing()}
    large = {**small, "weights": "b.safetensors", "preprocessing": {**preprocessing(), "size": [96, 80]}}
    heads = {
        "a.safetensors": [binary_head("balcony"), room_head()],
        "b.safetensors": [binary_head("fireplace")],
    }
    members = [{**member, "heads": heads[member["weights"]]} for member in (small, large)]
    names = {file: {head["name"] for head in of} for file, of in heads.items()}
    tensors = {
        file: {
            key: value
            for key, value in tiny_tensors().items()
            if key.startswith("backbone.") or key.split(".")[1] in names[file]
        }
        for file in heads
    }
    manifest = {"name": "two", "description": "", "created": "2026-01-01", "members": members}
    bundle = write_bundle(tmp_path / "two", manifest, tensors)
    photos = pictures(bundle, 5)
    found = logits(OpenVinoEngine(bundle, tmp_path / "cache"), photos)
    assert np.abs(found - logits(TorchEngine(bundle, "cpu"), photos)).max() < 1e-3


def test_a_photos_logits_do_not_depend_on_its_batch_or_lane(tiny: Bundle, cache: Path) -> None:
    engine, photos = OpenVinoEngine(tiny, cache), pictures(tiny, 24)
    alone = logits(engine, photos)
    with lane_pool(engine) as pool:
        batches = list(pool.map(lambda start: logits(engine, photos[start : start + 3]), range(0, 24, 3)))
    assert np.abs(np.concatenate(batches) - alone).max() < 1e-4
    assert engine.score([]) == []


def test_it_is_converted_once_and_then_starts_without_pytorch(tiny: Bundle, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from enrich.settings import load_settings\n"
        "from enrich.model.bundle import load_bundle; from enrich.model.open import open_engine\n"
        "import numpy as np\n"
        "bundle = load_bundle(Path(sys.argv[1]))\n"
        "engine = open_engine(bundle, load_settings(cache=Path(sys.argv[2]), device='cpu'))\n"
        "print(len(engine.score([(np.zeros((64, 64, 3), np.uint8),)])), 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tiny.folder), str(tmp_path)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in "12"]
    assert runs == [["1", "True"], ["1", "False"]]


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_broken_cache_is_made_again(tiny: Bundle, tmp_path: Path, damage: str) -> None:
    before = logits(OpenVinoEngine(tiny, tmp_path), pictures(tiny, 2))
    (model,) = tmp_path.rglob("model.xml")
    if damage == "gone":
        model.with_suffix(".bin").unlink()
    else:
        model.write_bytes(model.read_bytes()[:200] if damage == "cut" else b"")
    assert (logits(OpenVinoEngine(tiny, tmp_path), pictures(tiny, 2)) == before).all()
    assert model.stat().st_size > 200


@pytest.mark.parametrize("name", ["file", "x" * 300], ids=["no folder", "what the system refuses to look up"])
def test_a_cache_that_cannot_be_written_is_done_without(tiny: Bundle, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    assert logits(OpenVinoEngine(tiny, tmp_path / name), pictures(tiny, 1)).shape[0] == 1


def test_a_cache_on_a_full_disk_is_done_without(tiny: Bundle, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))  # what would be written is cut off, too
    try:
        engine = OpenVinoEngine(tiny, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert logits(engine, pictures(tiny, 1)).shape[0] == 1
    assert not list(tmp_path.rglob("model.*"))


def test_a_signal_is_handled_after_engines_were_dropped(tiny: Bundle, cache: Path) -> None:
    code = f"""
import faulthandler, os, signal
from pathlib import Path
from enrich.model.bundle import load_bundle
from enrich.model.openvino_engine import OpenVinoEngine

faulthandler.enable()
engines = [OpenVinoEngine(load_bundle(Path({str(tiny.folder)!r})), Path({str(cache)!r})) for _ in range(2)]
while engines:
    del engines[0]
signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_nothing_is_told_to_the_makers_of_the_library() -> None:
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({}, OpenVinoEngine),
        ({"device": "cpu"}, OpenVinoEngine),
        ({"engine": "openvino"}, OpenVinoEngine),
        ({"engine": "torch"}, TorchEngine),
    ],
)
def test_auto_takes_openvino_on_a_cpu(
    tiny: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], kind: type
) -> None:
    monkeypatch.setattr(enrich.model.open, "NVIDIA", ())
    engine = open_engine(tiny, load_settings(cache=cache, **{"device": "auto", **asked}))
    assert isinstance(engine, kind)
    assert engine.batch_size == CPU_BATCH and engine.lanes >= 1


def test_what_openvino_cannot_do_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"ENRICH_ENGINE=openvino scores on the CPU"):
        load_settings(engine="openvino", device="cuda")


LANES_AT_ONCE = """
import sys
from pathlib import Path
from threading import Barrier, Thread
import numpy as np
from enrich.model.bundle import load_bundle
from enrich.model.openvino_engine import OpenVinoEngine

bundle = load_bundle(Path(sys.argv[1]))
engine = OpenVinoEngine(bundle, Path(sys.argv[2]))
photo = tuple(np.zeros((*each.size, 3), np.uint8) for each in bundle.preprocessings)
start = Barrier(32)

def lane():
    engine.start_lane()
    start.wait()
    engine.score([photo])

lanes = [Thread(target=lane, daemon=True) for _ in range(32)]
sys.setswitchinterval(1e-6)
for each in lanes:
    each.start()
for each in lanes:
    each.join()
"""


def test_lanes_that_start_at_the_same_time_do_not_hang(tiny: Bundle, cache: Path) -> None:
    OpenVinoEngine(tiny, cache)  # converted before
    command = [sys.executable, "-c", LANES_AT_ONCE, str(tiny.folder), str(cache)]
    for _ in range(5):  # without care, every second or third start
        subprocess.run(command, check=True, timeout=60)


EVERY_SIZE_OF_BATCH = """
import sys
from pathlib import Path
import numpy as np
from enrich.model.bundle import load_bundle
from enrich.model.openvino_engine import OpenVinoEngine

engine = OpenVinoEngine(load_bundle(Path(sys.argv[1])).at("int8"), Path(sys.argv[2]))
photos = [(photo,) for photo in np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)]
rows = [[next(iter(one.values())).features for one in engine.score(photos[:n])] for n in range(1, 21)]
for row in rows:
    assert np.array_equal(row, rows[-1][:len(row)]), len(row)
print(*map(len, rows))
"""


@pytest.mark.skipif(not cpu_has("int8"), reason="needs a CPU with int8 instructions")
def test_int8_scores_a_batch_of_any_size(tmp_path: Path) -> None:
    """Of a network whose last maps are two by two: where the CPU has AMX, less care ends the process."""
    name = "torchvision:shufflenet_v2_x0_5"
    weights = {f"backbone.{key}": value for key, value in build_backbone(name).state_dict().items()}
    heads = {"head.balcony.weight": np.ones((1, 1024), "f4"), "head.balcony.bias": np.zeros(1, "f4")}
    entry = {"backbone": name, "weights": "a.safetensors", "preprocessing": preprocessing()}
    member = {**entry, "heads": [binary_head("balcony")]}
    bundle = write_bundle(
        tmp_path / "fp32", {"name": "small", "members": [member]}, {"a.safetensors": weights | heads}
    )
    photos = [tmp_path / f"{kind}.jpg" for kind in COLOURS]
    for photo in photos:
        photo.write_bytes(draw_bytes(photo.stem))
    others = logging.NullHandler()
    logging.getLogger("nncf").addHandler(others)
    with_arithmetics(bundle, Making(("int8",), tuple(photos)), tmp_path / "int8", tmp_path)
    logging.getLogger("nncf").removeHandler(others)
    assert others.level == logging.NOTSET, "pytest's own handler may be there"
    command = [sys.executable, "-X", "faulthandler", "-c", EVERY_SIZE_OF_BATCH, tmp_path / "int8", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, [str(n) for n in range(1, 21)]), done.stderr


def test_two_conversions_at_a_time_leave_the_log_as_it_was(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    bundles = [make_bundle(tmp_path / name) for name in ("one", "other", "third")]
    with ThreadPoolExecutor(3) as pool:
        list(
            pool.map(lambda bundle: OpenVinoEngine(bundle, tmp_path / bundle.folder.name / "cache"), bundles)
        )
    assert (root.level, root.handlers) == before


def test_a_conversion_that_fails_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    monkeypatch.setattr("torch.jit.trace", lambda *given, **options: 1 / 0)
    with pytest.raises(Exception, match="division by zero"):
        OpenVinoEngine(make_bundle(tmp_path / "bundle"), tmp_path / "cache")
    assert (root.level, root.filters, root.handlers) == before
