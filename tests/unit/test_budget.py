"""The error budget's message: it names what failed, and the way out."""

import pytest

from enrich.errors import ErrorBudgetError
from enrich.pipeline.budget import LEAST, ErrorBudget


def stopped(*failed: str | None) -> str:
    """The message that ends a run whose requests end so again and again."""
    budget = ErrorBudget(0.2)
    with pytest.raises(ErrorBudgetError) as stopped:
        for number in range(LEAST):
            budget.spend(f"{number}", failed[number % len(failed)])
    return str(stopped.value)


def test_it_names_what_failed_for_passing_reasons_most_often() -> None:
    said = stopped("timeout", None, "timeout", "dns")
    assert "150 of the last 200 photo requests" in said and "(most often timeout, dns)" in said
    assert "run again" in said and "really gone" not in said


def test_dead_links_have_a_way_out() -> None:
    said = stopped("not_found", "refused", "not_found", None)
    assert "(most often not_found, refused)" in said
    assert said.endswith("if these photos are really gone, raise ENRICH_ERROR_BUDGET for this run")


def test_what_fails_for_good_spends_nothing() -> None:
    budget = ErrorBudget(0.2)
    for number in range(2 * LEAST):
        budget.spend(f"{number}", "dns" if number % 6 == 0 else None)
    assert len(budget.failed()) == 67
