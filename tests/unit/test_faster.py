"""`enrich-train evaluate --rethreshold` with faster arithmetics, end to end on drawn homes."""

from pathlib import Path

import pytest

from enrich.model.arithmetic import cpu_has
from enrich.model.bundle import Bundle, load_bundle
from enrich.settings import STARTER_BUNDLE
from tests.support.bundles import make_bundle
from tests.support.evaluating import OTHER, draw_homes, run_train

PLAIN = [*OTHER, *OTHER]
BALCONY = ["balcony", *PLAIN[1:]]
FIREPLACE = [*PLAIN[:-1], "fireplace"]
HOMES = [BALCONY] * 12 + [FIREPLACE] * 12

needs_both = pytest.mark.skipif(
    not (cpu_has("bf16") and cpu_has("int8")), reason="needs a CPU with bf16 and int8 instructions"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle (`old`), and the same with bf16 and int8 fitted on drawn homes (`new`); what was said."""
    folder = tmp_path_factory.mktemp("faster")
    make_bundle(folder / "old")
    draw_homes(folder / "photos", HOMES)
    draw_homes(folder / "seen", [BALCONY, FIREPLACE] * 3)
    making = ["--arithmetic", "bf16", "--arithmetic", "int8", "--calibrate", folder / "seen"]
    options = ["--out", folder / "out", "--rethreshold", folder / "new", "--precision", 0.9]
    code, said = run_train("evaluate", folder / "old", folder / "photos", *options, *making)
    assert code == 0, said
    return folder, said


@needs_both
def test_each_arithmetic_is_fitted_on_what_it_says_itself(made: tuple[Path, str]) -> None:
    folder, said = made
    old, new = load_bundle(folder / "old"), load_bundle(folder / "new")
    assert new.arithmetics == ("fp32", "bf16", "int8")
    assert new.members[0].model_id == old.members[0].model_id
    thresholds = {
        name: [(head.temperature, head.true_threshold) for head in new.at(name).heads[:2]]
        for name in new.arithmetics
    }
    assert len({one for pair in thresholds.values() for one in pair}) == 6, "no two alike"
    assert all(0 < true < 1 for pair in thresholds.values() for _, true in pair)
    for name in ("bf16", "int8"):
        figures = new.members[0].variants[name].figures
        assert figures is not None and figures.photos == 8 * len(HOMES)
        balcony = figures.heads["balcony"]
        assert balcony.here.average_precision == balcony.fp32.average_precision == 1.0
        assert balcony.target == 0.9
        assert balcony.here.precision is not None and balcony.here.precision.reaches(0.9)
        assert balcony.here.recall is not None and balcony.here.recall.of == 12
        assert balcony.fp32.recall is not None and balcony.fp32.recall.of == 12
        assert 0 < balcony.drift.p999 <= balcony.drift.max < 0.5
        assert figures.heads["room"].target is None
        flaw = new.flaw(name)
        told = f"not taken by precision auto: {flaw}" if flaw else "as good as fp32 here"
        assert f"{name}: {told}" in said
        metrics = new.at(name).heads[0].metrics
        assert metrics["homes"]["homes"] == len(HOMES) and metrics["true"]["target"] == 0.9
    assert said.endswith("; weights as before, but nights in bf16 or int8 fetch and score all photos anew\n")
    assert new.flaw("bf16") is None, "the tiny network loses rooms in int8, and nothing in bf16"


@needs_both
@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_serving_finds_the_homes_at_the_thresholds_of_its_arithmetic(
    made: tuple[Path, str], tmp_path: Path, name: str
) -> None:
    folder, _ = made
    options = ["--out", tmp_path / "out", "--arithmetic", name]
    code, said = run_train("evaluate", folder / "new", folder / "photos", *options)
    assert code == 0 and "Mind: the bundle's thresholds were chosen on these very photos" in said
    assert f"score (cpu, {name})" in (tmp_path / "out" / "report.md").read_text()
    row = next(line for line in said.splitlines() if line.startswith("balcony"))
    assert "12/12" in row


@needs_both
def test_thresholds_chosen_again_are_chosen_in_every_arithmetic_that_is_there(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = made
    draw_homes(tmp_path / "photos", HOMES[1:-1])
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "newer", "--keep-thresholds"]
    code, said = run_train("evaluate", folder / "new", tmp_path / "photos", *options)
    assert code == 0, said
    before, after = load_bundle(folder / "new"), load_bundle(tmp_path / "newer")
    assert after.heads == before.heads, "fp32 is kept"
    assert _ids(after) == _ids(before), "the networks are the same"
    assert said.endswith(
        "; weights as before, nothing is scored again while nights stay in their arithmetic\n"
    )
    for name in ("bf16", "int8"):
        figures = after.members[0].variants[name].figures
        assert figures is not None and figures.photos == 8 * 22 and figures.heads["balcony"].target == 0.95
        assert after.at(name).heads != before.at(name).heads
    assert after.manifest["rethresholded"]["heads"] == []


@needs_both
def test_figures_of_a_head_that_is_not_fitted_again_stay_those_of_their_photos(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = made
    draw_homes(tmp_path / "photos", [BALCONY] * 12 + [PLAIN] * 12)
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "newer"]
    code, said = run_train("evaluate", folder / "new", tmp_path / "photos", *options)
    assert code == 0 and "bf16, fireplace: thresholds left as they were" in said
    before, after = (
        load_bundle(path).members[0].variants["bf16"].figures for path in (folder / "new", tmp_path / "newer")
    )
    assert before is not None and after is not None
    assert after.heads["fireplace"] == before.heads["fireplace"]
    assert after.heads["balcony"] != before.heads["balcony"]
    assert after.photos_sha256 == before.photos_sha256


def _ids(bundle: Bundle) -> list[str]:
    return [bundle.at(name).members[0].model_id for name in bundle.arithmetics]


@needs_both
def test_what_this_cpu_cannot_fit_is_left_out(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made
    for here, left in ((("int8",), ("bf16",)), ((), ("bf16", "int8"))):
        monkeypatch.setattr("training.evaluate.faster.cpu_has", here.__contains__)
        out = tmp_path / f"only{len(here)}"
        options = ["--out", tmp_path / "out", "--rethreshold", out]
        code, said = run_train("evaluate", folder / "new", folder / "photos", *options)
        assert code == 0, said
        for name in left:
            assert f"{name} is left out: this CPU has no " in said
        assert load_bundle(out).arithmetics == ("fp32", *here)


@needs_both
def test_an_arithmetic_that_cannot_be_fitted_is_left_out(tmp_path: Path) -> None:
    make_bundle(tmp_path / "old")
    draw_homes(tmp_path / "photos", [BALCONY] * 12 + [PLAIN] * 12)
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "new", "--arithmetic", "bf16"]
    code, said = run_train("evaluate", tmp_path / "old", tmp_path / "photos", *options)
    assert code == 0, said
    assert "bf16, fireplace: thresholds left as they were: 0 homes with it and 24 without" in said
    assert "bf16 is left out" in said and load_bundle(tmp_path / "new").arithmetics == ("fp32",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arithmetic", "int8"], "--arithmetic int8: the bundle has no thresholds for it"),
        (["--arithmetic", "fp16"], "--arithmetic fp16: use fp32, bf16, int8"),
        (["--arithmetic", "bf16", "--arithmetic", "int8"], "belong to --rethreshold"),
        (["--keep-thresholds"], "belong to --rethreshold"),
        (["--precision", "0.95"], "--precision and --prevalence belong to --rethreshold"),
        (["--prevalence", "0.3"], "--precision and --prevalence belong to --rethreshold"),
        (["--rethreshold", "new", "--keep-thresholds"], "--keep-thresholds leaves nothing to fit"),
        (["--rethreshold", "new", "--arithmetic", "int8"], "name photos like those that the bundle learnt"),
        (["--rethreshold", "new", "--calibrate", "photos"], "--calibrate: is for --arithmetic int8"),
        (
            ["--rethreshold", "new", "--arithmetic", "int8", "--calibrate", "nowhere"],
            "manifest.csv is missing",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.evaluate.faster.cpu_has", lambda name: True)
    make_bundle(tmp_path / "old")
    draw_homes(tmp_path / "photos", [BALCONY])
    code, said = run_train("evaluate", "old", "photos", "--out", "out", *options)
    assert code == 2 and message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


@pytest.mark.skipif(not cpu_has("int8"), reason="needs a CPU with int8 instructions")
def test_a_bundle_is_judged_in_one_arithmetic_on_a_cpu_that_lacks_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.faster.cpu_has", lambda name: name == "int8")
    draw_homes(tmp_path / "photos", [BALCONY])
    options = ["--out", tmp_path / "out", "--arithmetic", "int8"]
    code, said = run_train("evaluate", STARTER_BUNDLE, tmp_path / "photos", *options)
    assert code == 0, said
    assert "score (cpu, int8)" in (tmp_path / "out" / "report.md").read_text()
    options = ["--out", tmp_path / "bf16", "--arithmetic", "bf16"]
    code, said = run_train("evaluate", STARTER_BUNDLE, tmp_path / "photos", *options)
    assert code == 2 and "it has no bf16 instructions (avx512_bf16)" in said


def test_a_cpu_that_does_not_compute_in_it_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.faster.cpu_has", lambda name: False)
    make_bundle(tmp_path / "old")
    draw_homes(tmp_path / "photos", [BALCONY])
    options = ["--out", tmp_path / "out", "--rethreshold", tmp_path / "new", "--arithmetic", "bf16"]
    code, said = run_train("evaluate", tmp_path / "old", tmp_path / "photos", *options)
    assert code == 2 and "it has no bf16 instructions (avx512_bf16); use another machine" in said
