"""The page of an evaluation: what was asked, every figure with its interval, the pictures.

Its words are in `report.md.jinja`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enrich.model.head import Head
from training.markdown import page

TEMPLATE = Path(__file__).with_name("report.md.jinja")


def write_report(metrics: dict[str, Any], heads: Sequence[Head]) -> str:
    """`report.md` from the content of metrics.json."""
    chosen = [f"{name} {value}" for name, value in metrics["photos"]["chosen"].items() if value]
    return page(TEMPLATE, metrics=metrics, heads=heads, chosen=chosen, share=_share)


def _share(figure: dict[str, Any]) -> str:
    """`36 of 38, 0.947 [0.823, 0.994]`."""
    if not figure["of"]:
        return "0 of 0"
    bounds = f"[{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['hits']} of {figure['of']}, {figure['value']:.3f} {bounds}"
