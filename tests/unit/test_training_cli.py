"""What `enrich-train` says reaches whoever reads it, whatever their terminal knows."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_terminal_that_knows_no_unicode_gets_other_signs_for_what_it_lacks() -> None:
    """As `evaluate` shows an average precision that cannot be given, before it writes the new bundle."""
    code = (
        "from training import cli\n"
        "from training.markdown import number\n"
        "from training.terminal import plain\n"
        "@cli.app.command()\n"
        "def signs():\n"
        "    plain().print(number(None), 'Malmö')\n"
        "cli.main()\n"
    )
    given = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code, "signs"], env=given, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("latin-1").split() == [r"\u2013", "Malmö"]
