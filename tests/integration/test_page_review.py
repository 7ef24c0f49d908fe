"""The review queue as a page: what is shown, and what a sent form does. On a real Postgres."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from enrich.model.bundle import load_bundle
from enrich.settings import Settings, load_settings
from enrich.state.database import Database
from enrich.state.labels import Labels
from enrich.state.listings import Listings
from enrich.state.overrides import Overrides
from enrich.state.review import questions
from jobs.run import publish
from jobs.run.services import open_services
from jobs.run.stop import Stop
from jobs.web.pages.review import Publishing
from tests.support.enriched import add, ask_again, claim_one, ok, photo, result, sha
from tests.support.page import Client, OpenClient
from tests.support.postgres import Portal

HOSTILE = "<script>alert('x')</script>/\"'&"


@pytest.fixture
def settings(migrated: Portal, tiny_bundle: Path) -> Settings:
    return load_settings(database_url=migrated.url, bundle=tiny_bundle, person="ann", precision="fp32")


@pytest.fixture
def doubtful(migrated: Portal, state: Listings, tiny_bundle: Path) -> Callable[..., None]:
    """`doubtful("a", "b")`: enriched listings of whose balcony the model is not sure, the first one least."""
    turn = questions(load_bundle(tiny_bundle).heads)[0].turns[0]

    def work(*ids: str, photos: int = 2) -> None:
        for number, id in enumerate(ids):
            add(migrated, id)
            shown = [ok(photo(f"{id}-{n}", n), sha(f"{number}-{n}")) for n in range(photos)]
            found = {"has_balcony": None, "balcony_confidence": turn + number / 1000}
            assert state.complete([result(claim_one(state, id), shown, **found)])

    return work


def answered(client: Client, html: str, answer: str, **more: Any) -> str:
    """Send the answer as the form shown in `html` would; what is shown then."""
    given = {name: field(html, name) for name in ("id", "field", "photo", "head", "since")}
    response = client.send_form("/review", {**given, "answer": answer, **more})
    assert response.status_code == 303
    return str(client.get(response.headers["location"]).text)


def field(html: str, name: str) -> str:
    form = html[html.index('id="answer"') :]
    return form.partition(f'name="{name}"')[2].partition('value="')[2].partition('"')[0]


def said(database: Database, id: str) -> list[Any]:
    return [(one.field, one.value, one.by) for one in Overrides(database).of([id]).get(id, [])]


def test_an_answer_is_an_override_with_a_label_and_the_next_listing_is_shown(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a", "b")
    client = open_client(settings)
    first = client.get("/review").text
    assert "Is there a balcony?" in first and "0 of 2 done, 2 left" in first
    assert field(first, "id") == "a"
    second = answered(client, first, "yes")
    assert field(second, "id") == "b" and "1 of 2 done, 1 left" in second
    assert said(database, "a") == [("has_balcony", True, "ann")]
    assert Labels(database).of([sha("0-0")])[sha("0-0")]["balcony"].value is True
    done = answered(client, second, "no")
    assert "2 answered" in done
    assert said(database, "b") == [("has_balcony", False, "ann")]
    assert Labels(database).of([sha("1-0")]) == {}, "no photo is said to show what is not there"


def test_the_photo_that_was_chosen_is_the_one_that_is_labelled(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a")
    client = open_client(settings)
    answered(client, client.get("/review").text, "yes", photo=sha("0-1"))
    assert list(Labels(database).of([sha("0-0"), sha("0-1")])) == [sha("0-1")]


def test_a_photo_of_another_listing_is_not_labelled(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a", "b")
    client = open_client(settings)
    answered(client, client.get("/review").text, "yes", photo=sha("1-0"))
    assert Labels(database).of([sha("0-0"), sha("0-1"), sha("1-0")]) == {}


def test_bytes_that_came_under_the_address_since_are_not_labelled(
    settings: Settings,
    migrated: Portal,
    database: Database,
    state: Listings,
    doubtful: Callable[..., None],
    open_client: OpenClient,
) -> None:
    doubtful("a", photos=1)
    client = open_client(settings)
    seen = client.get("/review").text
    ask_again(migrated, "a")
    assert state.complete([result(claim_one(state, "a"), [ok(photo("a-0"), sha("other"))])])
    answered(client, seen, "yes")
    assert said(database, "a") == [("has_balcony", True, "ann")]
    assert Labels(database).of([sha("0-0"), sha("other")]) == {}


def test_without_scripts_a_yes_names_its_photo(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a")
    client = open_client(settings)
    shown = client.get("/review").text
    button = f'form="answer" name="answer" value="yes:{sha("0-1")}"'
    assert button in shown
    answered(client, shown, f"yes:{sha('0-1')}")
    assert said(database, "a") == [("has_balcony", True, "ann")]
    assert list(Labels(database).of([sha("0-0"), sha("0-1")])) == [sha("0-1")]


def test_undo_shows_the_listing_again_without_what_was_said(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a", "b")
    client = open_client(settings)
    second = answered(client, client.get("/review").text, "yes")
    sent = {name: field(second, name) for name in ("head", "since")}
    response = client.send_form("/review/undo", sent)
    again = client.get(response.headers["location"]).text
    assert field(again, "id") == "a" and "0 of 2 done, 2 left" in again and "took your answer back" in again
    assert said(database, "a") == []


def test_answers_given_while_another_process_publishes_go_to_the_index_with_the_next_one(
    settings: Settings,
    doubtful: Callable[..., None],
    open_client: OpenClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "PATIENCE", 0.2)
    doubtful("a", "b")
    publish.publish(settings, Stop())
    client = open_client(settings)

    def document(id: str) -> Any:
        return services.index.documents([id])[id].get("has_balcony")

    with open_services(settings) as services:
        with services.locks.hold("publish"):
            second = answered(client, client.get("/review").text, "yes")
            assert document("a") is None
        answered(client, second, "no")
        assert (document("a"), document("b")) == (True, False)


def test_answers_given_meanwhile_wait_for_no_publish_and_go_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publishing, sent = Publishing(), []

    def slow(services: Any, ids: list[str]) -> None:
        sent.append(ids)
        if len(sent) == 1:
            for id in ("c", "b"):
                answering = Thread(target=publishing.publish, args=(services, id), daemon=True)
                answering.start()
                answering.join(10)
                assert not answering.is_alive()

    monkeypatch.setattr("jobs.web.pages.review.publish_at_once", slow)
    publishing.publish(cast(Any, None), "a")
    assert sent == [["a"], ["b", "c"]]


def test_unsure_says_nothing_and_does_not_come_again(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a")
    client = open_client(settings)
    assert "1 answered" in answered(client, client.get("/review").text, "unsure")
    assert said(database, "a") == []
    assert "Nothing to look at" in client.get("/review").text


def test_one_head_alone_is_asked_for(
    settings: Settings, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a")
    client = open_client(settings)
    assert "Is there a balcony?" in client.get("/review?head=balcony").text
    assert "Nothing to look at" in client.get("/review?head=fireplace").text
    assert client.get("/review?head=room").status_code == 404
    assert client.get("/review?since=never").status_code == 400


def test_what_the_form_should_not_say_is_refused(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a")
    client = open_client(settings)
    sent = {"id": "a", "field": "has_balcony", "answer": "yes"}
    for wrong in ({"answer": "perhaps"}, {"field": "room_types"}, {"field": "price"}):
        assert client.send_form("/review", {**sent, **wrong}).status_code == 400
    for id in ("nobody", "a\0"):
        assert client.send_form("/review", {**sent, "id": id}).status_code == 404
        assert client.get("/review", params={"id": id, "field": "has_balcony"}).status_code == 404
    assert client.post("/review", data=sent).status_code == 403, "another site's form"
    assert said(database, "a") == []


def test_who_may_only_look_is_shown_no_buttons_and_answers_nothing(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a")
    looking = settings.model_copy(
        update={
            "web_trusted_header": "x-user",
            "web_trusted_proxies": ("127.0.0.0/8",),
            "web_editors": ("bob",),
        }
    )
    client = open_client(looking)
    client.headers["x-user"] = "ann"
    shown = client.get("/review").text
    assert "Is there a balcony?" in shown and 'data-press="y"' not in shown
    sent = {"id": "a", "field": "has_balcony", "answer": "yes"}
    assert client.send_form("/review", sent).status_code == 403 and said(database, "a") == []
    client.headers["x-user"] = "bob"
    assert client.send_form("/review", sent).status_code == 303
    assert said(database, "a") == [("has_balcony", True, "bob")], "as the proxy names them"


def test_a_hostile_id_and_note_are_shown_as_text(
    settings: Settings, database: Database, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful(HOSTILE)
    client = open_client(settings)
    shown = client.get("/review").text
    assert "<script>alert" not in shown and "&lt;script&gt;" in shown
    answered_page = answered(client, shown, "yes", id=HOSTILE)
    assert said(database, HOSTILE) == [("has_balcony", True, "ann")] and "<script>alert" not in answered_page


def test_a_listing_whose_photos_cannot_be_seen_any_more_is_shown_without(
    settings: Settings,
    migrated: Portal,
    state: Listings,
    doubtful: Callable[..., None],
    open_client: OpenClient,
) -> None:
    doubtful("a", photos=0)
    assert "None of its photos could be seen" in open_client(settings).get("/review").text


def test_the_sitting_is_kept_in_the_address(
    settings: Settings, doubtful: Callable[..., None], open_client: OpenClient
) -> None:
    doubtful("a", "b")
    client = open_client(settings)
    shown = client.get("/review?head=balcony").text
    sent = {
        "id": "a",
        "field": "has_balcony",
        "answer": "no",
        "head": "balcony",
        "since": field(shown, "since"),
    }
    where = urlsplit(client.send_form("/review", sent).headers["location"])
    assert (where.path, parse_qs(where.query)) == (
        "/review",
        {"head": ["balcony"], "since": [field(shown, "since")]},
    )
