"""What a job came to, in one word: the verdict that its report gave. Reads report.json, judges nothing itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.job import Job
from workers.job_dir import JobDir

_PLACE = ("findings", "ruling", "verdict", "code")
"""Where report.json has it (report/facts.py, report/findings.py)."""


def verdict_of(job: Job) -> str | None:
    """Return the verdict that a job's report.json holds; None where there is no report, or none in it."""
    path = JobDir(Path(job.job_dir)).report / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return verdict_in(content) if isinstance(content, dict) else None


def verdict_in(content: Mapping[str, Any]) -> str | None:
    """Return the verdict of a report as JSON, one of jobs.verdict.Code; None where it holds none."""
    found: object = content
    for name in _PLACE:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) and found else None


def word_for(job: Job) -> str:
    """Return the verdict of a job's report, its status where there is none."""
    return verdict_of(job) or job.status.value
