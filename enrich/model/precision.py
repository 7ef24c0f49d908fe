"""A bundle at another precision of homes than its own, by the thresholds that it has for that."""

import hashlib
from dataclasses import replace

from enrich.errors import BundleError
from enrich.model.bundle import Bundle
from enrich.model.head import Head


def at_precision(bundle: Bundle, target: float) -> Bundle:
    """The bundle with the thresholds for this precision of homes: the same model ids, so that nothing is
    scored again, and another `bundle_id`, since answers differ.

    Raises:
        BundleError: a head that answers yes or no has no threshold for it.
    """

    def heads(those: tuple[Head, ...]) -> tuple[Head, ...]:
        return tuple(_head(bundle, head, target) for head in those)

    members = tuple(
        replace(
            member,
            variants={name: replace(one, heads=heads(one.heads)) for name, one in member.variants.items()},
        )
        for member in bundle.members
    )
    if members == bundle.members:
        return bundle
    name = hashlib.sha256(f"{bundle.bundle_id} at precision {target:g}".encode()).hexdigest()
    return replace(bundle, members=members, bundle_id=name)


def _head(bundle: Bundle, head: Head, target: float) -> Head:
    found = head.at_precision(target)
    if found is None:
        there = ", ".join(head.true_at) or "its own only"
        raise BundleError(
            f"{bundle.folder}: {head.name} has no threshold for a precision of {target:g} (there are: "
            f"{there}); set ENRICH_PRECISION_TARGET to one of these, or choose thresholds with "
            f"enrich-train evaluate --rethreshold --precision {target:g}"
        )
    return found
