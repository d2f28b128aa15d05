"""The verdict on a job, read from its report.json. Light enough for `lq status`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from jobs.model.job import Job


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredVerdict:
    """The verdict of a report."""

    code: str  # one of jobs.policies.verdict.Code
    because: str
    advice: str


def stored_verdict(job: Job) -> StoredVerdict | None:
    """Return the verdict of a job; None if it has no report, or the report has no verdict."""
    try:
        content = json.loads((job.dir.report / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return verdict_in(content) if isinstance(content, dict) else None


def verdict_in(report: Mapping[str, Any]) -> StoredVerdict | None:
    """Return the verdict of a report.json; None if it has none."""
    try:
        ruling = report["findings"]["ruling"]
        verdict, advice = ruling["verdict"], ruling.get("advice") or ""
        return (
            StoredVerdict(code=verdict["code"], because=verdict.get("because") or "", advice=advice)
            if verdict["code"]
            else None
        )
    except (LookupError, TypeError, AttributeError):
        return None


def verdict_of(job: Job) -> str | None:
    """Return the code of the verdict on a job, if there is one."""
    verdict = stored_verdict(job)
    return None if verdict is None else verdict.code


def word_for(job: Job) -> str:
    """Return the code of the verdict on a job, or its status."""
    return verdict_of(job) or job.status.value
