"""Groups: their names, their jobs, and the results of the jobs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from sqlalchemy import ColumnElement, case, func, select

from jobs.model.events import Kind
from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from orchestrator.store.database import Records
from orchestrator.store.job_queries import select_jobs
from orchestrator.store.rows import from_row, to_job
from orchestrator.store.schema import jobs, validations


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndedGroup:
    """A group without a live job."""

    name: str
    jobs: int
    ended_at: float  # when its last job ended, unix seconds
    last_job: int  # the id of its newest job


class GroupRecords(Records):
    """Groups."""

    def names(self) -> list[str]:
        """Return the names of all groups, the newest first."""
        query = select(jobs.c.group_name).where(jobs.c.group_name.is_not(None)).group_by(jobs.c.group_name)
        return self._column(query.order_by(func.max(jobs.c.id).desc()))

    def jobs(self, name: str) -> list[Job]:
        """Return the jobs of a group by id; an unknown group has no jobs."""
        return [to_job(row) for row in self._rows(select_jobs(jobs.c.group_name == name).order_by(jobs.c.id))]

    def specs(self, name: str) -> dict[int, str]:
        """Return the JobSpec of each job of a group, as JSON by job id."""
        query = select(jobs.c.id, jobs.c.spec_json).where(jobs.c.group_name == name).order_by(jobs.c.id)
        return {row["id"]: row["spec_json"] for row in self._rows(query)}

    def best_losses(self, name: str) -> dict[int, float]:
        """Return, by job id, the lowest finite validation loss of each job of a group that has one."""
        # a loss that is not finite is stored as text, which SQLite sorts after every number
        query = (
            select(validations.c.job_id, func.min(validations.c.loss).label("lowest"))
            .join(jobs, jobs.c.id == validations.c.job_id)
            .where(jobs.c.group_name == name, validations.c.kind == Kind.VALIDATION.value)
            .where(~validations.c.superseded)
            .group_by(validations.c.job_id)
        )
        return {row["job_id"]: row["lowest"] for row in self._rows(query) if math.isfinite(row["lowest"])}

    def ended_since(self, since: float) -> list[EndedGroup]:
        """Return the groups with a successful job whose last job ended after `since` (unix seconds)."""
        query = (
            select(jobs.c.group_name.label("name"), func.count().label("jobs"))
            .add_columns(func.max(jobs.c.ended_at).label("ended_at"), func.max(jobs.c.id).label("last_job"))
            .where(jobs.c.group_name.is_not(None))
            .group_by(jobs.c.group_name)
            .having(_count(jobs.c.status.not_in(ENDED)) == 0)
            .having(_count(jobs.c.status == Status.SUCCEEDED) > 0)
            .having(func.max(jobs.c.ended_at) > since)
        )
        return [from_row(EndedGroup, row) for row in self._rows(query)]


def free_name(wanted: str, taken: Collection[str]) -> str:
    """Return a group name that is not taken: `wanted`, otherwise `wanted 2`, `wanted 3` and so on."""
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted} {number}"
    return name


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))
