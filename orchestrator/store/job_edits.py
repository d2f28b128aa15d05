"""Edits of jobs that have not begun: a job is held while it is edited, then everything about it changes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.run_plan import Stage
from jobs.model.states import ENDED, Status, require_legal
from orchestrator.store.database import Records
from orchestrator.store.job_queries import change, read_job, requeue, require_free_paths
from orchestrator.store.run_plans import append_stage
from orchestrator.store.schema import dependencies, stages

BEING_EDITED = "being edited"
"""How the detail of a job begins that is held for the time of an edit."""


class JobEdits(Records):
    """Edits of jobs."""

    def begin(self, job_id: int) -> Job:
        """Keep a job that never ran from starting while it is edited; return it as it was.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: it has run, has ended, or is being edited already.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            _require_editable(job)
            if is_edited(job):
                raise NotAllowed(f"job {job_id} is being edited already; where no editor is open: lq resume {job_id}")
            if job.status is not Status.HELD:
                require_legal(job_id, job.status, Status.HELD)
            because = f"{BEING_EDITED}; where no editor is open any more: lq resume {job_id}"
            held = {"status": Status.HELD, "reason": Reason.STOPPED_BY_USER, "detail": because, "not_before": None}
            change(db, job_id, held)
            return job

    def abandon(self, was: Job) -> Job:
        """Let an edited job be as it was; one that somebody let go on or cancelled meanwhile stays so.

        Args:
            was: the job before the edit.
        """
        with self._database.writing() as db:
            if is_edited(read_job(db, was.id)):
                if was.status is Status.HELD:
                    change(db, was.id, {"reason": was.reason, "detail": was.detail})
                else:
                    requeue(db, was.id)
            return read_job(db, was.id)

    def apply(
        self,
        job_id: int,
        *,
        name: str,
        iters: int,
        priority: int | None,
        group: str | None,
        spec_json: str,
        stage: Stage | None,
        after: Sequence[tuple[int, bool]],
        adapter_path: str | None,
        prepare: Callable[[int], Path],
        now: float,
    ) -> Job:
        """Replace what a job asks for; afterwards all of it is new, with its folder, or all is as it was.

        Args:
            job_id: held for this edit.
            name: as the user reads it.
            iters: iterations asked for.
            priority: None leaves it, and its place in the line, as they are.
            group: the group it is in.
            spec_json: the JobSpec.
            stage: appended to the run plan, where the settings asked for are known not to fit.
            after: ids of the jobs that must have ended first, and whether any end of them will do.
            adapter_path: where it publishes; no other live job may.
            prepare: gives the filled folder its name and returns it; called inside the transaction.
            now: unix seconds.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: it is no longer held for this edit, or another live job publishes there.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if not is_edited(job) or job.attempts:
                raise NotAllowed(f"job {job_id} is {job.status}: it was let go on while it was edited")
            require_free_paths(db, [adapter_path] if adapter_path is not None else [], besides=job_id)
            row: dict[str, Any] = {"name": name, "iters": iters, "group_name": group, "spec_json": spec_json}
            if priority is not None:
                row |= {"priority": priority, "place": None}
            change(db, job_id, row | {"job_dir": str(prepare(job_id))})
            db.execute(delete(stages).where(stages.c.job_id == job_id))
            if stage is not None:
                append_stage(db, job_id, stage, now)
            db.execute(delete(dependencies).where(dependencies.c.job_id == job_id))
            for other, any_end in after:
                db.execute(insert(dependencies).values(job_id=job_id, on_job_id=other, any_end=any_end))
            return read_job(db, job_id)


def is_edited(job: Job) -> bool:
    """Say whether a job is held for an edit."""
    return job.status is Status.HELD and (job.detail or "").startswith(BEING_EDITED)


def _require_editable(job: Job) -> None:
    anew = f"submit it anew: lq submit {job.job_dir}/config.yaml --set KEY=VALUE"
    if job.status is Status.RUNNING:
        raise NotAllowed(f"job {job.id} is running, so its settings stay; lq cancel {job.id}, and {anew}")
    if job.status in ENDED or job.attempts:
        state = f"ended ({job.status})" if job.status in ENDED else "begun"
        raise NotAllowed(f"job {job.id} has {state}, so its settings stay; {anew}")
