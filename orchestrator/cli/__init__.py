"""The command line: parse, one use case, render. No logic.

`main` is what the console script `lq` calls. It checks that lq's packages are its own before anything else is
imported, and turns every error into one line and the documented exit code (design.md, "Command line").
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

INTERRUPTED = 130


def main() -> None:
    """Run `lq` with the process's own arguments, and exit."""
    os.umask(0o077)
    from orchestrator.installation import shadowed

    shadow = shadowed(Path(__file__).resolve().parents[2])
    if shadow is not None:
        name, place = shadow
        text = f"lq: its package {name!r} is shadowed by {place}; run lq from elsewhere or clear PYTHONPATH\n"
        sys.stderr.write(text)
        sys.exit(1)
    from orchestrator.cli.border import run

    sys.exit(run(sys.argv[1:]))
