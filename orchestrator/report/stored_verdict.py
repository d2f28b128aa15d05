"""What a job came to, in one word: the verdict that its report gave. Reads report.json, judges nothing itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.model.job import Job

_PLACE = ("findings", "ruling", "verdict", "code")
_BECAUSE = ("findings", "ruling", "verdict", "because")
_ADVICE = ("findings", "ruling", "advice")
"""Where report.json has it (report/facts.py, report/findings.py)."""


def verdict_of(job: Job) -> str | None:
    """Return the verdict that a job's report.json holds; None where there is no report, or none in it."""
    content = _report_of(job)
    return None if content is None else verdict_in(content)


def ruling_of(job: Job) -> tuple[str, str, str] | None:
    """Return verdict, grounds and advice of a job's report.json; None where it holds no verdict."""
    content = _report_of(job)
    verdict = None if content is None else verdict_in(content)
    if content is None or verdict is None:
        return None
    return verdict, _text_in(content, _BECAUSE) or "", _text_in(content, _ADVICE) or ""


def verdict_in(content: Mapping[str, Any]) -> str | None:
    """Return the verdict of a report as JSON, one of jobs.verdict.Code; None where it holds none."""
    return _text_in(content, _PLACE)


def _report_of(job: Job) -> dict[str, Any] | None:
    path = job.dir.report / "report.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _text_in(content: Mapping[str, Any], place: Sequence[str]) -> str | None:
    found: object = content
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) and found else None


def word_for(job: Job) -> str:
    """Return the verdict of a job's report, its status where there is none."""
    return verdict_of(job) or job.status.value
