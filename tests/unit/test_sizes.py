"""Code stays small enough to be read in one go."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_LINES, MOST_OF_A_CLASS = 300, 150
EXCEPT = ("Settings",)  # a list of settings, however many there are


def files() -> Iterator[tuple[str, str]]:
    """Name -> content of every file of the program."""
    for folder in ("enrich", "jobs", "migrations"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_no_file_is_long() -> None:
    lengths = {name: len(content.splitlines()) for name, content in files()}
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_class_is_long() -> None:
    classes = {
        f"{name}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, content in files()
        for node in ast.walk(ast.parse(content))
        if isinstance(node, ast.ClassDef) and node.name not in EXCEPT
    }
    assert len(classes) > 50
    assert {name: lines for name, lines in classes.items() if lines > MOST_OF_A_CLASS} == {}
