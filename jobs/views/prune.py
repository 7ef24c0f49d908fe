"""What `enrich prune` prints."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs.views import print_json

if TYPE_CHECKING:
    from jobs.prune import Pruned


def show_pruned(found: "Iterable[Pruned]", yes: bool, as_json: bool) -> None:
    """Each kind of rows as it was gone through."""
    if as_json:
        print_json({"deleted": yes, "rows": [asdict(one) for one in found]})
        return
    for one in found:
        left = " (left: a run is discovering)" if one.skipped else ""
        sys.stdout.write(f"{one.rows:>12,}  {one.what}{left}\n")
    sys.stdout.write("deleted\n" if yes else "nothing was deleted; `enrich prune --yes` does it\n")
