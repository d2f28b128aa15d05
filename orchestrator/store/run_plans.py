"""The stages that Decisions appended to each job's run plan, and what is known of the memory configurations take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.model.job import Fit
from jobs.model.run_plan import RunPlan, Stage, stage_from
from jobs.model.states import LIVE
from orchestrator.store.database import Database
from orchestrator.store.rows import fields_of
from orchestrator.store.schema import fits, jobs, stages

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec


class RunPlans(Database):
    """What is asked about run plans."""

    def stages(self, job_id: int) -> list[Stage]:
        """Return the stages appended to a job's requested one, in the order in which they were decided."""
        query = select(stages.c.content).where(stages.c.job_id == job_id).order_by(stages.c.id)
        with self.reading() as db:
            return [stage_from(content) for content in db.execute(query).scalars()]

    def latest_stages(self) -> dict[int, Stage]:
        """Return, by job id, the latest stage of each live job that has more than the requested stage."""
        query = select(stages.c.job_id, stages.c.content).join(jobs, jobs.c.id == stages.c.job_id)
        query = query.where(jobs.c.status.in_(LIVE)).order_by(stages.c.id)
        with self.reading() as db:
            return {row.job_id: stage_from(row.content) for row in db.execute(query)}

    def run_plan(self, job_id: int, spec: JobSpec) -> RunPlan:
        """Return a job's run plan: the stage it asked for, and those appended since.

        Args:
            job_id: whose.
            spec: what it asked for.
        """
        return RunPlan(stages=(*RunPlan.requested(spec).stages, *self.stages(job_id)))

    def append_stage(self, job_id: int, stage: Stage, now: float) -> None:
        """Append a stage to a job that does not run; a running one gets its stages with a Decision."""
        with self.writing() as db:
            append_stage(db, job_id, stage, now)

    def remember_fit(self, key: str, fit: Fit, now: float) -> None:
        """Keep what a configuration took; what did not fit once counts until it is seen to fit.

        What was not measured this time leaves what was measured before.

        Args:
            key: names the configuration.
            fit: what was seen.
            now: unix seconds.
        """
        row = {"key": key, "seen_at": now, **dataclasses.asdict(fit)}
        news = {name: value for name, value in row.items() if value is not None or name == "peak_bytes"}
        with self.writing() as db:
            db.execute(upsert(fits).values(**row).on_conflict_do_update(index_elements=["key"], set_=news))

    def fit(self, key: str) -> Fit | None:
        """Return what is known of a configuration; None where it was never seen."""
        query = select(*fields_of(fits, Fit)).where(fits.c.key == key)
        with self.reading() as db:
            row = db.execute(query).mappings().first()
        return None if row is None else Fit(**row)

    def fits(self) -> dict[str, Fit]:
        """Return what is known of every configuration that was seen, by its key, the last seen first."""
        query = select(fits.c.key, *fields_of(fits, Fit)).order_by(fits.c.seen_at.desc())
        with self.reading() as db:
            rows = [dict(row) for row in db.execute(query).mappings()]
        return {row.pop("key"): Fit(**row) for row in rows}


def append_stage(db: Connection, job_id: int, stage: Stage, now: float) -> None:
    """Append a stage within a transaction."""
    db.execute(insert(stages).values(job_id=job_id, decided_at=now, content=dataclasses.asdict(stage)))
