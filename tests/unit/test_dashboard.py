"""Dashboard, alert rules and docs/metrics.md name the metrics that the program exports, and no others."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.metrics.names import METRICS

ROOT = Path(__file__).parents[2]
KNOWN = {metric.name: set(metric.labels) for metric in METRICS}
ADDED = {"job", "instance"}  # labels that Prometheus adds


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and a PromQL expression."""
    for rule in rules():
        yield f"alerts.yml: {rule['alert']}", rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"grafana.json: {panel['title']}", target["expr"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize("expression", [expr for _, expr in EXPRESSIONS], ids=[at for at, _ in EXPRESSIONS])
def test_an_expression_asks_for_metrics_and_labels_that_are_exported(expression: str) -> None:
    outside_strings = re.sub(r'"[^"]*"', '""', expression)
    named = re.findall(r"(enrich_\w+)(?:\{([^}]*)\})?", outside_strings)
    assert named and {name for name, _ in named} <= KNOWN.keys()
    for name, matchers in named:
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= KNOWN[name] | ADDED
    grouped = {label for by in re.findall(r"by \(([^)]*)\)", outside_strings) for label in by.split(", ")}
    assert grouped <= ADDED.union(*(KNOWN[name] for name, _ in named))


def test_there_are_five_alerts_that_say_what_is_wrong_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) == 5
    for rule in rules():
        assert rule["annotations"].keys() == {"summary", "action"}


def test_an_alert_that_fires_for_what_is_not_there_says_what_is_known() -> None:
    """No metric of a night is there on a new installation, nor where Postgres cannot be asked."""
    (rule,) = (rule for rule in rules() if "absent(" in rule["expr"])
    (row,) = re.findall(rf"^\| `{rule['alert']}` \|.*$", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    assert "is known" in rule["annotations"]["summary"] and "known" in row and "half an hour" in row
    assert rule["for"] == "30m"


def test_the_dashboard_shows_every_metric() -> None:
    asked = " ".join(expr for at, expr in EXPRESSIONS if at.startswith("grafana"))
    assert {name for name in KNOWN if not re.search(rf"\b{name}\b", asked)} == set()


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not taken & cells, panel["title"]
        taken |= cells


def test_every_metric_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = [f"| `{m.name}` | {', '.join(f'`{x}`' for x in m.labels)} | {m.meaning} |" for m in METRICS]
    assert set(rows) <= set(text.splitlines())
    assert set(re.findall(r"\benrich_\w+", text)) == KNOWN.keys()
