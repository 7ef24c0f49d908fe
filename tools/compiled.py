"""Compile what pip installed into the environment that runs this without compiling it.

    pip install --no-compile …
    python -m tools.compiled

pip compiles one file after another, 19,000 with those of the checks; here all cores do, and they leave out
the tests that packages bring along.
"""

import re
import subprocess
import sys
import sysconfig


def compiled() -> None:
    """Compile whatever is not; a file that is meant for another Python is left as it is."""
    packages = sysconfig.get_path("purelib")
    tests = rf"{re.escape(packages)}.*[/\\]tests?[/\\]"
    command = [sys.executable, "-m", "compileall", "-qq", "-j", "0", "-x", tests, packages]
    subprocess.run(command, check=False)


if __name__ == "__main__":
    compiled()
