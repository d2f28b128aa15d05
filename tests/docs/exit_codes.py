"""docs/reference/exit-codes.md: the exit codes, from jobs/model/exit_codes.py."""

from __future__ import annotations

from jobs.model.exit_codes import ExitCode
from orchestrator.results.json_schema import comments_of

PAGE = "docs/reference/exit-codes.md"
HEAD = """\
<!-- made by `make docs` from jobs/model/exit_codes.py -->
# Exit codes

Every command ends with one of these codes. Their meaning does not change between versions. An error is one line on
stderr.

| code | meaning |
|--:|---|
"""
FOOT = """
`lq submit --wait` and `lq run` end with a code below 100 if the job was not queued. With several jobs, the first job
that did not succeed determines the code. The exit code of the trainer process is visible to the worker only;
`lq show ID` shows it.
"""


def page() -> str:
    """Return the text of the page."""
    comments = comments_of(ExitCode)
    return HEAD + "".join(f"| {code.value} | {comments[code.name]} |\n" for code in ExitCode) + FOOT
