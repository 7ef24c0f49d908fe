"""What `enrich labels export` prints."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.labels.export import Exported


def show_exported(exported: "Exported", folder: Path, tasks: bool) -> None:
    """How many photos were written where, what is missing, and what to do with it."""
    lines = [f"{exported.photos} photos written to {folder}"]
    lines += [f"  {count} left out: {reason}" for reason, count in exported.failures.most_common()]
    for head, count in exported.unproven.most_common():
        lines.append(
            f"  {count} listings have has_{head}=true, but no photo is known to show it: "
            f"`enrich override ID has_{head}=true --photo POSITION`"
        )
    if tasks:
        lines.append("docs/training.md says how Label Studio takes them; then `enrich labels import FILE`")
    else:
        lines.append(f"`enrich-train fit {folder} …` learns from it; docs/training.md says how")
    sys.stdout.write("\n".join(lines) + "\n")
