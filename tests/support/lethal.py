"""The `enrich` command, killed by SIGKILL whenever it decodes a certain photo: as a bug in a decoder would.

::

    python -m tests.support.lethal SHA256 run     # die when the photo with these bytes is to be decoded
"""

import hashlib
import os
import signal
import sys
from typing import Any

from enrich.pipeline import photo
from jobs.cli.commands import main

if __name__ == "__main__":
    lethal, decode = sys.argv.pop(1), photo.decode

    def patched(body: bytes, *args: Any) -> Any:
        if hashlib.sha256(body).hexdigest() == lethal:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(body, *args)

    photo.decode = patched
    main()
