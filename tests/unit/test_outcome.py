"""What becomes of a photo that failed, with what was known of it before."""

import pytest

from enrich.pipeline.outcome import Known, with_bytes, without_bytes
from enrich.records import Decoded, Fetched, PhotoResult, PhotoScore, PhotoState, PhotoStatus, Validators
from tests.support.enriched import photo

SCORE = PhotoScore("s", 0, {})


def after(
    status: PhotoStatus, failures: int, now: PhotoStatus, version: str | None = None, seen: bool = False
) -> PhotoResult:
    """How a photo ends `now` whose row says so many failures, the last of them so."""
    seen_bytes = "s" if status.transient(failures - 1) else None
    before = PhotoState(photo("x").key, status, seen_bytes, version, Validators(), failures, True, None)
    score = SCORE if seen_bytes else None
    result = without_bytes(photo("x"), Known(before, score, seen), Fetched(now))
    assert result is not None
    return result


@pytest.mark.parametrize("now", [PhotoStatus.NOT_FOUND, PhotoStatus.REFUSED])
@pytest.mark.parametrize("earlier", [PhotoStatus.TIMEOUT, PhotoStatus.UNDECODABLE])
def test_a_first_404_may_pass_whatever_failed_before(earlier: PhotoStatus, now: PhotoStatus) -> None:
    result = after(earlier, 3, now)
    assert (result.failures, result.transient) == (1, True)
    assert result.score == (SCORE if earlier is PhotoStatus.TIMEOUT else None)


@pytest.mark.parametrize("earlier", [PhotoStatus.NOT_FOUND, PhotoStatus.REFUSED])
def test_the_second_one_lasts(earlier: PhotoStatus) -> None:
    result = after(earlier, 1, PhotoStatus.NOT_FOUND)
    assert (result.failures, result.transient, result.score) == (2, False, None)


def test_other_failures_in_a_row_are_counted() -> None:
    assert after(PhotoStatus.NOT_FOUND, 1, PhotoStatus.TIMEOUT).failures == 2
    assert after(PhotoStatus.DNS, 2, PhotoStatus.TIMEOUT).failures == 3


def test_failures_of_another_version_do_not_count() -> None:
    assert after(PhotoStatus.NOT_FOUND, 2, PhotoStatus.NOT_FOUND, version="old").failures == 1
    before = PhotoState(photo("x").key, PhotoStatus.UNDECODABLE, "s", "old", Validators(), 1, False, None)
    broken = Decoded(PhotoStatus.UNDECODABLE)
    fetched = Fetched(PhotoStatus.OK, b"x", "t")
    assert with_bytes(photo("x"), Known(before), fetched, broken).failures == 1


def test_failures_do_count_that_another_listing_saw_in_a_version_of_its_own() -> None:
    """Else two listings that share a photo would have each other ask for it again and again."""
    assert after(PhotoStatus.NOT_FOUND, 1, PhotoStatus.NOT_FOUND, version="its", seen=True).failures == 2
