"""Whether a bundle has learnt from, or was adjusted to, the very photos that it is evaluated on."""

from typing import Any

import numpy as np

from enrich.model.bundle import Bundle
from training.data.photos import PhotoSet

UNTOLD = (
    "the manifest of a bundle that export made does not tell which photos its models learnt from: where they "
    "are among these, the figures flatter it"
)


def warnings(bundle: Bundle, photos: PhotoSet) -> list[str]:
    """A line for each reason that the figures may flatter, as far as the bundle's manifest tells.

    Photos are told by their collection and split, which a manifest of other photos may share by chance.
    """
    by_heads, by_backbone = _collections(bundle.manifest.get("training")), _of_backbone(bundle)
    untold = [UNTOLD] if _runs(bundle.manifest) or _finetuned(by_backbone) else []
    return [*_learnt(photos, by_heads, _collections(by_backbone)), *untold, *_rethresholded(bundle, photos)]


def frozen_on(base: Bundle, photos: PhotoSet) -> dict[str, Any]:
    """What the manifest of heads on the backbone of `base` keeps of it, when they are fitted on `photos`:
    among it the collections that the backbone learnt from, or the runs of a comparison that it is of, however
    many bundles ago."""
    told = _of_backbone(base)
    seen, runs = _collections(told), _finetuned(told)
    learnt = [*_learnt(photos, seen), *([UNTOLD] if runs else [])]
    kept = {"name": base.name, "bundle": base.bundle_id, "collections": seen, "learnt": learnt}
    return {**kept, "exported": runs} if runs else kept


def _of_backbone(bundle: Bundle) -> object:
    """What tells from which photos the backbone learnt: of an exported bundle, the manifest itself."""
    training = bundle.manifest.get("training", bundle.manifest)
    if isinstance(training, dict) and training.get("finetune") == "none":
        before = training.get("frozen_on")
        # Earlier versions kept only that the backbone had seen some of the collections of its heads.
        earlier = isinstance(before, dict) and "collections" not in before and before.get("learnt")
        return training if earlier else before
    return training


def _collections(told: object) -> dict[str, Any]:
    found = told.get("collections") if isinstance(told, dict) else None
    return found if isinstance(found, dict) else {}


def _runs(told: object) -> list[Any]:
    found = told.get("exported") if isinstance(told, dict) else None
    return found if isinstance(found, list) else []


def _finetuned(told: object) -> list[Any]:
    """The runs of a comparison in which the backbone learnt, too."""
    return [run for run in _runs(told) if isinstance(run, dict) and run.get("mode") == "finetuning"]


def _learnt(photos: PhotoSet, *collections: dict[str, Any]) -> list[str]:
    told = [pair for one in collections for pair in one.items()]
    known = [name for name, figures in told if isinstance(figures, dict) and figures.get("trained_on")]
    from_them = np.isin(photos.collection, known) & np.isin(photos.split, ("", "train"))
    if not from_them.any():
        return []
    names = ", ".join(np.unique(photos.collection[from_them]))
    return [
        f"the bundle learnt from {int(from_them.sum())} of these {len(photos)} photos, by its manifest "
        f"({names}): the figures flatter it; for held-out figures see its model card"
    ]


def _rethresholded(bundle: Bundle, photos: PhotoSet) -> list[str]:
    made = bundle.manifest.get("rethresholded")
    if not isinstance(made, dict) or made.get("photos_sha256") != photos.digest:
        return []
    return [
        "the bundle's thresholds were chosen on these very photos: the figures flatter it; the manifest has "
        "cross-fitted ones"
    ]
