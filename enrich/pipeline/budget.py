"""The error budget: how many of the recent photo requests may fail for passing reasons."""

from collections import Counter, deque

from enrich.errors import ErrorBudgetError
from enrich.records import MAY_LAST

WINDOW, LEAST = 500, 200  # photo requests looked at: the last so many, and only once there are so many


class ErrorBudget:
    """Counts requests against `share` (0 to 1, `ENRICH_ERROR_BUDGET`) of those looked at."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._attempts: deque[tuple[str, str | None]] = deque()
        self._failed = 0

    def spend(self, listing: str, failed: str | None) -> None:
        """Count one request for a photo of a listing, which `failed` so for a passing reason, or did not.

        Raises:
            ErrorBudgetError: too many of them failed for passing reasons.
        """
        self._attempts.append((listing, failed))
        self._failed += failed is not None
        if len(self._attempts) > WINDOW:
            self._failed -= self._attempts.popleft()[1] is not None
        if len(self._attempts) >= LEAST and self._failed > self._share * len(self._attempts):
            raise ErrorBudgetError(self._message())

    def failed(self) -> list[str]:
        """The listings whose photos failed for passing reasons, of the requests looked at."""
        return sorted({listing for listing, failed in self._attempts if failed is not None})

    def _message(self) -> str:
        kinds = Counter(failed for _, failed in self._attempts if failed is not None)
        often = [kind for kind, _ in kinds.most_common(3)]
        gone = "; if these photos are really gone, raise ENRICH_ERROR_BUDGET for this run"
        return (
            f"{self._failed} of the last {len(self._attempts)} photo requests failed for passing reasons "
            f"(most often {', '.join(often)}), more than ENRICH_ERROR_BUDGET={self._share:g} allows; nothing "
            "is held against the listings: look at the photo hosts and run again"
            f"{gone if often[0] in MAY_LAST else ''}"
        )
