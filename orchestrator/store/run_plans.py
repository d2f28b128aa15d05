"""Run plans: the stages that Decisions appended to the requested stage of each job."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select

from jobs.model.job import Incident
from jobs.model.run_plan import RunPlan, Stage, stage_from
from jobs.model.states import LIVE
from orchestrator.store.database import Records
from orchestrator.store.incidents import insert_incidents
from orchestrator.store.metrics import supersede_after
from orchestrator.store.schema import jobs, stages

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec


class RunPlanRecords(Records):
    """Run plans of jobs."""

    def get(self, job_id: int, spec: JobSpec) -> RunPlan:
        """Return the run plan of a job: the stage that `spec` asks for, and those appended since."""
        return RunPlan(stages=(*RunPlan.requested(spec).stages, *self.stages(job_id)))

    def stages(self, job_id: int) -> list[Stage]:
        """Return the stages that were appended to the requested one, oldest first."""
        query = select(stages.c.content).where(stages.c.job_id == job_id).order_by(stages.c.id)
        return [stage_from(content) for content in self._column(query)]

    def latest_stages(self) -> dict[int, Stage]:
        """Return, by job id, the latest stage of each live job that has more than the requested stage."""
        query = select(stages.c.job_id, stages.c.content).join(jobs, jobs.c.id == stages.c.job_id)
        query = query.where(jobs.c.status.in_(LIVE)).order_by(stages.c.id)
        return {row["job_id"]: stage_from(row["content"]) for row in self._rows(query)}

    def append(self, job_id: int, stage: Stage, now: float) -> None:
        """Append a stage to a job that is not running; a running one gets its stages with a Decision."""
        with self._database.writing() as db:
            append_stage(db, job_id, stage, now)

    def roll_back(self, job_id: int, stage: Stage, iteration: int, incident: Incident, *, now: float) -> None:
        """Append a stage that goes back to an iteration, before an attempt begins; supersede the metrics after it."""
        with self._database.writing() as db:
            append_stage(db, job_id, stage, now)
            supersede_after(db, job_id, iteration)
            insert_incidents(db, [incident])


def append_stage(db: Connection, job_id: int, stage: Stage, now: float) -> None:
    """Append a stage within a transaction."""
    db.execute(insert(stages).values(job_id=job_id, decided_at=now, content=dataclasses.asdict(stage)))
