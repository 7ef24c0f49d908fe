"""What a request says of the bytes that are known, so that they need not come again."""

import pytest

from enrich.pipeline.outcome import UNKNOWN, Known
from enrich.records import Photo, PhotoScore, PhotoState, PhotoStatus, Validators

PHOTO = Photo(0, "http://photos.example/1.jpg", "key", "http://photos.example/1.jpg", version="2")
SCORE = PhotoScore("s", 0, {})
BOTH, ETAG_ONLY = Validators('"1"', "Sun, 01 Mar 2026 12:00:00 GMT"), Validators('"1"')


def before(version: str | None = "2", status: PhotoStatus = PhotoStatus.OK) -> PhotoState:
    return PhotoState("key", status, "s", version, BOTH, 0, True, None)


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        (UNKNOWN, None),
        (Known(before()), None),
        (Known(before(), SCORE), BOTH),
        (Known(before("1"), SCORE), ETAG_ONLY),
        (Known(before(None), SCORE), ETAG_ONLY),
        (Known(before(status=PhotoStatus.TIMEOUT), SCORE), ETAG_ONLY),
    ],
    ids=[
        "nothing known",
        "no scores",
        "the same version",
        "another version",
        "no version",
        "the version of a failure",
    ],
)
def test_a_date_is_sent_only_where_the_version_is_that_of_the_bytes(
    known: Known, sent: Validators | None
) -> None:
    """A host takes any file for unchanged that is no newer, also another one."""
    assert known.validators(PHOTO) == sent
