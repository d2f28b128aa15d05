"""`python -P -m orchestrator.report HOME JOB_ID`: write a report in a separate process, to keep the worker small."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from jobs.model.errors import LqError
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.core.paths import Home
from orchestrator.report.facts import PendingStatus
from orchestrator.report.make import make
from orchestrator.store.store import Store


def main(arguments: list[str] | None = None) -> int:
    """Write the report of one job, print its path and return the exit code."""
    options = _parser().parse_args(arguments)
    pending = None
    if options.as_status is not None:
        pending = PendingStatus(status=Status(options.as_status), reason=options.as_reason, detail=options.as_detail)
    default_home = options.home.absolute() == Home.of({}).path
    home = None if default_home else str(options.home.absolute())
    try:
        with Store.open(Home(options.home).store) as store:
            path = make(store, options.job_id, now=time.time(), home=home, pending=pending)
    except LqError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m orchestrator.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("home", type=Path, help="$LQ_HOME")
    parser.add_argument("job_id", type=int, help="the id of the job")
    parser.add_argument("--as-status", choices=[*Status], default=None, help="report this status, not the stored one")
    parser.add_argument("--as-reason", choices=[*Reason], default=None, help="reason code of --as-status")
    parser.add_argument("--as-detail", default=None, help="detail of --as-status")
    return parser


if __name__ == "__main__":
    sys.exit(main())
