"""The entry point of `lq`. It checks that Python imports lq's own packages before it imports anything else."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run `lq` with the arguments of the process and exit with a documented exit code."""
    os.umask(0o077)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 for the rest of the process
    from orchestrator.core.installation import shadowed

    shadow = shadowed(Path(__file__).resolve().parents[2])
    if shadow is not None:
        name, path = shadow
        sys.stderr.write(
            f"lq: its package {name!r} is shadowed by {path}; run lq in another folder, or unset PYTHONPATH\n"
        )
        sys.exit(1)
    from orchestrator.cli.verbs import run

    sys.exit(run(sys.argv[1:]))
