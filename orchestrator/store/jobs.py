"""Jobs: submitted, listed, and changed at the request of a user."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, and_, case, func, insert, or_, select, update

from jobs.model.errors import NotAllowed
from jobs.model.job import Job, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.run_plan import Stage
from jobs.model.states import ENDED, LIVE, RETRIABLE, Status, require_legal
from orchestrator.store.database import Records
from orchestrator.store.dependencies import insert_dependencies
from orchestrator.store.job_queries import (
    QUEUED,
    change,
    held,
    read_column,
    read_job,
    require_free_paths,
    select_jobs,
)
from orchestrator.store.outbox import insert_messages
from orchestrator.store.rows import to_job
from orchestrator.store.run_plans import append_stage
from orchestrator.store.schema import jobs

if TYPE_CHECKING:
    from jobs.policies.decision import StopRequest

AT_WORKER_START = "at_worker_start"
"""The value of `resumes` for a job that was paused only because its worker stopped."""

_CANCELLED: dict[str, Any] = {
    "status": Status.CANCELLED,
    "reason": Reason.STOPPED_BY_USER,
    "detail": "cancelled by the user",
    "not_before": None,
    "resumes": None,
}

_STRENGTH: dict[str | None, int] = {None: 0, "worker_stop": 1, "pause": 2, "cancel": 3}

_STATUS_ORDER = [Status.RUNNING, Status.QUEUED, Status.WAITING, Status.PAUSED, Status.HELD]


class JobRecords(Records):
    """Jobs."""

    def submit(
        self,
        *,
        name: str,
        priority: int,
        iters: int,
        spec_json: str,
        prepare: Callable[[int], Path],
        now: float,
        stage: Stage | None = None,
        group: str | None = None,
        after: Sequence[tuple[int, bool]] = (),
        inbox_sha256: str | None = None,
        announce: Callable[[Job], Sequence[NewMessage]] = lambda _: (),
    ) -> Job:
        """Add a queued job. Either the job and its folder exist afterwards, or neither does.

        Args:
            prepare: creates the folder of a job id and returns its absolute path. The store calls it inside the
                transaction, so an exception undoes the job; files that it left are its own to remove.
            stage: is appended to the run plan, because the requested settings are known not to fit; None if they may.
            after: ids of the jobs that must end first; True if they may end in any state.
            inbox_sha256: of the file in the inbox that the job comes from.
            announce: returns the messages that the new job causes.
        """
        with self._database.writing() as db:
            row = {"name": name, "priority": priority, "iters": iters, "spec_json": spec_json, "submitted_at": now}
            row |= {"group_name": group, "inbox_sha256": inbox_sha256}
            new = insert(jobs).values(**row, status=Status.QUEUED, job_dir="").returning(jobs.c.id)
            job_id: int = db.execute(new).scalar_one()
            change(db, job_id, {"job_dir": str(prepare(job_id))})
            if stage is not None:
                append_stage(db, job_id, stage, now)
            insert_dependencies(db, job_id, after)
            job = read_job(db, job_id)
            insert_messages(db, announce(job), now)
            return job

    def require_free_paths(self, adapter_paths: Sequence[str], *, besides: int | None = None) -> None:
        """Raise NotAllowed if a live job but `besides` publishes to one of these folders."""
        with self._database.reading() as db:
            require_free_paths(db, adapter_paths, besides=besides)

    def get(self, job_id: int) -> Job:
        """Return a job."""
        with self._database.reading() as db:
            return read_job(db, job_id)

    def overview(self, *, all_jobs: bool = False, ended: int = 20) -> list[Job]:
        """Return jobs in the order of `lq status`: running ones, the rest of the queue in its order, ended ones by id.

        Args:
            all_jobs: return every job.
            ended: otherwise return every live job, and this many of those that ended last and were not dismissed.
        """
        # SQLite finds these by their time of end; by their status it would sort all that ever ended
        last = select(jobs.c.id).where(jobs.c.ended_at.is_not(None), jobs.c.dismissed_at.is_(None))
        last = last.order_by(jobs.c.ended_at.desc(), jobs.c.id.desc())
        rank = case({status: rank for rank, status in enumerate(_STATUS_ORDER)}, value=jobs.c.status, else_=99)
        live = rank < 99
        query = select_jobs().order_by(
            rank,
            case((live, func.coalesce(jobs.c.not_before, 0.0))),
            case((live, -jobs.c.priority)),
            case((live, func.coalesce(jobs.c.queue_position, jobs.c.id))),
            jobs.c.id,
        )
        if not all_jobs:
            query = query.where(or_(jobs.c.status.in_(LIVE), jobs.c.id.in_(last.limit(ended).scalar_subquery())))
        return self._read(query)

    def _read(self, query: Select[*tuple[Any, ...]]) -> list[Job]:
        return [to_job(row) for row in self._rows(query)]

    def _where(self, condition: ColumnElement[bool]) -> list[Job]:
        return self._read(select_jobs(condition).order_by(jobs.c.id))

    def spec_json(self, job_id: int) -> str:
        """Return the JobSpec of a job as JSON."""
        with self._database.reading() as db:
            return str(read_column(db, job_id, jobs.c.spec_json))

    def running(self) -> list[Job]:
        """Return the running jobs by id."""
        return self._where(jobs.c.status == Status.RUNNING)

    def between(self, first: int, last: int) -> list[Job]:
        """Return the jobs with ids from `first` to `last`, both included."""
        return self._where(jobs.c.id.between(first, last))

    def named(self, name: str) -> list[Job]:
        """Return the jobs with this name by id."""
        return self._where(jobs.c.name == name)

    def names(self) -> list[str]:
        """Return the names of all jobs, each once."""
        return self._column(select(jobs.c.name).distinct().order_by(jobs.c.name))

    def ids_called(self, name: str) -> list[int]:
        """Return the ids of the jobs in the group with this name; if there is none, of the newest job with it."""
        group = select(jobs.c.id).where(jobs.c.group_name == name).order_by(jobs.c.id)
        newest = select(jobs.c.id).where(jobs.c.name == name).order_by(jobs.c.id.desc()).limit(1)
        return self._column(group) or self._column(newest)

    def from_inbox_file(self, sha256: str) -> list[Job]:
        """Return the jobs that come from an inbox file with this content, by id."""
        return self._where(jobs.c.inbox_sha256 == sha256)

    def request_stop(self, job_id: int, stop_request: StopRequest, now: float) -> Job:
        """Ask the worker of a running job to stop it. A stronger request replaces a weaker one.

        The order from strong to weak is cancel, pause, worker_stop.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status is not Status.RUNNING:
                raise NotAllowed(f"job {job_id} is {job.status}, not running; see: lq show {job_id}")
            if _STRENGTH[stop_request] > _STRENGTH[job.stop_request]:
                change(db, job_id, {"stop_request": stop_request})
            return read_job(db, job_id)

    def cancel(self, job_id: int, now: float) -> Job:
        """Cancel a job. If it is running, ask its worker to stop it."""
        with self._database.writing() as db:
            job = read_job(db, job_id)
            require_legal(job_id, job.status, Status.CANCELLED)
            running = job.status is Status.RUNNING
            change(db, job_id, {"stop_request": "cancel"} if running else _CANCELLED | {"ended_at": now})
            return read_job(db, job_id)

    def retry(self, job_id: int, now: float) -> Job:
        """Queue a failed or cancelled job again. Its earlier crashes no longer count."""
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status not in RETRIABLE:
                raise NotAllowed(f"job {job_id} is {job.status}; only failed and cancelled jobs can be retried")
            if job.cleaned_at is not None:
                raise NotAllowed(
                    f"job {job_id}: lq clean deleted its checkpoints; "
                    f"start it from the beginning: lq submit {job.job_dir}/config.yaml"
                )
            require_legal(job_id, job.status, Status.QUEUED)
            path = json.loads(read_column(db, job_id, jobs.c.spec_json)).get("adapter_path")
            require_free_paths(db, [path] if path is not None else [])
            change(db, job_id, QUEUED | {"crashes_from": job.attempts, "dismissed_at": None})
            return read_job(db, job_id)

    def dismiss(self, job_id: int, now: float) -> Job:
        """Record that the user has seen how a job failed. A dismissed job does not change."""
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status not in ENDED or job.status is Status.SUCCEEDED:
                raise NotAllowed(f"job {job_id} is {job.status}; only jobs that did not succeed can be dismissed")
            if job.dismissed_at is None:
                change(db, job_id, {"dismissed_at": now})
            return read_job(db, job_id)

    def mark_cleaned(self, job_id: int, now: float) -> None:
        """Record that `lq clean` deletes the files of an ended job, which then cannot be retried."""
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status not in ENDED:
                raise NotAllowed(f"job {job_id} is {job.status}; only jobs that have ended can be cleaned")
            change(db, job_id, {"cleaned_at": now})

    def hold(self, job_id: int, because: str, now: float) -> Job:
        """Hold a queued or waiting job until it is released. A held job does not change."""
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status is Status.HELD:
                return job  # another process held it a moment ago
            require_legal(job_id, job.status, Status.HELD)
            change(db, job_id, held(because))
            return read_job(db, job_id)

    def release(self, job_id: int) -> Job:
        """Queue a held, paused or waiting job. A queued or running job does not change."""
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status in (Status.QUEUED, Status.RUNNING):
                return job  # another process released it a moment ago
            if job.status not in (Status.HELD, Status.PAUSED, Status.WAITING):
                raise NotAllowed(f"job {job_id} is {job.status}; only held, paused and waiting jobs can resume")
            change(db, job_id, QUEUED)
            return read_job(db, job_id)

    def postpone(self, job_id: int, not_before: float) -> None:
        """Set the earliest start of a waiting job, in unix seconds. A job in another state does not change."""
        waiting = and_(jobs.c.id == job_id, jobs.c.status == Status.WAITING)
        with self._database.writing() as db:
            db.execute(update(jobs).where(waiting).values(not_before=not_before))

    def paused_by_worker(self) -> set[int]:
        """Return the ids of the jobs that resume when a worker starts."""
        return set(self._column(select(jobs.c.id).where(_PAUSED_BY_WORKER)))

    def release_paused_by_worker(self, now: float) -> list[Job]:
        """Queue the jobs that were paused only because their worker stopped."""
        queue = update(jobs).where(_PAUSED_BY_WORKER).values(**QUEUED).returning(jobs.c.id)
        with self._database.writing() as db:
            return [read_job(db, job_id) for job_id in sorted(db.execute(queue).scalars().all())]


_PAUSED_BY_WORKER = and_(jobs.c.status == Status.PAUSED, jobs.c.resumes == AT_WORKER_START)
