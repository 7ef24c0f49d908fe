"""docs/reliability.md says what the fault tests counted, the bad news too."""

from tests.faults.__main__ import page


def test_the_page_adds_up_what_was_counted() -> None:
    urls = {"tried": "URLs that must not be fetched", "cases": 1_260, "failures": {"escapes": 0}}
    photos = {"tried": "Photos", "cases": 40, "failures": {"crashes": 2, "lines_in_the_log": 1}}
    rows = [line for line in page([urls, photos], "make reliability").splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| Photos | 40 | crashes: 2, lines in the log: 1 |",
        "| URLs that must not be fetched | 1,260 | escapes: 0 |",
        "| **all** | **1,300** | **3** |",
    ]
