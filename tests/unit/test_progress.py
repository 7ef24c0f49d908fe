"""The display beside long work."""

from threading import Event

import pytest

from enrich.errors import OutageError
from enrich.pipeline.figures import Figures
from jobs.run.progress import shown


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_outage_ends_the_display_and_is_left_to_the_work_to_tell() -> None:
    asked = Event()

    def remaining() -> int:
        asked.set()
        raise OutageError("no database")

    with shown(Figures(), remaining, interval=0.01):
        assert asked.wait(10)
