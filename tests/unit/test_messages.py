"""Every message that a user can cause, read: those in the source, with their holes filled, and samples."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from enrich.state.database import Database
from enrich.state.explained import AWAY, REFUSED, TLS, explained
from tests.support.messages import faults

ROOT = Path(__file__).parents[2]
ROOMS = ("enrich", "jobs", "migrations")
SAID = {"say", "warning", "info", "error"}
"""Functions that show their first argument to a user."""


def spoken(node: ast.expr) -> str | None:
    """A string of the source as it may look when it is shown: each hole is another word."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [
            part.value if isinstance(part, ast.Constant) else f"x{n}" for n, part in enumerate(node.values)
        ]
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return "".join(spoken(side) or "x" for side in (node.left, node.right))
    return None


def messages() -> Iterator[tuple[str, str]]:
    """Where it stands, and a message: what errors, and logging, are given."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
                if name in SAID or name.endswith(("Error", "Unavailable", "Lost", "unreadable")):
                    text = next((said for said in map(spoken, node.args) if said), None)
                    if text and " " in text:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text


FOUND = dict(messages())


def test_the_messages_are_found() -> None:
    assert len(FOUND) > 100
    assert any("is not a host name" in text for text in FOUND.values())


@pytest.mark.parametrize("where", FOUND)
def test_a_message_of_the_source_can_be_shown(where: str) -> None:
    assert faults(FOUND[where]) == [], FOUND[where]


DRIVERS = (
    'connection to server at "db" (10.1.2.3), port 5432 failed: Connection refused\n\tIs the server up?\n'
)


@pytest.mark.parametrize("meaning", [*(meaning for _, meaning in REFUSED + AWAY + TLS), DRIVERS])
def test_what_is_said_of_a_database_that_cannot_be_reached_can_be_shown(meaning: str) -> None:
    database = Database("postgresql://me@db.example:5432/portal")
    reason = database._reason(OperationalError("", {}, Exception(meaning)))
    for said in (
        str(explained(reason, database.place, database.name)),
        f"Postgres: {reason}. Nothing is lost",
    ):
        assert faults(said) == [], said


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("nothing answers there: is Postgres running?. Check DATABASE_URL", "doubled punctuation"),
        ("nothing answers there; is Postgres running. Check DATABASE_URL", "a question without its mark"),
        ("10.1.2.3: 10.1.2.3 is neither public", "a doubled word or host"),
        ("the the index", "a doubled word or host"),
        ("ENRICH_INDEX:", "a trailing colon or comma"),
        ("no such thing: <object object at 0x7f>", "a repr of an object"),
        ("first\nsecond", "more than one line"),
        ("x" * 301, "more than 300 signs"),
        (": nothing", "no beginning"),
    ],
)
def test_a_fault_is_seen(message: str, fault: str) -> None:
    assert fault in faults(message)
