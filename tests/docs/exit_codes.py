"""docs/reference/exit-codes.md, from jobs/model/exit_codes.py."""

from __future__ import annotations

from jobs.model.exit_codes import ExitCode
from orchestrator.schemas.comments import comments_of

PAGE = "docs/reference/exit-codes.md"
HEAD = """\
<!-- made by `make docs` from jobs/model/exit_codes.py -->
# Exit codes

Every command ends with one of these, and they do not change. What is wrong is one line on stderr.

| code | means |
|--:|---|
"""
FOOT = """
`lq submit --wait` and `lq run` end with the codes below 100 where the job was never queued. Of several jobs the first
that did not succeed gives the code. What a trainer's own process ends with only the worker sees; `lq show ID` tells it.
"""


def page() -> str:
    """Return the page."""
    said = comments_of(ExitCode)
    return HEAD + "".join(f"| {code.value} | {said[code.name]} |\n" for code in ExitCode) + FOOT
