"""The error budget: how many of the recent photo requests may fail for passing reasons."""

from collections import Counter, deque

from enrich.errors import ErrorBudgetError

WINDOW, LEAST = 500, 200  # photo requests looked at: the last so many, and only once there are so many


class ErrorBudget:
    """Counts requests against `share` (0 to 1, `ENRICH_ERROR_BUDGET`) of those looked at.

    `failures` are the run's failed photos by kind, for the message.
    """

    def __init__(self, share: float, failures: Counter[str]) -> None:
        self._share = share
        self._failures = failures
        self._attempts: deque[tuple[str, bool]] = deque()
        self._failed = 0

    def spend(self, listing: str, transient: bool) -> None:
        """Count one request for a photo of a listing.

        Raises:
            ErrorBudgetError: too many of them failed for passing reasons.
        """
        self._attempts.append((listing, transient))
        self._failed += transient
        if len(self._attempts) > WINDOW:
            self._failed -= self._attempts.popleft()[1]
        if len(self._attempts) >= LEAST and self._failed > self._share * len(self._attempts):
            raise ErrorBudgetError(
                f"{self._failed} of the last {len(self._attempts)} photo requests failed for passing reasons "
                f"(most often {', '.join(kind for kind, _ in self._failures.most_common(3))}), more than "
                f"ENRICH_ERROR_BUDGET={self._share:g} allows; nothing is held against the listings: "
                "look at the photo hosts and run again"
            )

    def failed(self) -> list[str]:
        """The listings whose photos failed for passing reasons, of the requests looked at."""
        return sorted({listing for listing, transient in self._attempts if transient})
