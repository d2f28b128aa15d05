"""The verdict on a job, read from its report.json. Light enough for `lq status`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.model.job import Job
from jobs.model.states import Status

if TYPE_CHECKING:
    from orchestrator.store.store import Store

_CLOCKS_S = 2.0  # a file system may round its times


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredVerdict:
    """The verdict of a report."""

    code: str  # one of jobs.policies.verdict.Code
    because: str
    advice: str


def lacks_report(store: Store, job: Job) -> bool:
    """Return whether a job that succeeded or failed has no whole report of its last attempt.

    The process that writes it may be killed together with the worker, or find no space, after the job has ended.
    """
    folder, attempts = job.dir.report, store.attempts.of(job.id)
    if job.status not in (Status.SUCCEEDED, Status.FAILED) or not attempts or job.cleaned_at is not None:
        return False
    if not job.dir.path.is_dir():
        return False
    names = ["report.md", "report.html", *(["loss_curve.png"] if job.train_loss is not None else [])]
    try:
        is_old = (folder / "report.json").stat().st_mtime < (attempts[-1].ended_at or 0.0) - _CLOCKS_S
        return is_old or not all((folder / name).is_file() for name in names)
    except OSError:
        return True


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
