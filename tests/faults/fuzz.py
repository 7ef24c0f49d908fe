"""The decoder under atheris: photos that change by what they make Pillow's Python and ours do.

    python -m tests.faults.fuzz FOLDER -max_total_time=300 …

The folder holds the files to begin with; the options are libFuzzer's. It ends with an exit code other than 0
at the first photo that raises, hangs, takes too much memory or has no proper status, and keeps that photo.
"""

import sys

import atheris

with atheris.instrument_imports(include=["PIL", "enrich.photos"]):
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

    from enrich.photos.decode import decode

from tests.faults.decoding import PREPROCESSINGS
from tests.faults.good import ANY, Ends

CAP = 1_000_000  # pixels


def one(data: bytes) -> None:
    found = decode(data, PREPROCESSINGS, CAP)
    assert found.status in ANY | {Ends.EMPTY}, found.status
    assert len(found.pixels) == (len(PREPROCESSINGS) if found.status is Ends.OK else 0)
    assert bool(found.error) is not bool(found.pixels)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
