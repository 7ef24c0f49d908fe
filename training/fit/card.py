"""The model card: what the bundle was made from, what it can do, and what it must not be used for.

Every figure is read from the manifest, so that the card cannot say more than the bundle. Its words are in
`card.md.jinja`.
"""

import shlex
from pathlib import Path
from typing import Any

from enrich.atomic import writing
from enrich.model.bundle import Bundle
from enrich.model.head import least_backing
from training.fit.curves import draw_thresholds
from training.markdown import number, page
from training.thresholds.rules import FEWEST_HOMES

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def check_card(path: Path) -> None:
    """Refuse a place where no model card can be written.

    Raises:
        UsageError: it is one.
    """
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("a").close()
        if not there:
            path.unlink()


def write_card(bundle: Bundle, path: Path) -> None:
    """Write the model card of a bundle that `fit` made, as Markdown, and beside it its picture."""
    picture = path.with_name(f"{path.stem}-thresholds.png")
    text = page(
        TEMPLATE,
        bundle=bundle,
        training=bundle.manifest["training"],
        arithmetics=_arithmetics(bundle),
        share=_share,
        least_backing=least_backing,
        fewest_homes=FEWEST_HOMES,
        picture=picture.name,
        command=f"{bundle.manifest['training']['command']} --card {shlex.quote(str(path))}",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_thresholds(bundle, picture)
    path.write_text(text, encoding="utf-8")


def _arithmetics(bundle: Bundle) -> list[tuple[str, str, Any, Any]]:
    """Head, arithmetic, its figures and its drift from fp32, for each that has figures; fp32's come first."""
    rows: list[tuple[str, str, Any, Any]] = []
    for member in bundle.members:
        for head in member.heads:
            faster = {
                name: one.figures.heads[head.name]
                for name, one in member.variants.items()
                if one.figures is not None and head.name in one.figures.heads
            }
            rows += [(head.name, "fp32", one.fp32, None) for one in list(faster.values())[:1]]
            rows += [(head.name, name, one.here, one.drift) for name, one in faster.items()]
    return rows


def _share(share: dict[str, Any]) -> str:
    """`0.943 (33 of 35) [0.81, 0.99]`."""
    if not share["of"]:
        return "none predicted"
    bounds = f"[{share['low']:.2f}, {share['high']:.2f}]"
    return f"{number(share['value'])} ({share['hits']} of {share['of']}) {bounds}"
