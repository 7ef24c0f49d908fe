"""What `enrich reconcile` and `enrich reindex` found and did, for the report."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Difference:
    """Documents that differ in one way."""

    count: int = 0
    examples: list[str] = field(default_factory=list)
    """The ids of the first ones."""


@dataclass(slots=True)
class Reconciled:
    """How the index differs from the portal's tables and our state."""

    documents: int = 0
    """How many there should be, of listings that were enriched."""
    waiting: int = 0
    """Listings whose documents the next run makes, publishes or tries again anyway."""
    missing: Difference = field(default_factory=Difference)
    stale: Difference = field(default_factory=Difference)
    orphaned: Difference = field(default_factory=Difference)
    altered: Difference = field(default_factory=Difference)
    fixed: bool = False

    @property
    def differences(self) -> int:
        return self.missing.count + self.stale.count + self.orphaned.count + self.altered.count


@dataclass(slots=True)
class Reindexed:
    """What became of the indices of the alias."""

    serving: str | None = None
    """The index that serves now; None where none took its place."""
    before: str | None = None
    """The one that served before."""
    went_back: bool = False
    """It is the one that served before the last reindex."""
    taken_up: bool = False
    """It was begun by an earlier reindex, which did not end."""
    documents: int = 0
    """In the new index when it was compared."""
    sampled: int = 0
    """Documents read back and compared with state."""
    lacks: int = 0
    """Documents that the index that serves is still to get."""
    removed: list[str] = field(default_factory=list)
    """Older indices that were removed."""
    contradiction: str | None = None
    """After going back: in what the index contradicts the settings."""
