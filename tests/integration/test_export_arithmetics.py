"""`enrich-train export --arithmetic`: each has thresholds from what it says of validation photos itself."""

import json
from pathlib import Path

import pytest

from enrich.model.arithmetic import cpu_has
from enrich.model.bundle import load_bundle
from enrich.model.openvino_engine import OpenVinoEngine
from enrich.photos.decode import decode
from tests.integration.test_export import BALCONY, ROOMS, write_run
from tests.support.comparing import draw_prepared
from tests.support.evaluating import run_train
from training.compare.results import RunKey
from training.data.prepared import Prepared, read_prepared

RUNS = (
    "--run",
    "balcony/shufflenet_v2_x0_5/finetuning",
    "--run",
    "rooms/timm:test_resnet/feature_extraction/3",
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs in `results`, as if they had learnt from the photos in `prepared`."""
    folder = tmp_path_factory.mktemp("compared")
    prepared = read_prepared(draw_prepared(folder / "prepared"))
    for key, side in ((BALCONY, 64), (ROOMS, 96)):
        run_on(prepared, folder / "results", key, side)
    return folder


def run_on(prepared: Prepared, results: Path, key: RunKey, side: int) -> None:
    photos, count = prepared.of(key.task, "val"), len(prepared.classes[key.task])
    even = [1 / count] * count
    write_run(results, key, side, photos["label"].tolist(), [even] * len(photos))
    folder = results / "runs" / key.folder
    identity = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**identity, "dataset_digest": prepared.digest}))
    header, *rows = (folder / "predictions.csv").read_text().splitlines()
    rows = [f"{path},{row.partition(',')[2]}" for path, row in zip(photos["path"], rows, strict=True)]
    (folder / "predictions.csv").write_text("\n".join([header, *rows]))


@pytest.mark.skipif(
    not (cpu_has("bf16") and cpu_has("int8")), reason="needs a CPU with bf16 and int8 instructions"
)
def test_every_member_gets_thresholds_from_what_it_says_itself(compared: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "bundle", "--photos", compared / "prepared")
    asked = ("--arithmetic", "bf16", "--arithmetic", "int8")
    code, said = run_train("export", compared / "results", *RUNS, *options, *asked)
    assert code == 0, said
    bundle, prepared = load_bundle(tmp_path / "bundle"), read_prepared(compared / "prepared")
    assert bundle.arithmetics == ("fp32", "bf16", "int8")
    photos = prepared.of("balcony", "val")
    decoded = [
        decode((prepared.folder / path).read_bytes(), bundle.preprocessings, 10**6).pixels
        for path in photos["path"]
    ]
    for name in ("bf16", "int8"):
        here = bundle.at(name)
        for member, count in zip(here.members, (10, 15), strict=True):
            figures = member.variants[name].figures
            assert figures is not None and figures.photos == count
            assert figures.heads[member.heads[0].name].target is None
        member, head = here.members[0], here.heads[0]
        scores = OpenVinoEngine(here, tmp_path / "cache").score(decoded)
        chances = [float(head.probabilities(score[member.model_id].scores["balcony"])[0]) for score in scores]
        found = [
            label
            for label, chance in zip(photos["label"], chances, strict=True)
            if chance >= head.true_threshold - 1e-6
        ]
        counted = head.metrics["photos"]["precision"]
        assert (counted["hits"], counted["of"]) == (found.count("balcony"), len(found))
        assert f"{name}: " in said
        assert head.temperature != bundle.heads[0].temperature


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--arithmetic", "bf16"), "--arithmetic and --photos PREPARED belong together"),
        (("--photos", "prepared"), "--arithmetic and --photos PREPARED belong together"),
        (("--arithmetic", "bf16", "--photos", "other"), "the run of task balcony learnt from other photos"),
    ],
)
def test_what_cannot_be_made_is_one_clear_line(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_prepared(tmp_path / "other", train=1, val=1)
    (tmp_path / "prepared").symlink_to(compared / "prepared")
    code, said = run_train("export", compared / "results", *RUNS, "--out", "bundle", *options)
    assert code == 2 and said.startswith("enrich-train: ") and said.count("\n") == 1 and says in said
    assert not (tmp_path / "bundle").exists()
