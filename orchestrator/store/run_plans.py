"""Run plans: the stages that Decisions appended to the requested one of each job."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select

from jobs.model.job import Incident
from jobs.model.run_plan import RunPlan, Stage, stage_from
from jobs.model.states import LIVE
from orchestrator.store.database import Records
from orchestrator.store.incidents import insert_incidents
from orchestrator.store.metrics import let_go
from orchestrator.store.schema import jobs, stages

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec


class RunPlanRecords(Records):
    """Run plans of jobs."""

    def stages(self, job_id: int) -> list[Stage]:
        """Return the stages appended to a job's requested one, in the order in which they were decided."""
        query = select(stages.c.content).where(stages.c.job_id == job_id).order_by(stages.c.id)
        with self._database.reading() as db:
            return [stage_from(content) for content in db.execute(query).scalars()]

    def latest_stages(self) -> dict[int, Stage]:
        """Return, by job id, the latest stage of each live job that has more than the requested stage."""
        query = select(stages.c.job_id, stages.c.content).join(jobs, jobs.c.id == stages.c.job_id)
        query = query.where(jobs.c.status.in_(LIVE)).order_by(stages.c.id)
        with self._database.reading() as db:
            return {row.job_id: stage_from(row.content) for row in db.execute(query)}

    def get(self, job_id: int, spec: JobSpec) -> RunPlan:
        """Return a job's run plan: the stage it asked for, and those appended since.

        Args:
            job_id: whose.
            spec: what it asked for.
        """
        return RunPlan(stages=(*RunPlan.requested(spec).stages, *self.stages(job_id)))

    def append(self, job_id: int, stage: Stage, now: float) -> None:
        """Append a stage to a job that does not run; a running one gets its stages with a Decision."""
        with self._database.writing() as db:
            append_stage(db, job_id, stage, now)

    def roll_back(self, job_id: int, stage: Stage, iteration: int, incident: Incident, *, now: float) -> None:
        """Append a stage that goes back, before an attempt begins; what was seen beyond its beginning is let go.

        Args:
            job_id: whose run plan.
            stage: the stage.
            iteration: where it begins.
            incident: tells it.
            now: unix seconds.
        """
        with self._database.writing() as db:
            append_stage(db, job_id, stage, now)
            let_go(db, job_id, iteration)
            insert_incidents(db, [incident])


def append_stage(db: Connection, job_id: int, stage: Stage, now: float) -> None:
    """Append a stage within a transaction."""
    db.execute(insert(stages).values(job_id=job_id, decided_at=now, content=dataclasses.asdict(stage)))
