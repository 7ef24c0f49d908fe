"""What people say teaches the next model: as a manifest, by way of Label Studio, or from a table."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from enrich.errors import UsageError
from enrich.state.labels import Labels
from jobs.labels.export import Exported, export_manifest, export_tasks
from jobs.labels.reading import Imported, import_labels
from jobs.run.services import open_records
from jobs.views.labels import show_exported
from tests.support.bundles import draw_bytes
from tests.support.harness import World
from tests.support.photo_server import status
from training.data.labels import UNLABELLED
from training.data.photos import load_photos


@pytest.fixture
def enriched(world: World) -> World:
    """Two homes: the model finds the balcony of `a` and no fireplace in `b`."""
    world.listing("a", "kitchen", "balcony", "bedroom")
    world.listing("b", "bathroom", "other")
    world.run()
    return world


def say(world: World, id: str, field: str, value: Any) -> None:
    with open_records(world.settings()) as records:
        records.overrides.set_override(id, field, value, None, "ann")


def manifest(world: World, folder: Path) -> tuple[Exported, dict[tuple[str, str], dict[str, str]]]:
    """An export, and its rows by listing and position."""
    with open_records(world.settings()) as records:
        exported = export_manifest(records, folder)
    rows = list(csv.DictReader((folder / "manifest.csv").open(encoding="utf-8")))
    return exported, {(row["group"], row["position"]): row for row in rows}


def tasks(world: World, folder: Path, photos: int = 100) -> list[dict[str, Any]]:
    with open_records(world.settings()) as records:
        export_tasks(records, folder, photos)
    made: list[dict[str, Any]] = json.loads((folder / "tasks.json").read_text())
    return made


def imported(world: World, path: Path, text: str, by: str | None = None) -> Imported:
    path.write_text(text, encoding="utf-8")
    with open_records(world.settings()) as records:
        return import_labels(records, path, by)


def test_overrides_become_labels_of_the_photos_they_are_about(enriched: World, tmp_path: Path) -> None:
    say(enriched, "a", "has_balcony", True)
    say(enriched, "b", "has_fireplace", False)
    exported, rows = manifest(enriched, tmp_path / "out")
    assert exported.photos == 3 and not exported.failures and not exported.unproven
    assert {place: (row["balcony"], row["fireplace"]) for place, row in rows.items()} == {
        ("a", "1"): ("1", ""),  # the photo that convinced the model, too
        ("b", "0"): ("", "0"),
        ("b", "1"): ("", "0"),
    }
    row = rows["a", "1"]
    assert row["person_balcony"] == "true" and float(row["model_balcony"]) > 0.9
    assert rows["b", "0"]["model_room"].startswith("bathroom ")


def test_a_photo_said_to_show_it_does_not_once_its_listing_is_said_to_lack_it(
    enriched: World, tmp_path: Path
) -> None:
    for word in (("has_balcony=true", "--photo", "2"), ("has_balcony=false",)):
        assert enriched.enrich("override", "a", *word, "--by", "ann").returncode == 0
    _, rows = manifest(enriched, tmp_path / "out")
    assert {place: row["balcony"] for place, row in rows.items()} == {("a", str(n)): "0" for n in range(3)}

    imported(enriched, tmp_path / "t.csv", "listing_id,position,balcony\na,1,1\n", "eve")
    _, rows = manifest(enriched, tmp_path / "out")
    assert [rows["a", str(n)]["balcony"] for n in range(3)] == ["0", "1", "0"], "the later word of a photo"


def test_of_photos_at_one_position_each_has_its_own_label_and_answers(
    enriched: World, tmp_path: Path
) -> None:
    """A portal may give all photos of a listing the same position."""
    enriched.portal.add("c")
    for seed, shows in enumerate(("kitchen", "balcony", "bedroom")):
        enriched.portal.add_photo("c", 0, enriched.photo(shows, 70 + seed))
    enriched.run()
    say(enriched, "c", "has_balcony", True)
    say(enriched, "c", "has_fireplace", False)
    manifest(enriched, tmp_path / "out")
    rows = csv.DictReader((tmp_path / "out" / "manifest.csv").open(encoding="utf-8"))
    assert sorted((row["model_room"].split()[0], row["balcony"]) for row in rows) == [
        ("bedroom", ""),
        ("kitchen", ""),
        ("other", "1"),
    ]


def test_a_position_that_photos_share_names_none_of_them(enriched: World, tmp_path: Path) -> None:
    enriched.portal.add("c")
    for seed, shows in enumerate(("kitchen", "balcony", "bedroom")):
        enriched.portal.add_photo("c", 0, enriched.photo(shows, 70 + seed))
    enriched.run()
    said = enriched.enrich_here("override", "c", "has_balcony=true", "--photo", "0")
    assert said.returncode == 2 and "--photo 0: 3 photos of c share this position" in said.stderr
    assert not enriched.portal.execute("SELECT FROM enrichment.override")
    with pytest.raises(UsageError, match="line 3: 3 photos of c share position 0"):
        imported(enriched, tmp_path / "t.csv", "listing_id,position,balcony\na,0,1\nc,0,1\n")


def test_training_reads_the_manifest_and_finds_the_bytes_that_were_scored(
    enriched: World, tmp_path: Path
) -> None:
    say(enriched, "a", "has_balcony", False)
    say(enriched, "b", "has_balcony", False)
    manifest(enriched, tmp_path / "out")
    photos = load_photos(tmp_path / "out")
    assert len(photos) == 5 and set(photos.labels["balcony"]) == {0}
    assert set(photos.labels["fireplace"]) == {UNLABELLED}
    assert set(photos.group) == {"a", "b"}
    assert all(Path(path).stem == sha for path, sha in zip(photos.paths, photos.sha256, strict=True))


def test_no_more_than_ten_of_them_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"home-{number:02}" for number in range(12)]
    show_exported(Exported(3, Counter(), {"balcony": ids}), tmp_path, tasks=False)
    told = capsys.readouterr().out
    assert "12 listings have has_balcony=true" in told and "home-08, home-09, …): `enrich" in told


def test_a_listing_said_to_have_what_no_photo_is_known_to_show_is_named(
    enriched: World, tmp_path: Path
) -> None:
    say(enriched, "b", "has_fireplace", True)  # the model did not see it
    say(enriched, "a", "has_balcony", True)
    exported, rows = manifest(enriched, tmp_path / "out")
    assert exported.unproven == {"fireplace": ["b"]} and set(rows) == {("a", "1")}
    told = enriched.enrich_here("labels", "export", str(tmp_path / "out")).stdout
    assert "1 listing has has_fireplace=true, but no photo is known to show it (b): `enrich ov" in told
    done = enriched.enrich_here("override", "b", "has_fireplace=true", "--photo", "1", "--by", "eve")
    assert done.returncode == 0, done.stderr
    exported, rows = manifest(enriched, tmp_path / "out")
    assert not exported.unproven and rows["b", "1"]["fireplace"] == "1"
    wrong = enriched.enrich_here("override", "b", "has_fireplace=true", "--photo", "7")
    assert wrong.returncode == 2 and "there are 0, 1" in wrong.stderr


@pytest.mark.parametrize("field", ["has_fireplace", "room_types"])
def test_where_people_spoke_of_no_photo_it_is_not_said_that_nobody_spoke(
    enriched: World, tmp_path: Path, field: str
) -> None:
    say(enriched, "b", field, True if field == "has_fireplace" else ["kitchen"])  # the model saw neither
    with pytest.raises(UsageError, match=r"says what a photo shows\. .* --photo POSITION") as told:
        manifest(enriched, tmp_path / "out")
    assert "nobody" not in str(told.value) and not (tmp_path / "out").exists()


def test_a_photo_fetched_before_is_not_fetched_again_and_a_changed_one_is_left_out(
    enriched: World, tmp_path: Path
) -> None:
    say(enriched, "a", "has_balcony", False)
    manifest(enriched, tmp_path / "out")
    enriched.photos.forget()
    enriched.photo("kitchen", 99, "/b/0.jpg")
    say(enriched, "b", "has_balcony", False)
    exported, rows = manifest(enriched, tmp_path / "out")
    assert enriched.requests() == 2
    assert exported.failures == {"shows other bytes by now": 1}
    assert set(rows) == {("a", "0"), ("a", "1"), ("a", "2"), ("b", "1")}


def test_what_people_said_of_each_listing_that_shows_a_photo_is_said_of_it(
    enriched: World, tmp_path: Path
) -> None:
    enriched.portal.add("c", [enriched.photos.url("/a/1.jpg")])
    enriched.run()
    say(enriched, "a", "has_fireplace", False)
    say(enriched, "c", "has_balcony", True)
    exported, rows = manifest(enriched, tmp_path / "out")
    shared = rows["a", "1"]
    assert (shared["fireplace"], shared["balcony"]) == ("0", "1") and not exported.unproven
    assert (shared["person_fireplace"], shared["person_balcony"]) == ("false", "true")


def test_what_people_said_of_a_listing_that_was_sold_since_still_teaches(
    enriched: World, tmp_path: Path
) -> None:
    said = ("url", "person_balcony", "balcony", "fireplace")

    def exported(folder: str) -> tuple[Exported, dict[tuple[str, str], list[str]]]:
        done, rows = manifest(enriched, tmp_path / folder)
        return done, {place: [row[name] for name in said] for place, row in rows.items()}

    say(enriched, "a", "has_balcony", True)
    say(enriched, "a", "has_fireplace", False)
    say(enriched, "b", "has_balcony", False)
    _, before = exported("out")
    assert len(before) == 5
    enriched.portal.remove("a")
    enriched.run(allow_removals=True)
    assert exported("out") == (Exported(5, Counter()), before)
    done, rows = exported("other")
    assert done.failures == {"not among the listing's photos any more": 3}
    assert rows == {place: row for place, row in before.items() if place[0] == "b"}
    enriched.portal.add("c", [enriched.photos.url("/a/1.jpg")])  # on the market again, under another id
    enriched.run()
    done, rows = exported("third")
    assert done.failures.total() == 2 and rows["a", "1"] == before["a", "1"]


def test_a_photo_is_fetched_where_the_listing_spoken_of_shows_it(enriched: World, tmp_path: Path) -> None:
    """Another listing shows the same bytes at an address that fails by now."""
    same = enriched.photos.add("/0/same.jpg", draw_bytes("kitchen", 0))
    enriched.portal.add("0", [same])
    enriched.portal.add("d", [enriched.photos.add("/d/same.jpg", draw_bytes("kitchen", 0))])
    enriched.run()
    enriched.photos.behave("/0/same.jpg", status(500))
    say(enriched, "d", "has_balcony", False)
    exported, rows = manifest(enriched, tmp_path / "out")
    assert exported == Exported(1, Counter()) and set(rows) == {("d", "0")}


def test_no_photo_of_a_listing_that_is_gone_is_to_be_labelled(enriched: World, tmp_path: Path) -> None:
    for number in range(10):
        enriched.listing(f"gone-{number}", "kitchen")
    enriched.run()
    for number in range(10):
        enriched.portal.remove(f"gone-{number}")
    enriched.run(allow_removals=True)
    made = tasks(enriched, tmp_path / "studio", photos=5)
    assert len(made) == 5 and {task["data"]["listing_id"] for task in made} == {"a", "b"}


def test_label_studio_gets_the_model_s_answers_and_gives_people_s_back(
    enriched: World, tmp_path: Path
) -> None:
    made = tasks(enriched, tmp_path / "studio")
    assert len(made) == 5
    (balcony,) = [task for task in made if (task["data"]["listing_id"], task["data"]["position"]) == ("a", 1)]
    file = balcony["data"]["image"].partition("?d=")[2]
    assert (tmp_path / file).is_file(), "below the document root"
    (prediction,) = balcony["predictions"]
    said = {result["from_name"]: result["value"]["choices"] for result in prediction["result"]}
    assert said == {"balcony": ["yes"], "fireplace": ["no"], "room": ["other"]}
    interface = (tmp_path / "studio" / "labelling.xml").read_text()
    assert all(f'<Choices name="{name}" toName="image"' in interface for name in said)

    def answered(choice: str, when: str, cancelled: bool = False) -> dict[str, Any]:
        result = {"from_name": "balcony", "to_name": "image", "type": "choices"}
        return {
            "result": [{**result, "value": {"choices": [choice]}}],
            "completed_by": {"email": "ann@example.org"},
            "was_cancelled": cancelled,
            "updated_at": when,
        }

    balcony["annotations"] = [
        answered("yes", "2026-01-01"),
        answered("no", "2026-01-02"),
        answered("yes", "2026-01-03", cancelled=True),
    ]
    others = [task | {"annotations": []} for task in made if task is not balcony]
    found = imported(enriched, tmp_path / "export.json", json.dumps([balcony, *others]))
    assert found == Imported(labels=1, changed=1, unknown=0)
    _, rows = manifest(enriched, tmp_path / "out")
    assert {place: row["balcony"] for place, row in rows.items()} == {("a", "1"): "0"}
    with open_records(enriched.settings()) as records:
        sha = balcony["data"]["sha256"]
        assert Labels(records.database).of([sha])[sha]["balcony"].by == "ann@example.org"
    assert all(task["data"]["sha256"] != sha for task in tasks(enriched, tmp_path / "studio"))


def test_of_two_words_of_a_photo_the_later_one_counts_in_whatever_order_they_come_in(
    enriched: World, tmp_path: Path
) -> None:
    made = tasks(enriched, tmp_path / "studio")
    (balcony,) = [task for task in made if (task["data"]["listing_id"], task["data"]["position"]) == ("a", 1)]

    def grown(*said: tuple[str, str]) -> Imported:
        """What comes of a project where each task of the photo was answered (choice, when)."""
        result = {"from_name": "balcony", "to_name": "image", "type": "choices"}
        annotations = [
            {"result": [{**result, "value": {"choices": [choice]}}], "completed_by": 1, "created_at": when}
            for choice, when in said
        ]
        answered = [balcony | {"annotations": [one]} for one in annotations]
        return imported(enriched, tmp_path / "export.json", json.dumps(answered))

    def labelled() -> str:
        return manifest(enriched, tmp_path / "out")[1]["a", "1"]["balcony"]

    later, earlier = ("no", "2026-01-02T00:30:00Z"), ("yes", "2026-01-02T01:00:00+01:00")
    assert grown(later, earlier) == Imported(2, 1, 0) and labelled() == "0"
    assert grown(earlier) == Imported(1, 0, 0) and labelled() == "0"
    imported(enriched, tmp_path / "t.csv", "listing_id,position,balcony\na,1,1\n", "ann")
    assert grown(later) == Imported(1, 0, 0) and labelled() == "1", "the table said so just now"
    say(enriched, "a", "has_balcony", False)
    assert grown(("yes", "2200-01-01T00:00:00Z")) == Imported(1, 1, 0) and labelled() == "1"
    imported(enriched, tmp_path / "t.csv", "listing_id,position,balcony\na,1,0\n", "ann")
    assert labelled() == "0", "nothing is said in the future"


def test_an_answer_from_before_its_listing_was_said_to_lack_it_is_taken_back(
    enriched: World, tmp_path: Path
) -> None:
    made = tasks(enriched, tmp_path / "studio")
    (balcony,) = [task for task in made if (task["data"]["listing_id"], task["data"]["position"]) == ("a", 1)]
    say(enriched, "a", "has_balcony", False)
    said = {"from_name": "balcony", "type": "choices", "value": {"choices": ["yes"]}}
    balcony["annotations"] = [{"result": [said], "updated_at": "2026-01-01T00:00:00Z"}]
    imported(enriched, tmp_path / "export.json", json.dumps([balcony]))
    assert manifest(enriched, tmp_path / "out")[1]["a", "1"]["balcony"] == "0"


@pytest.mark.parametrize("name", ["manifest.csv", "tasks.json"])
def test_a_file_that_cannot_be_written_is_named(enriched: World, tmp_path: Path, name: str) -> None:
    say(enriched, "a", "has_balcony", True)
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"{name} cannot be written: Is a directory"):
        (manifest if name == "manifest.csv" else tasks)(enriched, tmp_path)


def test_the_least_sure_photos_are_asked_first(enriched: World, tmp_path: Path) -> None:
    enriched.portal.execute(
        "UPDATE enrichment.photo_score SET scores = jsonb_set(scores, '{fireplace}', '[0.01]') WHERE sha256 ="
        " (SELECT p ->> 'sha256' FROM enrichment.listing, jsonb_array_elements(photos) p"
        "  WHERE id = 'b' AND p ->> 'position' = '1')"
    )
    for number in range(20):
        enriched.listing(f"more-{number}", "kitchen")
    enriched.run()
    asked = {
        (task["data"]["listing_id"], task["data"]["position"])
        for task in tasks(enriched, tmp_path / "studio", photos=4)
    }
    assert len(asked) == 4 and ("b", 1) in asked


@pytest.mark.parametrize("named", ["place", "url", "sha256"])
def test_a_table_names_photos_in_any_of_three_ways(enriched: World, tmp_path: Path, named: str) -> None:
    (photo,) = [photo for photo in enriched.portal.state("a").photos if photo["position"] == 0]
    column, cell = {
        "place": ("listing_id,position", "a,0"),
        "url": ("url", photo["url"] + "?X-Amz-Signature=abc"),
        "sha256": ("sha256", photo["sha256"]),
    }[named]
    table = f"{column},balcony,room\n{cell},yes,kitchen\n"
    assert imported(enriched, tmp_path / "t.csv", table, "bob") == Imported(2, 2, 0)
    assert imported(enriched, tmp_path / "t.csv", table, "bob") == Imported(2, 0, 0), "twice is once"
    _, rows = manifest(enriched, tmp_path / "out")
    assert (rows["a", "0"]["balcony"], rows["a", "0"]["room"]) == ("1", "kitchen")


def test_a_position_may_be_a_time(enriched: World, tmp_path: Path) -> None:
    enriched.portal.add("c")
    enriched.portal.add_photo("c", 1_700_000_000, enriched.photo("kitchen", 70))
    enriched.run()
    table = "listing_id,position,balcony\nc,1700000000,0\n"
    assert imported(enriched, tmp_path / "t.csv", table) == Imported(1, 1, 0)


def test_labels_change_no_document(enriched: World, tmp_path: Path) -> None:
    before = enriched.documents()
    imported(enriched, tmp_path / "t.csv", "listing_id,position,balcony\na,1,0\n")
    enriched.run()
    assert enriched.documents() == before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,balcony\nx,1\n", "needs a column sha256, url, or listing_id and position; it has path"),
        ("listing_id,balcony\na,1\n", "needs a column"),
        ("listing_id,position,balcony\na,first,1\n", "line 2: position 'first' is not a whole number"),
        ("listing_id,position,balcony\na,0,1\na,1,maybe\n", "line 3: balcony is 'maybe'; write 1, 0"),
        ('note,listing_id,position,balcony\n"a\nb",a,0,1\n,a,1,maybe\n', "line 4: balcony is 'maybe'"),
        ("listing_id,position,room\na,0,attic\n", "line 2: room is 'attic'; known are kitchen, bathroom"),
        ("listing_id,position,price\na,0,5\n", "no label for a head of the bundle"),
        ('listing_id,position,balcony,by\na,0,1,"ann\na,1,0,bo\n', "a quotation mark that is not closed"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    enriched: World, tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        imported(enriched, tmp_path / "t.csv", table)


def test_labels_of_photos_that_are_not_known_are_counted_and_left_out(
    enriched: World, tmp_path: Path
) -> None:
    found = imported(enriched, tmp_path / "t.csv", "listing_id,position,balcony\na,0,1\na,9,1\nz,0,1\n")
    assert found == Imported(labels=1, changed=1, unknown=2)


@pytest.mark.parametrize("columns", ["url", "sha256", "position,listing_id"])
def test_a_line_that_ends_before_it_names_its_photo_is_of_none(
    enriched: World, tmp_path: Path, columns: str
) -> None:
    text = f"balcony,{columns}\n1{',0' if 'position' in columns else ''}\n"
    assert imported(enriched, tmp_path / "t.csv", text) == Imported(labels=0, changed=0, unknown=1)


def test_something_else_than_label_studio_s_export_is_refused(enriched: World, tmp_path: Path) -> None:
    said = {"result": [{"from_name": "balcony", "value": {"choices": ["no"]}}], "updated_at": "yesterday"}
    when = json.dumps([{"annotations": [said], "data": {"sha256": "x"}}])
    for text in ("{", "[1]", '[{"annotations": [{"result": 1}], "data": {}}]', when):
        with pytest.raises(UsageError, match="JSON export"):
            imported(enriched, tmp_path / "t.json", text)


def test_overrides_come_in_as_a_table_all_or_none_and_are_listed(enriched: World, tmp_path: Path) -> None:
    table = tmp_path / "said.csv"
    table.write_text(
        "listing_id,field,value,note,by\na,has_balcony,false,no railing,eve\n"
        'b,room_types,"kitchen,bathroom",,\n'
    )
    done = enriched.enrich_here("override", "--import", str(table), person="ann")
    assert done.returncode == 0 and "2 overrides set" in done.stdout
    listed = json.loads(enriched.enrich_here("override", "--list", "--json").stdout)
    assert [(one["listing_id"], one["field"], one["value"], one["by"]) for one in listed] == [
        ("a", "has_balcony", False, "eve"),
        ("b", "room_types", ["bathroom", "kitchen"], "ann"),
    ]
    shown = enriched.enrich_here("override", "--list").stdout
    assert "no railing" in shown and "bathroom, kitchen" in shown
    table.write_text("listing_id,field,value\na,has_balcony,true\nnobody,has_balcony,true\n")
    refused = enriched.enrich_here("override", "--import", str(table))
    assert refused.returncode == 2 and "no listing 'nobody'" in refused.stderr
    assert enriched.portal.state("a").attributes["fields"]["has_balcony"] is False
    table.write_text("listing_id,field,value\na,has_balcony,perhaps\n")
    wrong = enriched.enrich_here("override", "--import", str(table))
    assert wrong.returncode == 2 and "line 2: has_balcony=perhaps" in wrong.stderr
