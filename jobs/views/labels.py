"""What `enrich labels export` prints."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.labels.export import Exported

NAMED = 10  # listings of each kind


def show_exported(exported: "Exported", folder: Path, tasks: bool) -> None:
    """How many photos were written where, what is missing, and what to do with it."""
    lines = [f"{exported.photos} photos written to {folder}"]
    lines += [f"  {count} left out: {reason}" for reason, count in exported.failures.most_common()]
    for head, ids in sorted(exported.unproven.items(), key=lambda one: -len(one[1])):
        have = "1 listing has" if len(ids) == 1 else f"{len(ids)} listings have"
        some = ", ".join([*ids[:NAMED], *(["…"] if len(ids) > NAMED else [])])
        lines.append(
            f"  {have} has_{head}=true, but no photo is known to show it ({some}): "
            f"`enrich override ID has_{head}=true --photo POSITION`"
        )
    if tasks:
        lines.append("docs/training.md says how Label Studio takes them; then `enrich labels import FILE`")
    else:
        lines.append(f"`enrich-train fit {folder} …` learns from it; docs/training.md says how")
    sys.stdout.write("\n".join(lines) + "\n")
