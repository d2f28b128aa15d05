"""Jobs: submitted, listed, and what users change about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, case, func, insert, or_, select, update

from jobs.model.errors import NotAllowed
from jobs.model.job import Job, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.run_plan import Stage
from jobs.model.states import ENDED, LIVE, Status, require_legal
from orchestrator.store.database import Records
from orchestrator.store.job_queries import QUEUED, change, no_such_job, read_job, require_free_paths, select_jobs
from orchestrator.store.outbox import insert_messages
from orchestrator.store.rows import to_job
from orchestrator.store.run_plans import append_stage
from orchestrator.store.schema import dependencies, jobs

if TYPE_CHECKING:
    from jobs.policies.decision import StopRequest


AT_WORKER_START = "at_worker_start"
"""`resumes` of a job that was paused only because its worker went home."""


_CANCELLED: dict[str, Any] = {
    "status": Status.CANCELLED,
    "reason": Reason.STOPPED_BY_USER,
    "detail": "cancelled by the user",
    "not_before": None,
    "resumes": None,
}


_STRENGTH: dict[str | None, int] = {None: 0, "worker_stop": 1, "pause": 2, "cancel": 3}


_STATUS_ORDER = [
    Status.RUNNING,
    Status.QUEUED,
    Status.WAITING,
    Status.PAUSED,
    Status.HELD,
]


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
        dropped_sha256: str | None = None,
        announce: Callable[[Job], Sequence[NewMessage]] = lambda _: (),
    ) -> Job:
        """Add a queued job. Either the job and its folder are there afterwards, or no job is.

        Args:
            name: as the user reads it.
            priority: higher runs first.
            iters: iterations asked for.
            spec_json: the immutable JobSpec.
            prepare: makes the folder for an id and returns its absolute path; called inside the transaction, so its
                exception undoes the job. What it left on the disk is its own to remove.
            now: unix seconds.
            stage: appended to the run plan at once, where the settings asked for are known not to fit.
            group: the group it joins.
            after: ids of the jobs that must have ended first, and whether any end of them will do.
            dropped_sha256: of the file in the drop folder that the job comes from, if it does.
            announce: returns the messages that the new job causes.
        """
        with self._database.writing() as db:
            row = {"name": name, "priority": priority, "iters": iters, "spec_json": spec_json, "submitted_at": now}
            row |= {"group_name": group, "dropped_sha256": dropped_sha256}
            new = insert(jobs).values(**row, status=Status.QUEUED, job_dir="").returning(jobs.c.id)
            job_id: int = db.execute(new).scalar_one()
            db.execute(update(jobs).where(jobs.c.id == job_id).values(job_dir=str(prepare(job_id))))
            if stage is not None:
                append_stage(db, job_id, stage, now)
            for other, any_end in after:
                db.execute(insert(dependencies).values(job_id=job_id, on_job_id=other, any_end=any_end))
            job = read_job(db, job_id)
            insert_messages(db, announce(job), now)
            return job

    def require_free_paths(self, adapter_paths: Sequence[str], *, besides: int | None = None) -> None:
        """Look whether jobs may publish there.

        Args:
            adapter_paths: the folders.
            besides: the job they are for, where it is live already.

        Raises:
            NotAllowed: another live job does.
        """
        with self._database.reading() as db:
            require_free_paths(db, adapter_paths, besides=besides)

    def get(self, job_id: int) -> Job:
        """Return a job.

        Raises:
            NoSuchJob: no job has this id.
        """
        with self._database.reading() as db:
            return read_job(db, job_id)

    def overview(self, *, all_jobs: bool = False, ended: int = 20) -> list[Job]:
        """Return jobs in the order of a status: running, those to come as they would run, then ended ones by id.

        Args:
            all_jobs: every job there is.
            ended: else, how many of those that ended last, beside every live one.
        """
        # by its time and not its status: else SQLite sorts all that ever ended
        last = select(jobs.c.id).where(jobs.c.ended_at.is_not(None))
        last = last.order_by(jobs.c.ended_at.desc(), jobs.c.id.desc())
        rank = case({status: rank for rank, status in enumerate(_STATUS_ORDER)}, value=jobs.c.status, else_=99)
        alive = rank < 99
        query = select_jobs().order_by(
            rank,
            case((alive, func.coalesce(jobs.c.not_before, 0.0))),
            case((alive, -jobs.c.priority)),
            case((alive, func.coalesce(jobs.c.place, jobs.c.id))),
            jobs.c.id,
        )
        if not all_jobs:
            query = query.where(or_(jobs.c.status.in_(LIVE), jobs.c.id.in_(last.limit(ended).scalar_subquery())))
        with self._database.reading() as db:
            return [to_job(row) for row in db.execute(query).mappings()]

    def spec_json(self, job_id: int) -> str:
        """Return what was submitted.

        Raises:
            NoSuchJob: no job has this id.
        """
        with self._database.reading() as db:
            found: str | None = db.execute(select(jobs.c.spec_json).where(jobs.c.id == job_id)).scalar()
        if found is None:
            raise no_such_job(job_id)
        return found

    def running(self) -> list[Job]:
        """Return the running jobs, by id."""
        with self._database.reading() as db:
            query = select_jobs().where(jobs.c.status == Status.RUNNING).order_by(jobs.c.id)
            return [to_job(row) for row in db.execute(query).mappings()]

    def between(self, first: int, last: int) -> list[Job]:
        """Return the jobs whose ids lie between these, both included, by id."""
        query = select_jobs().where(jobs.c.id.between(first, last)).order_by(jobs.c.id)
        with self._database.reading() as db:
            return [to_job(row) for row in db.execute(query).mappings()]

    def named(self, name: str) -> list[Job]:
        """Return the jobs of this name by id; none where nobody is called so."""
        query = select_jobs().where(jobs.c.name == name).order_by(jobs.c.id)
        with self._database.reading() as db:
            return [to_job(row) for row in db.execute(query).mappings()]

    def names(self) -> list[str]:
        """Return every name that a job has, each once."""
        with self._database.reading() as db:
            return list(db.execute(select(jobs.c.name).distinct().order_by(jobs.c.name)).scalars())

    def ids_called(self, name: str) -> list[int]:
        """Return the ids of every job of the newest group of this name, else of the newest job of this name."""
        with self._database.reading() as db:
            group = db.execute(select(jobs.c.id).where(jobs.c.group_name == name).order_by(jobs.c.id)).scalars().all()
            newest = select(jobs.c.id).where(jobs.c.name == name).order_by(jobs.c.id.desc()).limit(1)
            return list(group) or list(db.execute(newest).scalars())

    def from_dropped_file(self, sha256: str) -> list[Job]:
        """Return the jobs that came from a dropped file of this content, by id."""
        query = select_jobs().where(jobs.c.dropped_sha256 == sha256).order_by(jobs.c.id)
        with self._database.reading() as db:
            return [to_job(row) for row in db.execute(query).mappings()]

    def request_stop(self, job_id: int, stop_request: StopRequest, now: float) -> Job:
        """Ask a running job for something; its worker acts on it. A stronger wish stays: cancel, pause, worker_stop.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: the job does not run.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status is not Status.RUNNING:
                raise NotAllowed(f"job {job_id} is {job.status}, not running; see: lq show {job_id}")
            if _STRENGTH[stop_request] > _STRENGTH[job.stop_request]:
                change(db, job_id, {"stop_request": stop_request})
            return read_job(db, job_id)

    def cancel(self, job_id: int, now: float) -> Job:
        """Cancel a job: one that runs is asked to stop, any other live one is cancelled at once.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: the job has ended.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            require_legal(job_id, job.status, Status.CANCELLED)
            running = job.status is Status.RUNNING
            change(db, job_id, {"stop_request": "cancel"} if running else _CANCELLED | {"ended_at": now})
            return read_job(db, job_id)

    def retry(self, job_id: int, now: float) -> Job:
        """Queue a failed or cancelled job again; its deaths are counted anew.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: the job neither failed nor was cancelled, was cleaned, or another live job publishes to its
                adapter_path.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status not in (Status.FAILED, Status.CANCELLED):
                raise NotAllowed(f"job {job_id} is {job.status}; only failed and cancelled jobs can be retried")
            if job.cleaned_at is not None:
                raise NotAllowed(
                    f"job {job_id} was cleaned, and its checkpoints are gone; "
                    f"begin it anew: lq submit {job.job_dir}/config.yaml"
                )
            require_legal(job_id, job.status, Status.QUEUED)
            path = _adapter_path(db, job_id)
            require_free_paths(db, [path] if path is not None else [])
            change(db, job_id, QUEUED | {"crashes_from": job.attempts})
            return read_job(db, job_id)

    def mark_cleaned(self, job_id: int, now: float) -> None:
        """Record that the files of a job that has ended go; from now on it cannot be retried.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: it has not ended, or no longer.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status not in ENDED:
                raise NotAllowed(f"job {job_id} is {job.status}; only jobs that have ended can be cleaned")
            change(db, job_id, {"cleaned_at": now})

    def hold(self, job_id: int, because: str, now: float) -> Job:
        """Keep a job that waits for its turn from running until it is released; a held one stays as it is.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: it runs, is paused or has ended.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status is Status.HELD:
                return job  # from another terminal, a moment ago
            require_legal(job_id, job.status, Status.HELD)
            held = {"status": Status.HELD, "reason": Reason.STOPPED_BY_USER, "detail": because, "not_before": None}
            change(db, job_id, held)
            return read_job(db, job_id)

    def release(self, job_id: int) -> Job:
        """Queue a held or paused job, or a waiting one before its time; one that has its turn already keeps it.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: it has ended.
        """
        with self._database.writing() as db:
            job = read_job(db, job_id)
            if job.status in (Status.QUEUED, Status.RUNNING):
                return job  # let go on from another terminal, a moment ago
            if job.status not in (Status.HELD, Status.PAUSED, Status.WAITING):
                raise NotAllowed(f"job {job_id} is {job.status}; only held, paused and waiting jobs can go on")
            change(db, job_id, QUEUED)
            return read_job(db, job_id)

    def postpone(self, job_id: int, not_before: float) -> None:
        """Let a waiting job wait longer; nothing happens where it no longer waits."""
        waiting = and_(jobs.c.id == job_id, jobs.c.status == Status.WAITING)
        with self._database.writing() as db:
            db.execute(update(jobs).where(waiting).values(not_before=not_before))

    def paused_by_worker(self) -> set[int]:
        """Return the jobs that go on by themselves when a worker starts."""
        mine = and_(jobs.c.status == Status.PAUSED, jobs.c.resumes == AT_WORKER_START)
        with self._database.reading() as db:
            return set(db.execute(select(jobs.c.id).where(mine)).scalars())

    def release_paused_by_worker(self, now: float) -> list[Job]:
        """Queue the jobs that were paused only because their worker went home."""
        mine = and_(jobs.c.status == Status.PAUSED, jobs.c.resumes == AT_WORKER_START)
        with self._database.writing() as db:
            released = db.execute(update(jobs).where(mine).values(**QUEUED).returning(jobs.c.id)).scalars().all()
            return [read_job(db, job_id) for job_id in sorted(released)]


def _adapter_path(db: Connection, job_id: int) -> str | None:
    found: str | None = json.loads(db.execute(select(jobs.c.spec_json).where(jobs.c.id == job_id)).scalar_one()).get(
        "adapter_path"
    )
    return found
