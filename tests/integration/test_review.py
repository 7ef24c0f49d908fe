"""The review queue: who is asked what, and what becomes of the answers. On a real Postgres."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

import migrations
from enrich.errors import UsageError
from enrich.settings import load_settings
from enrich.state.answers import Answers
from enrich.state.database import Database
from enrich.state.history import history
from enrich.state.labels import Label, Labels
from enrich.state.listings import Listings
from enrich.state.overrides import Overrides
from enrich.state.review import Question, finding, queue
from jobs.migrate import migrate
from tests.support.enriched import add, ask_again, claim_one, ok, photo, result, sha
from tests.support.postgres import Portal

BALCONY = Question("balcony", "has_balcony", "balcony_confidence", (0.6, 0.2))
FIREPLACE = Question("fireplace", "has_fireplace", "fireplace_confidence", (0.5,))
Enrich = Callable[..., None]


@pytest.fixture
def enrich(migrated: Portal, state: Listings) -> Enrich:
    """`enrich("a", 0.7, answer, bundle_id=…)`: the model says so of a listing's balcony."""

    def work(id: str, confidence: float | None, answer: Any = True, **other: Any) -> None:
        if not migrated.execute("SELECT FROM enrichment.listing WHERE id = :id", id=id):
            add(migrated, id)
        ask_again(migrated, id)
        found = {"has_balcony": answer, "balcony_confidence": confidence, **other}
        shown = [ok(photo(f"{id}-1"), sha(f"{id}-1"))]
        assert state.complete([result(claim_one(state, id), shown, **found)])

    return work


def asked(database: Database, person: str = "ann", bundle: str = "bundle-1", limit: int = 100) -> list[Any]:
    found = queue(database, bundle, person, [BALCONY], limit)
    return [(one.id, one.why) for one in found]


def said(database: Database, id: str = "a") -> list[Any]:
    return [(one.field, one.value, one.by) for one in Overrides(database).of([id]).get(id, [])]


def answers(database: Database, person: str = "ann") -> Answers:
    return Answers(database, person, ["has_balcony", "has_fireplace"])


def give(database: Database, id: str, value: bool | None, person: str = "ann", **more: Any) -> None:
    answers(database, person).answer(id, "has_balcony", value, **more)


class TestWhoIsAskedWhat:
    def test_nearest_to_where_the_answer_turns_comes_first_and_the_sure_ones_never(
        self, database: Database, enrich: Enrich
    ) -> None:
        for id, confidence in (("near", 0.61), ("below", 0.57), ("far", 0.42), ("no", 0.22), ("sure", 0.99)):
            enrich(id, confidence)
        enrich("unseen", None, None)
        assert [id for id, _ in asked(database)] == ["near", "no", "below", "far"]

    def test_no_more_than_asked_for(self, database: Database, enrich: Enrich) -> None:
        for n in range(5):
            enrich(str(n), 0.6 + n / 100)
        assert asked(database, limit=2) == [("0", "doubtful"), ("1", "doubtful")]

    def test_what_the_last_bundle_changed(self, database: Database, enrich: Enrich) -> None:
        for id in ("flipped", "same", "earlier"):
            enrich(id, 0.99, True, bundle_id="bundle-0" if id == "earlier" else "bundle-1")
        enrich("earlier", 0.99, None, bundle_id="bundle-1")
        for id, answer in (("flipped", None), ("same", True), ("earlier", None)):
            enrich(id, 0.99, answer, bundle_id="bundle-2")
        enrich("new", 0.99, True, bundle_id="bundle-2")
        (one,) = queue(database, "bundle-2", "ann", [BALCONY], 9)
        assert (one.id, one.why, one.other, one.answer) == ("flipped", "flipped", True, None)

    def test_what_a_person_denies_and_the_model_affirms_is_asked_of_one_other_person(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.99)
        enrich("b", 0.99)
        Overrides(database).set_override("a", "has_balcony", False, None, "ann")
        Overrides(database).set_override("b", "has_balcony", True, None, "ann")
        assert asked(database, "ann") == []
        (one,) = queue(database, "bundle-1", "bob", [BALCONY], 9)
        assert (one.id, one.why, one.other, one.person) == ("a", "disputed", False, "ann")
        give(database, "a", False, "bob")
        assert [asked(database, who) for who in ("ann", "bob", "cia")] == [[], [], []]

    def test_a_disagreement_goes_on_to_the_next_where_one_was_unsure(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.99)
        give(database, "a", False, "ann")
        give(database, "a", None, "bob")
        assert asked(database, "bob") == [] and asked(database, "cia") == [("a", "disputed")]

    def test_reasons_take_turns_and_a_question_is_asked_ten_times_in_a_row(
        self, database: Database, enrich: Enrich
    ) -> None:
        for id in ("x", "y"):
            enrich(id, 0.99, bundle_id="bundle-0")
            enrich(id, 0.01, None)
        for id in ("d1", "d2"):
            enrich(id, 0.6, has_fireplace=None, fireplace_confidence=0.5)

        def found(done: int) -> list[str]:
            some = queue(database, "bundle-1", "ann", [BALCONY, FIREPLACE], 9, done)
            return [f"{one.question.head} {one.why} {one.id}" for one in some]

        flipped, doubtful = (
            [f"balcony flipped {id}" for id in "yx"],
            [f"balcony doubtful d{n}" for n in (1, 2)],
        )
        fireplaces = [f"fireplace doubtful d{n}" for n in (1, 2)]
        assert found(0) == [flipped[0], doubtful[0], flipped[1], doubtful[1], *fireplaces]
        assert found(1) == [doubtful[0], flipped[0], doubtful[1], flipped[1], *fireplaces]
        assert found(10)[:3] == [*fireplaces, flipped[0]]

    def test_a_listing_that_is_gone_is_asked_of_nobody(
        self, migrated: Portal, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.6)
        migrated.execute("UPDATE enrichment.listing SET status = 'gone'")
        assert asked(database) == []


class TestAnswers:
    def test_an_answer_is_an_override_and_is_not_asked_again_of_anybody(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.6)
        give(database, "a", True)
        assert said(database) == [("has_balcony", True, "ann")]
        assert asked(database, "ann") == asked(database, "bob") == []
        assert history(database, "a")[0].person == "ann"

    def test_who_is_unsure_is_not_asked_again_and_others_are(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.6)
        give(database, "a", None)
        assert said(database) == []
        assert asked(database, "ann") == [] and asked(database, "bob") == [("a", "doubtful")]
        (one,) = answers(database).answers("a", "has_balcony")
        assert (one.person, one.value) == ("ann", None)

    def test_the_photo_that_shows_it_is_labelled(self, database: Database, enrich: Enrich) -> None:
        enrich("a", 0.6)
        give(database, "a", True, sha256=sha("a-1"))
        assert Labels(database).of([sha("a-1")]) == {
            sha("a-1"): {"balcony": Label(sha("a-1"), "balcony", True, "ann")}
        }

    def test_undoing_leaves_nothing_and_asks_again(self, database: Database, enrich: Enrich) -> None:
        enrich("a", 0.6)
        mine = answers(database)
        since = mine.begin()
        give(database, "a", True, sha256=sha("a-1"))
        assert mine.done(since) == 1
        assert mine.undo(since) == ("a", "has_balcony")
        assert said(database) == [] and Labels(database).of([sha("a-1")]) == {}
        assert asked(database) == [("a", "doubtful")] and mine.done(since) == 0
        assert mine.undo(since) is None

    def test_the_last_answer_is_undone_first_and_none_of_an_earlier_sitting(
        self, database: Database, enrich: Enrich
    ) -> None:
        for id in ("a", "b", "c"):
            enrich(id, 0.6)
        give(database, "c", True)
        mine = answers(database)
        since = mine.begin()
        give(database, "a", None)
        give(database, "b", False)
        undone = [mine.undo(since) for _ in range(3)]
        assert undone == [("b", "has_balcony"), ("a", "has_balcony"), None]
        assert said(database, "c") == [("has_balcony", True, "ann")]

    def test_one_answer_is_undone_where_the_database_s_word_on_it_was_lost(
        self, database: Database, enrich: Enrich, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = answers(database)
        since = mine.begin()
        for id in ("a", "b", "c"):
            enrich(id, 0.6)
            give(database, id, True)
        begin = database.engine.begin

        @contextmanager
        def losing() -> Iterator[Connection]:
            with begin() as connection:
                yield connection
                wrote = connection.scalar(text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL"))
            if wrote:  # committed, and the connection broke before the answer came
                monkeypatch.setattr(database.engine, "begin", begin)
                raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

        monkeypatch.setattr(database.engine, "begin", losing)
        assert mine.undo(since) == ("c", "has_balcony")
        assert [bool(said(database, id)) for id in ("a", "b", "c")] == [True, True, False]

    def test_what_others_said_before_stands_again(self, database: Database, enrich: Enrich) -> None:
        enrich("a", 0.99)
        Overrides(database).set_override("a", "has_balcony", False, "I was there", "ann")
        Labels(database).put([Label(sha("a-1"), "balcony", False, "ann")])
        before, label = (
            Overrides(database).of(["a"]),
            Labels(database).of([sha("a-1")])[sha("a-1")]["balcony"],
        )
        mine = answers(database, "bob")
        since = mine.begin()
        give(database, "a", True, "bob", sha256=sha("a-1"))
        mine.undo(since)
        (one,) = Overrides(database).of(["a"])["a"]
        assert (one.value, one.note, one.by) == (False, "I was there", "ann")
        again = Labels(database).of([sha("a-1")])[sha("a-1")]["balcony"]
        assert (again, again.at, [one]) == (label, label.at, before["a"]), "at their own time, too"

    def test_what_earlier_versions_took_down_is_undone(
        self, migrated: Portal, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.99)
        Overrides(database).set_override("a", "has_balcony", False, None, "ann")
        mine = answers(database, "bob")
        since = mine.begin()
        give(database, "a", True, "bob")
        migrated.execute("UPDATE enrichment.review SET before = before #- '{override,at}'")
        mine.undo(since)
        assert said(database) == [("has_balcony", False, "ann")]

    def test_what_others_said_since_is_left_alone(self, database: Database, enrich: Enrich) -> None:
        enrich("a", 0.6)
        mine = answers(database)
        since = mine.begin()
        give(database, "a", True, sha256=sha("a-1"))
        Overrides(database).set_override("a", "has_balcony", False, None, "bob")
        Labels(database).put([Label(sha("a-1"), "balcony", False, "bob")])
        mine.undo(since)
        assert said(database) == [("has_balcony", False, "bob")]
        assert Labels(database).of([sha("a-1")])[sha("a-1")]["balcony"].by == "bob"

    def test_what_was_taken_back_does_not_stand_again_when_the_next_one_takes_theirs_back(
        self, database: Database, enrich: Enrich
    ) -> None:
        for id in ("a", "b"):
            enrich(id, 0.6)
        Overrides(database).set_override("a", "has_balcony", None, "too dark", "cia")
        before = Overrides(database).of(["a"])
        ann, bob, dan = (answers(database, who) for who in ("ann", "bob", "dan"))
        since = ann.begin()
        give(database, "a", True, "ann", sha256=sha("a-1"))
        give(database, "a", False, "bob")
        give(database, "b", True, "dan", sha256=sha("a-1"))  # another listing with the same photo
        ann.undo(since)
        assert said(database) == [("has_balcony", False, "bob")]
        bob.undo(since)
        dan.undo(since)
        assert Overrides(database).of(["a"]) == before and Labels(database).of([sha("a-1")]) == {}

    def test_what_was_said_elsewhere_stands_again_though_an_answer_like_it_was_taken_back(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.6)
        ann, bob = answers(database), answers(database, "bob")
        since = ann.begin()
        Overrides(database).set_override("a", "has_balcony", True, "I was there", "ann")
        give(database, "a", False, "bob")
        give(database, "a", True, "ann")
        ann.undo(since)
        bob.undo(since)
        assert said(database) == [("has_balcony", True, "ann")]

    def test_a_second_answer_of_the_same_person_takes_the_place_of_the_first(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.6)
        mine = answers(database)
        since = mine.begin()
        give(database, "a", True, sha256=sha("a-1"))
        give(database, "a", False)
        assert said(database) == [("has_balcony", False, "ann")] and mine.done(since) == 1
        mine.undo(since)
        assert said(database) == [] and Labels(database).of([sha("a-1")]) == {}

    def test_a_second_answer_like_what_another_said_before_is_on_record_as_one_s_own(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.99)
        Overrides(database).set_override("a", "has_balcony", False, None, "ann")
        before = Overrides(database).of(["a"])
        mine = answers(database, "bob")
        since = mine.begin()
        give(database, "a", True, "bob")
        give(database, "a", False, "bob")
        told = [(one.before, one.after, one.person) for one in history(database, "a")[:2]]
        assert told == [(True, False, "bob"), (False, True, "bob")]
        mine.undo(since)
        assert Overrides(database).of(["a"]) == before

    def test_who_is_unsure_after_all_lets_what_stood_before_be_published(
        self, database: Database, enrich: Enrich
    ) -> None:
        enrich("a", 0.99)
        give(database, "a", False, "bob")
        give(database, "a", None, "bob")
        told = history(database, "a")[0]
        assert (told.before, told.after, told.cause, told.person) == (False, True, "cleared", "bob")
        assert said(database) == []

    def test_a_listing_that_is_unknown_is_said_to_be(self, database: Database, migrated: Portal) -> None:
        with pytest.raises(UsageError, match="no listing 'nobody' is known"):
            give(database, "nobody", True)


def test_the_queue_of_a_large_portal_comes_from_indices(migrated: Portal, database: Database) -> None:
    migrations.upgrade(migrated.url, numbers=["balcony_confidence"])
    migrations.upgrade(migrated.url, numbers=["balcony_confidence"])
    migrated.execute(
        "INSERT INTO enrichment.listing (id, photo_fp, doc_fp, status, bundle_id, model_attributes)"
        " SELECT l, '', '', 'done', 'bundle-1', jsonb_build_object('fields', jsonb_build_object("
        "'has_balcony', NULL, 'balcony_confidence', round((l % 1000) / 1000.0, 4)))"
        " FROM generate_series(1, 20000) AS l; ANALYZE enrichment.listing"
    )
    given = {"field": "has_balcony", "person": "ann", "bundle": "bundle-1", "limit": 100}
    explain = text(f"EXPLAIN {finding(BALCONY).text}")
    plan = "\n".join(database.run(lambda connection: connection.execute(explain, given).scalars().all()))
    assert plan.count("Index Scan using listing_by_balcony_confidence") + plan.count(
        "Index Scan Backward using listing_by_balcony_confidence"
    ) == 2 * len(BALCONY.turns), plan
    assert "Seq Scan on listing" not in plan


def test_enrich_migrate_makes_an_index_for_each_yes_or_no_head(migrated: Portal, tiny_bundle: Path) -> None:
    for _ in range(2):
        migrate(load_settings(database_url=migrated.url, bundle=tiny_bundle))
    found = migrated.execute(
        "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'listing_by_%' ORDER BY 1"
    )
    assert found == [("listing_by_balcony_confidence",), ("listing_by_fireplace_confidence",)]
