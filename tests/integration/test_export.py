"""Models of a comparison in one bundle: what enrich makes of a photo is what the models made of it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from enrich.model.backbones import build_backbone
from enrich.model.bundle import Bundle, Preprocessing, load_bundle
from enrich.model.torch_engine import TorchEngine
from enrich.photos.decode import decode
from tests.support.bundles import draw, draw_bytes
from tests.support.evaluating import run_train
from training.compare.results import RunKey

TOLERANCE = 1e-4
"""Of a probability: folded batch norms and another order of sums."""
BALCONY = RunKey("balcony", "shufflenet_v2_x0_5", "finetuning")
ROOMS = RunKey("rooms", "timm:test_resnet", "feature_extraction", 3)
CLASSES = {"balcony": ["balcony", "indoor"], "rooms": ["kitchen", "bathroom", "bedroom"]}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocessing(side: int) -> dict[str, Any]:
    """As `run.json` keeps it: torchvision's resize and centre crop."""
    return {
        "size": [side, side],
        "resize": "crop",
        "interpolation": "bilinear",
        "mean": list(MEAN),
        "std": list(STD),
        "crop_ratio": 0.875,
    }


def full_model(key: RunKey) -> nn.Module:
    """The whole network, last layer and all, as its library builds it: random, but not dull."""
    torch.manual_seed(5)
    outputs = len(CLASSES[key.task])
    if key.architecture.startswith("timm:"):
        model = timm.create_model(key.architecture.removeprefix("timm:"), num_classes=outputs)
        nn.init.normal_(model.get_classifier().weight, std=0.3)
    else:
        model = torchvision.models.get_model(key.architecture, weights=None)
        model.fc = nn.Linear(model.fc.in_features, outputs)
        nn.init.normal_(model.fc.weight, std=0.3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def write_run(
    results: Path, key: RunKey, side: int, truth: list[str], chance: list[list[float]]
) -> nn.Module:
    """A finished run in the contract's format; `chance`: validation probabilities per class."""
    model = full_model(key)
    folder = results / "runs" / key.folder
    folder.mkdir(parents=True)
    state = {}
    for name, tensor in model.state_dict().items():
        place = name.replace("fc.", f"head.{key.task}.") if name.startswith("fc.") else f"backbone.{name}"
        state[place] = tensor.contiguous()
    safetensors.torch.save_file(state, folder / "best.safetensors")
    identity = {
        "task": key.task,
        "architecture": key.architecture,
        "mode": key.mode,
        "seed": key.seed,
        "classes": CLASSES[key.task],
        "weights": "none",
        "preprocessing": preprocessing(side),
        "dataset_digest": "0" * 64,
        "best_epoch": 1,
    }
    (folder / "run.json").write_text(json.dumps(identity))
    names = CLASSES[key.task]
    lines = ["path,group,truth,predicted," + ",".join(f"p_{name}" for name in names)]
    for number, (label, row) in enumerate(zip(truth, chance, strict=True)):
        predicted = names[int(np.argmax(row))]
        lines.append(f"photos/{number}.jpg,{number},{label},{predicted}," + ",".join(f"{p:.6f}" for p in row))
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, nn.Module], str]:
    """Two runs of two architectures in one bundle, the models themselves, and what the command said."""
    folder = tmp_path_factory.mktemp("export")
    pairs = [[p, 1 - p] for p in (*[0.9999] * 60, 0.9995, *[0.0001] * 59)]
    threes = [[0.97, 0.02, 0.01], [0.95, 0.03, 0.02], [0.01, 0.98, 0.01], [0.2, 0.1, 0.7], [0.6, 0.3, 0.1]]
    rooms = ["kitchen", "kitchen", "bathroom", "bedroom", "bathroom"]
    models = {
        "balcony": write_run(folder, BALCONY, 64, ["balcony"] * 60 + ["indoor"] * 60, pairs),
        "room": write_run(folder, ROOMS, 96, rooms, threes),
    }
    runs = ["--run", "balcony/torchvision:shufflenet_v2_x0_5/finetuning"]
    runs += ["--run", "rooms/timm:test_resnet/feature_extraction/3"]
    code, said = run_train("export", folder, *runs, "--out", folder / "bundle")
    assert code == 0, said
    return load_bundle(folder / "bundle"), models, said


def test_two_runs_become_two_members_with_their_heads(
    exported: tuple[Bundle, dict[str, nn.Module], str],
) -> None:
    bundle, _, said = exported
    assert [member.backbone for member in bundle.members] == [
        "torchvision:shufflenet_v2_x0_5",
        "timm:test_resnet",
    ]
    balcony, room = bundle.heads
    assert (balcony.name, balcony.kind, room.name, room.kind) == ("balcony", "binary", "room", "multiclass")
    assert [kind.name for kind in room.classes] == CLASSES["rooms"]
    assert bundle.members[0].preprocessing == Preprocessing((64, 64), "crop", "bilinear", MEAN, STD, 0.875)
    assert "evaluate --rethreshold" in said and "no claim about listings" in balcony.metrics["note"]
    told = [run["mode"] for run in bundle.manifest["exported"]]
    assert told == ["finetuning", "feature_extraction"], "by which `evaluate` warns"


@pytest.mark.parametrize("size", [(500, 375), (300, 480)])
def test_enrich_gives_the_probabilities_of_the_exported_models(
    exported: tuple[Bundle, dict[str, nn.Module], str], size: tuple[int, int]
) -> None:
    bundle, models, _ = exported
    data = draw_bytes("balcony", seed=4, size=size)
    decoded = decode(data, bundle.preprocessings, 10_000_000)
    scores = TorchEngine(bundle, "cpu").score([decoded.pixels])[0]
    for member, key in zip(bundle.members, ("balcony", "room"), strict=True):
        pixels = decoded.pixels[bundle.preprocessings.index(member.preprocessing)]
        picture = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        normalised = torchvision.transforms.functional.normalize(picture, MEAN, STD)
        with torch.inference_mode():
            wanted = models[key](normalised).softmax(1)[0].numpy()
        head = member.heads[0]
        logits = np.array(scores[member.model_id].scores[head.name])
        found = head.probabilities(logits * head.temperature)  # as the network made them
        if head.kind == "binary":
            found = np.array([found[0], 1 - found[0]])
        assert wanted.min() > 0.001, "a sure answer would be the same by accident"
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_enrich_cuts_the_photo_as_torchvision_does(
    exported: tuple[Bundle, dict[str, nn.Module], str],
) -> None:
    """Resize and CenterCrop round to whole pixels on the way, enrich does not: hardly a level apart."""
    bundle, _, _ = exported
    file = io.BytesIO()
    draw("kitchen", seed=2, size=(500, 375)).save(file, "PNG")
    found = decode(file.getvalue(), bundle.preprocessings, 10_000_000).pixels[0]
    with Image.open(file) as picture:
        resized = torchvision.transforms.functional.resize(picture.convert("RGB"), 73)
    wanted = np.asarray(torchvision.transforms.functional.center_crop(resized, [64, 64]))
    assert np.abs(found.astype(int) - wanted).mean() < 2


def test_thresholds_are_of_validation_photos_and_careful(
    exported: tuple[Bundle, dict[str, nn.Module], str],
) -> None:
    balcony, room = exported[0].heads
    # A photo without one has .9995, so the lowest that is safe is .9999; `false` is never said.
    calibrated = 1 / (1 + np.exp(-np.log(0.9999 / 0.0001) / balcony.temperature))
    assert balcony.true_threshold == pytest.approx(calibrated, abs=1e-6) and calibrated > 0.9
    assert balcony.false_threshold == 0.0 and balcony.temperature >= 1
    photos = balcony.metrics["photos"]
    assert (photos["precision"]["hits"], photos["precision"]["of"], photos["recall"]["of"]) == (60, 60, 60)
    assert photos["precision"]["low"] == pytest.approx(0.025 ** (1 / 60), abs=1e-4)
    assert all(kind.threshold >= 0.9 for kind in room.classes)
    assert [kind.publish for kind in room.classes][2] is False  # bedroom: one photo, not sure of it


def test_one_photo_that_comes_first_by_chance_makes_no_low_threshold(tmp_path: Path) -> None:
    write_run(tmp_path, BALCONY, 64, ["balcony", "indoor", "indoor"], [[0.6, 0.4], [0.5, 0.5], [0.4, 0.6]])
    given = ["--run", "balcony/shufflenet_v2_x0_5/finetuning", "--out", tmp_path / "bundle"]
    assert run_train("export", tmp_path, *given)[0] == 0
    assert load_bundle(tmp_path / "bundle").heads[0].true_threshold == 0.9


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "vgg11_bn", "densenet121", "inception_v3"])
def test_backbones_of_the_thesis_end_before_their_last_layer(name: str) -> None:
    """What `compare` trains on top of is the features that serving gets; Inception without auxiliary head."""
    with torch.device("meta"):
        backbone = build_backbone(f"torchvision:{name}")
        whole = torchvision.models.get_model(
            name, weights=None, **({"init_weights": False} if name == "inception_v3" else {})
        )
    names = {key for key in whole.state_dict() if not key.startswith("AuxLogits.")}
    gone = names - set(backbone.state_dict())
    last = {"resnet18": "fc", "inception_v3": "fc", "densenet121": "classifier"}.get(name, "classifier.6")
    assert gone == {f"{last}.weight", f"{last}.bias"} and set(backbone.state_dict()) <= names


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        (["balcony/resnet18"], "write TASK/ARCHITECTURE/MODE; MODE is feature_extraction or finetuning"),
        (["balcony/resnet18/finetuned"], "write TASK/ARCHITECTURE/MODE"),
        (["balcony/resnet18/finetuning"], "finished are balcony__shufflenet_v2_x0_5__finetuning__s0"),
        (["balcony/shufflenet_v2_x0_5/finetuning"] * 2, "two runs of task balcony"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_line(tmp_path: Path, runs: list[str], says: str) -> None:
    write_run(tmp_path, BALCONY, 64, ["balcony", "indoor"], [[0.9, 0.1], [0.2, 0.8]])
    given = [part for run in runs for part in ("--run", run)]
    code, said = run_train("export", tmp_path, *given, "--out", tmp_path / "bundle")
    assert code == 2 and said.startswith("enrich-train: ") and said.count("\n") == 1 and says in said
    assert not (tmp_path / "bundle").exists()


def test_broken_weights_are_one_clear_line(tmp_path: Path) -> None:
    write_run(tmp_path, BALCONY, 64, ["balcony", "indoor"], [[0.9, 0.1], [0.2, 0.8]])
    (tmp_path / "runs" / BALCONY.folder / "best.safetensors").write_bytes(b"cut short")
    given = ["--run", "balcony/shufflenet_v2_x0_5/finetuning", "--out", tmp_path / "bundle"]
    code, said = run_train("export", tmp_path, *given)
    assert code == 2 and "is not readable as safetensors" in said and not (tmp_path / "bundle").exists()
