"""Edits of jobs that have not started: hold the job during the edit, then replace everything about it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from jobs.model.errors import NotAllowed
from jobs.model.job import Incident, Job
from jobs.model.run_plan import Stage
from jobs.model.states import ENDED, Status, require_legal
from orchestrator.store.database import Records
from orchestrator.store.dependencies import replace_dependencies
from orchestrator.store.incidents import insert_incidents
from orchestrator.store.job_queries import QUEUED, change, held, read_job, require_free_paths
from orchestrator.store.metrics import supersede_after
from orchestrator.store.run_plans import append_stage
from orchestrator.store.schema import stages

BEING_EDITED = "being edited"
"""The detail of a job that is held during an edit begins with this."""


class JobEdits(Records):
    """Edits of jobs."""

    def begin(self, job_id: int) -> Job:
        """Hold a job that has never run; return it as it was before."""
        with self._database.writing() as db:
            job = read_job(db, job_id)
            _require_editable(job)
            if is_edited(job):
                raise NotAllowed(f"job {job_id} is already being edited; if no editor is open: lq resume {job_id}")
            if job.status is not Status.HELD:
                require_legal(job_id, job.status, Status.HELD)
            change(db, job_id, held(f"{BEING_EDITED}; if no editor is open: lq resume {job_id}"))
            return job

    def abandon(self, before: Job) -> Job:
        """Undo the hold of an edit; `before` is the job that `begin` returned.

        A job that was released or cancelled during the edit stays in its new state.
        """
        with self._database.writing() as db:
            if is_edited(read_job(db, before.id)):
                as_before = {"reason": before.reason, "detail": before.detail}
                change(db, before.id, as_before if before.status is Status.HELD else QUEUED)
            return read_job(db, before.id)

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
        """Replace everything that a job asks for, with its folder. If this fails, nothing changes.

        Args:
            priority: None to keep it, and the job's position in the queue.
            stage: is appended to the run plan, because the requested settings are known not to fit; None if they may.
            after: ids of the jobs that must end first; True if they may end in any state.
            prepare: renames the filled folder and returns its path. The store calls it inside the transaction.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if not is_edited(job) or job.attempts:
                raise NotAllowed(f"job {job_id} is {job.status}: it was released during the edit")
            require_free_paths(db, [adapter_path] if adapter_path is not None else [], besides=job_id)
            row: dict[str, Any] = {"name": name, "iters": iters, "group_name": group, "spec_json": spec_json}
            if priority is not None:
                row |= {"priority": priority, "queue_position": None}
            change(db, job_id, row | {"job_dir": str(prepare(job_id))})
            db.execute(delete(stages).where(stages.c.job_id == job_id))
            if stage is not None:
                append_stage(db, job_id, stage, now)
            replace_dependencies(db, job_id, after)
            return read_job(db, job_id)

    def extend(
        self,
        before: Job,
        *,
        iters: int,
        spec_json: str,
        adapter_path: str | None,
        back_to: tuple[Stage, int] | None,
        incident: Incident,
        prepare: Callable[[], None],
    ) -> Job:
        """Queue a job that has succeeded again, with more iterations; `prepare` writes them into its folder.

        A stage in `back_to` begins at the iteration given with it, before the end of the job.

        Raises:
            NotAllowed: it changed meanwhile, lq clean deleted its files, or a live job publishes to its adapter_path.
        """
        with self._database.writing() as db:
            job = read_job(db, before.id)
            if (job.status, job.iters, job.cleaned_at) != (Status.SUCCEEDED, before.iters, None):
                state = "lq clean deleted its checkpoints" if job.cleaned_at is not None else f"it is {job.status}"
                raise NotAllowed(f"job {job.id} cannot be extended: {state}")
            require_legal(job.id, job.status, Status.QUEUED)
            require_free_paths(db, [adapter_path] if adapter_path is not None else [])
            row = QUEUED | {"crashes_from": job.attempts, "iters": iters, "spec_json": spec_json}
            change(db, job.id, row)
            if back_to is not None:
                append_stage(db, job.id, back_to[0], incident.time)
                supersede_after(db, job.id, back_to[1])
            insert_incidents(db, [incident])
            prepare()
            return read_job(db, job.id)


def is_edited(job: Job) -> bool:
    """Return whether a job is held for an edit."""
    return job.status is Status.HELD and (job.detail or "").startswith(BEING_EDITED)


def _require_editable(job: Job) -> None:
    submit = f"submit a new job: lq submit {job.job_dir}/config.yaml --set KEY=VALUE"
    if job.status is Status.RUNNING:
        raise NotAllowed(f"job {job.id} is running and cannot be edited; lq cancel {job.id}, and {submit}")
    if job.status in ENDED or job.attempts:
        state = f"has ended ({job.status})" if job.status in ENDED else "has run"
        raise NotAllowed(f"job {job.id} {state} and cannot be edited; {submit}")
