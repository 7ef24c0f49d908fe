"""Listings saved together leave what they would leave one after the other."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from enrich.records import PhotoResult, PhotoStatus
from enrich.state.settle import by_key, settle
from tests.support.enriched import failed, ok, photo, sha

KEYS = "xyz"
Record = dict[str, tuple[str, str | None]]


def result_of(key: str, status: PhotoStatus, version: str, requested: bool) -> PhotoResult:
    if not status.ok:
        return failed(photo(key), status)
    return ok(photo(key), sha(version), status=status, requested=requested)


RESULTS = st.builds(
    result_of,
    st.sampled_from(KEYS),
    st.sampled_from([PhotoStatus.OK, PhotoStatus.UNCHANGED, PhotoStatus.TIMEOUT, PhotoStatus.GONE]),
    st.sampled_from("123"),
    st.booleans(),
)
LISTINGS = st.lists(st.lists(RESULTS, max_size=4), max_size=5)
ON_RECORD = st.dictionaries(
    st.sampled_from([photo(key).key for key in KEYS]),
    st.tuples(st.sampled_from(["ok", "gone"]), st.sampled_from([sha(version) for version in "123"])),
)


def after(before: Record, rows: dict[str, dict[str, Any]]) -> Record:
    """What is on record once these rows are written."""
    written = {
        key: (row["status"], row["sha256"] if row["seen"] else before.get(key, ("", None))[1])
        for key, row in rows.items()
    }
    return {**before, **written}


@given(LISTINGS, ON_RECORD)
def test_a_group_leaves_what_its_listings_leave_one_after_the_other(
    listings: list[list[PhotoResult]], on_record: Record
) -> None:
    results = [by_key(listing) for listing in listings]
    in_turn, changed = on_record, set[str]()
    for listing in results:
        settled = settle([listing], in_turn)
        in_turn = after(in_turn, settled.rows)
        changed |= settled.changed.keys()
    together = settle(results, on_record)
    assert after(on_record, together.rows) == in_turn
    assert together.changed.keys() == changed


@given(LISTINGS, ON_RECORD)
def test_a_listing_that_counts_as_current_holds_what_is_on_record_in_the_end(
    listings: list[list[PhotoResult]], on_record: Record
) -> None:
    results = [by_key(listing) for listing in listings]
    settled = settle(results, on_record)
    final = after(on_record, settled.rows)
    for listing, current in zip(results, settled.current, strict=True):
        for key, result in listing.items():
            if current and result.status.ok and key in final and final[key][1] is not None:
                assert result.sha256 == final[key][1]
