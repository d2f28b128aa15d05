"""`python -P -m orchestrator.report HOME JOB_ID`: a process of its own, so that the worker's memory stays small."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from jobs.model.errors import LqError
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.core.paths import Home
from orchestrator.report.make import make
from orchestrator.store.store import Store


def main(arguments: list[str] | None = None) -> int:
    """Write the report of one job and print its path.

    Args:
        arguments: of the command line; the process's own when None.

    Returns:
        The exit code (design.md, "Command line").
    """
    asked = _parser().parse_args(arguments)
    try:
        with Store.open(Home(asked.home).store) as store:
            path = make(
                store,
                asked.job_id,
                as_status=asked.as_status,
                as_reason=asked.as_reason,
                as_detail=asked.as_detail,
                now=time.time(),
                home=_named(asked.home),
            )
    except LqError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m orchestrator.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("home", type=Path, help="$LQ_HOME")
    parser.add_argument("job_id", type=int, help="the job's id")
    parser.add_argument("--as-status", choices=[*Status], default=None, help="status to report, not yet stored")
    parser.add_argument("--as-reason", choices=[*Reason], default=None, help="reason code that goes with it")
    parser.add_argument("--as-detail", default=None, help="line for a person that goes with it")
    return parser


def _named(home: Path) -> str | None:
    """Return the home as the report's commands must name it; None where `lq` finds it by itself."""
    return None if home.absolute() == Home.of({}).path else str(home.absolute())


if __name__ == "__main__":
    sys.exit(main())
