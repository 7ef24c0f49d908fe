"""What a cluster did before the ordinary pipeline, for the report."""

from dataclasses import dataclass, field
from typing import Any

from enrich.pipeline.figures import Figures


@dataclass(slots=True)
class ScoredAhead:
    """What a cluster did; `figures.listings` are those whose photos are all dealt with."""

    figures: Figures = field(default_factory=Figures)
    fetchers: int = 0
    scorers: int = 0
    left: int = 0
    """Photos that were lost on the way, or whose host was paused for too long."""

    def as_json(self) -> dict[str, Any]:
        """For logs and the table `run`."""
        crew = {"fetchers": self.fetchers, "scorers": self.scorers, "left": self.left}
        return {**self.figures.as_json(), **crew}
