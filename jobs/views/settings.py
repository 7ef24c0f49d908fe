"""`enrich settings`: every setting with its variable, value, default and meaning; secrets stay hidden."""

from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr
from rich.markup import escape

from enrich.settings import Settings, variable
from jobs.cli.redact import HIDDEN
from jobs.views import console, table, whole


def rows(settings: Settings) -> list[dict[str, Any]]:
    """One entry per setting, in the order of the code; `value` of a secret is asterisks."""
    found = []
    for name, field in Settings.model_fields.items():
        value, default = getattr(settings, name), field.get_default(call_default_factory=True)
        found.append(
            {
                "variable": variable(name),
                "value": HIDDEN if isinstance(value, SecretStr) else value,
                "default": default,
                "set": value != default,
                "meaning": field.description,
            }
        )
    return found


def show_settings(settings: Settings, scores_in: str, warnings: Sequence[str] = ()) -> None:
    """Print the settings; those that differ from their default stand out. Below them, which arithmetic they
    come down to here, and `warnings`."""
    shown = table(*whole("variable", "value", "default", "meaning"))
    for row in rows(settings):
        style = "bold" if row["set"] else None
        default = _text(row["default"]) if row["set"] else "[dim]=[/]"
        shown.add_row(row["variable"], _text(row["value"]), default, row["meaning"], style=style)
    console().print(shown)
    console().print(f"scores in {escape(scores_in)}", highlight=False, soft_wrap=True)
    for warning in warnings:
        console().print(f"[yellow]![/] {escape(warning)}", soft_wrap=True)


def _text(value: Any) -> str:
    if value is None:
        return "[dim]unset[/]"
    return escape(",".join(value) if isinstance(value, tuple) else str(value)) or "[dim]none[/]"
