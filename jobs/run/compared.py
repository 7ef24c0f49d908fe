"""What a comparison of index, state and portal found, for the report."""

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
