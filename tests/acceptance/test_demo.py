"""`enrich demo`: the whole job with embedded servers, from an empty start, as a newcomer runs it."""

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.demo.homes import PHOTOS
from tests.support.bundles import draw_bytes

CHECKOUT = Path(__file__).parents[2]
TIMINGS = re.compile(r"took .*|work .*|:\d{4,5}(?=[/\s])|enrich_demo_\d+")


def enrich(*args: str, home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `enrich` in a clean environment in fp32, with the embedded servers under `home`."""
    ours = ("ENRICH_", "DATABASE_URL", "SOURCE_DATABASE_URL", "ELASTICSEARCH_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli.commands", *args],
        cwd=CHECKOUT,
        env={
            **clean,
            "OMP_NUM_THREADS": "2",
            "ENRICH_HOME": str(home),
            "ENRICH_PRECISION": "fp32",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=240,
    )


def steady(output: str) -> list[str]:
    """The output's words without timings, ports and process numbers."""
    return TIMINGS.sub("", output).split()


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Not in pytest's folder: every pytest that starts closes that to the user that Postgres runs as.
    with tempfile.TemporaryDirectory(prefix="enrich-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def shown(home: Path) -> str:
    """What the demo prints; its database stays."""
    done = enrich("demo", "--keep", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def documents(shown: str, home: Path) -> dict[str, dict[str, Any]]:
    """The documents that the demo left behind, by listing."""
    found = enrich("search", "--json", home=home / "demo", ENRICH_EMBEDDED="true")
    assert found.returncode == 0, found.stderr
    return {document["listing_id"]: document for document in json.loads(found.stdout)["hits"]}


@pytest.fixture(scope="module")
def labels() -> list[dict[str, str]]:
    with (PHOTOS / "listings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_homes_are_enriched_and_published(shown: str, documents: dict[str, Any]) -> None:
    assert len(documents) == 12
    assert all(id in shown for id in documents)
    assert all(document["enrichment"]["photos_failed"] == 0 for document in documents.values())
    assert "55 fetched" in shown and "55 scored" in shown and "12 written" in shown


def test_every_mistake_of_the_model_is_shown_and_nothing_else(
    shown: str, documents: dict[str, Any], labels: list[dict[str, str]]
) -> None:
    expected = set()
    for id, document in documents.items():
        photos = [row for row in labels if row["listing"] == id]
        for head in ("balcony", "fireplace"):
            really, says = any(row[head] == "1" for row in photos), document.get(f"has_{head}")
            decided = document.get("evidence", {}).get(head, {}).get("position")
            on_wrong_photo = says and photos[decided - 1][head] == "0"
            if bool(says) != really or on_wrong_photo:
                expected.add((id, head))
        published = {"bathroom", "bedroom", "dining_room", "exterior", "kitchen", "living_room"}
        rooms = {row["room"] for row in photos}
        for room in (rooms & published) ^ set(document["room_types"]):
            expected.add((id, room))
    _, _, mistakes = shown.partition("Where the model is wrong on these pictures\n")
    lines = mistakes.partition("\n\n")[0].splitlines()
    assert {tuple(line.replace(":", "").split()[:2]) for line in lines} == expected


def test_the_searches_show_what_the_index_holds_with_evidence(shown: str, documents: dict[str, Any]) -> None:
    balconies = shown.split("enrich search --has balcony\n")[1].split("enrich search")[0]
    fires = shown.split("enrich search --has fireplace --room kitchen\n")[1].split("The same run again")[0]
    for id, document in documents.items():
        with_kitchen = document.get("has_fireplace") is True and "kitchen" in document["room_types"]
        assert (id in balconies) == (document.get("has_balcony") is True)
        assert (id in fires) == with_kitchen
        if id in balconies:
            evidence = document["evidence"]["balcony"]
            assert f"photo {evidence['position']} {evidence['confidence']:.2f} {evidence['url']}" in balconies


def test_the_second_run_does_nothing(shown: str) -> None:
    second = shown.split("The same run again")[1].split("ENRICH_PRECISION_TARGET")[0]
    assert "0 fetched" in second and "0 scored" in second and "0 written" in second
    assert "0 at the photo host" in second
    first = shown.split("The same run again")[0]
    assert "55 at the photo host" in first


def test_a_lower_precision_misses_no_home_and_asks_for_no_photo(
    shown: str, documents: dict[str, Any], labels: list[dict[str, str]]
) -> None:
    lower = shown.split("ENRICH_PRECISION_TARGET=0.8 enrich rescore")[1].split("On your own listings")[0]
    assert "0 fetched" in lower and "0 scored" in lower and "0 at the photo host" in lower
    for head in ("balcony", "fireplace"):
        really = {row["listing"] for row in labels if row[head] == "1"}
        before = {id for id, document in documents.items() if document.get(f"has_{head}")}
        told = re.search(rf"{head} +(\d+) homes, (\d+) before(?:; new: (.*))?", lower)
        assert told is not None
        assert (int(told[1]), int(told[2])) == (len(really), len(before))
        assert set((told[3] or "").split(", ")) - {""} == really - before
    assert "missed" not in lower and "wrong\n" not in lower


def test_a_second_demo_shows_the_same(shown: str, home: Path) -> None:
    again = enrich("demo", "--keep", home=home)
    assert again.returncode == 0, again.stderr
    assert steady(again.stdout) == steady(shown)


def test_the_readme_shows_what_the_demo_prints(shown: str) -> None:
    block = (CHECKOUT / "README.md").read_text().split("<!-- demo -->")[1].split("<!-- /demo -->")[0]
    told, read = (re.sub(r"0\.\d\d", "0.…", " ".join(steady(text))) for text in (shown, block.strip("`\n")))
    assert read in told  # but for the last digits of probabilities, which depend on the CPU


def test_it_says_how_to_go_on_with_ones_own_listings(shown: str) -> None:
    for step in ("DATABASE_URL=", "ELASTICSEARCH_URL=", "enrich migrate", "enrich check", "enrich run"):
        assert step in shown.split("On your own listings")[1]


def test_the_kept_demo_explains_a_listing(shown: str, home: Path) -> None:
    told = enrich("show", "listing-03", "--json", home=home / "demo", ENRICH_EMBEDDED="true")
    listing = json.loads(told.stdout)
    assert [photo["position"] for photo in listing["photos"]] == [1, 2, 3, 4, 5]
    for photo in listing["photos"]:
        assert photo["status"] == "ok" and photo["url"].endswith(f"/listing-03/0{photo['position']}.jpg")
        assert 0 <= photo["probabilities"]["balcony"] <= 1
        assert sum(photo["probabilities"]["room"].values()) == pytest.approx(1, abs=0.01)
    assert listing["revision"] == listing["published_revision"]


def test_ones_own_pictures_touching_neither_ones_database_nor_ones_index(
    tiny_bundle: Path, tmp_path: Path, home: Path
) -> None:
    for folder, kinds in {"one [b]": ["balcony", "kitchen"], "två": ["fireplace", "kitchen"]}.items():
        (tmp_path / "mine" / folder).mkdir(parents=True)
        for number, kind in enumerate(kinds, start=1):
            (tmp_path / "mine" / folder / f"photo {number}.jpg").write_bytes(draw_bytes(kind, number))
    done = enrich(
        "demo", "--photos", str(tmp_path / "mine"), home=home,
        ENRICH_BUNDLE=str(tiny_bundle), ENRICH_INDEX_MODE="merge", ENRICH_SOURCE_LISTINGS="other.table",
        DATABASE_URL="postgresql://me:secret@127.0.0.1:1/mine", ELASTICSEARCH_URL="http://127.0.0.1:1",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    balconies, fires = done.stdout.split("enrich search")[1:3]
    assert "one [b]" in balconies and "två" not in balconies and "photo 1" in balconies
    assert "två" in fires and "one [b]" not in fires
    assert "wrong" not in done.stdout.split("The same run again")[0]


def test_pictures_that_are_not_there_are_one_line_and_exit_2(tmp_path: Path) -> None:
    done = enrich("demo", "--photos", str(tmp_path / "nowhere"), home=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("enrich: --photos") and done.stderr.count("\n") == 1
