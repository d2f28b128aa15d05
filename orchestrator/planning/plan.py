"""The plan of the queue: whether each job fits into memory, how long it takes, when it runs. Nothing is trained.

The queue comes first; job files that are not queued yet stand behind it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jobs.estimates.disk import SpaceNeed
from jobs.estimates.estimate import Estimate, MemoryEstimate, TimeEstimate
from jobs.estimates.memory import verdict
from jobs.model.errors import LqError
from jobs.model.job import Fit, Job
from jobs.model.memory_limit import limit_bytes, usable_bytes
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies import oom
from jobs.scheduling.timeline import JobTimes, timeline
from orchestrator.core.app import App
from orchestrator.estimation import disk
from orchestrator.estimation.estimator import Estimator
from orchestrator.estimation.history import shown_by
from orchestrator.estimation.memory import recommended_memory, smaller_stage
from orchestrator.planning.queue_forecast import pending_job
from orchestrator.submission.data_check import check_data
from orchestrator.submission.provenance import valid_rows

if TYPE_CHECKING:
    from configs.load import LoadedJob
    from orchestrator.store.store import Store

WORTH_IT = 0.99  # a user's change that leaves more than this share of the memory is not shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitStep:
    """A change that saves memory."""

    by: Literal["lq", "user"]  # the worker makes it after an out-of-memory, or only the user may
    text: str  # the change
    memory: MemoryEstimate  # with this step and all before it
    verdict: str
    first: bool  # the first that fits


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobPlan:
    """One job of the plan."""

    id: int | None  # None: a file that is not queued
    name: str
    source: Path | None  # of a file that is not queued
    status: str  # of the job; `file` if it is not queued
    memory: MemoryEstimate | None  # None if the model is not on this machine
    limit: int  # bytes: `lq.memory.limit`
    verdict: str | None  # fits, tight, does not fit; None if unknown
    time: TimeEstimate | None  # None if unknown
    times: JobTimes
    deadline: float | None  # unix seconds
    steps: tuple[FitStep, ...]  # if it is tight or does not fit
    disk: SpaceNeed | None  # of a file; the need of a queued job is in the plan's total
    notes: tuple[str, ...]  # one line each, for the user

    @property
    def usable(self) -> int:
        """Bytes it may take before the memory guard ends the attempt."""
        return usable_bytes(self.limit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueuePlan:
    """The plan of the queue."""

    now: float  # unix seconds
    jobs: tuple[JobPlan, ...]  # in the order of the queue
    recommended: int  # bytes that the device recommends to take at most
    recommended_by: str  # the source of that number
    disk_free: int  # bytes
    disk_need: int  # bytes that all these jobs may still take
    disk_floor: int  # bytes that must stay free
    queue_paused: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Request:
    """A job before it is planned."""

    key: int  # its id; below 0 for a file
    job: Job | None
    spec: JobSpec
    stage: Stage
    source: Path | None
    held: bool
    valid_rows: int | None  # None if they were not counted
    after: tuple[int, ...]  # keys of the jobs that must end first, as far as the store knows them
    notes: tuple[str, ...]


def plan(app: App, files: Sequence[Path], *, sets: Sequence[str] = (), now: float | None = None) -> QueuePlan:
    """Plan the queue, and the jobs of job files behind it; raise InvalidInput if a file cannot be trained."""
    from configs.load import load_jobs

    now = time.time() if now is None else now
    settings = app.settings()
    loaded = [job for path in files for job in load_jobs(path, sets, defaults=settings.defaults)]
    fresh = [_fresh(app, job, -number) for number, job in enumerate(loaded, start=1)]  # before anything is written
    store = app.store if app.home.store.exists() else None
    requests = [*(_queued(store) if store is not None else []), *fresh]
    return _Planner(app, store, now).plan(requests, slots=settings.slots, floor=settings.disk.floor)


class _Planner:
    def __init__(self, app: App, store: Store | None, now: float) -> None:
        self._app, self._store, self._now = app, store, now
        self._estimator = Estimator(store, app.home.lengths if app.home.path.is_dir() else None)
        self._recommended, self._recommended_by = recommended_memory(store)

    def plan(self, requests: Sequence[_Request], *, slots: int, floor: int) -> QueuePlan:
        estimates = [
            self._estimator.estimate(each.spec, each.stage, job=each.job, validates=each.valid_rows != 0)
            for each in requests
        ]
        pending = [
            pending_job(
                request.job or request.key,
                request.spec.model_dump(mode="json"),
                estimate.time,
                now=self._now,
                after=request.after if request.job is not None else tuple(_predecessors(request, requests)),
                held=request.held,
            )
            for request, estimate in zip(requests, estimates, strict=True)
        ]
        times = timeline(pending, now=self._now, slots=slots)
        jobs = tuple(
            self._planned(request, estimate, when, waiting.deadline)
            for request, estimate, when, waiting in zip(requests, estimates, times, pending, strict=True)
        )
        return QueuePlan(
            now=self._now,
            jobs=jobs,
            recommended=self._recommended,
            recommended_by=self._recommended_by,
            disk_free=disk.free_for(self._app),
            disk_need=sum(job.disk.total for job in jobs if job.disk is not None) + sum(disk.promised(self._app)),
            disk_floor=floor,
            queue_paused=self._store is not None and self._store.queue.state().paused_at is not None,
        )

    def _planned(self, request: _Request, estimate: Estimate, times: JobTimes, deadline: float | None) -> JobPlan:
        spec, job, memory = request.spec, request.job, estimate.memory
        limit = limit_bytes(spec.lq.memory.limit, self._recommended)
        fit = self._estimator.fit(spec, request.stage)
        out_of_memory = fit if fit is not None and not fit.fits else None
        judgement = "does not fit" if out_of_memory else verdict(memory, limit) if memory is not None else None
        file_need = disk.need_of(spec, valid_rows=request.valid_rows or 0) if request.source is not None else None
        return JobPlan(
            id=job.id if job is not None else None,
            name=spec.name,
            source=request.source,
            status=job.status.value if job is not None else "file",
            memory=memory,
            limit=limit,
            verdict=judgement,
            time=estimate.time,
            times=times,
            deadline=deadline,
            steps=tuple(self._steps(request, memory, limit)) if judgement in ("tight", "does not fit") else (),
            disk=file_need,
            notes=(*request.notes, *self._notes(spec, memory, out_of_memory)),
        )

    def _notes(self, spec: JobSpec, memory: MemoryEstimate | None, out_of_memory: Fit | None) -> Iterator[str]:
        if out_of_memory is not None:
            yield f"{shown_by(out_of_memory)} ran out of memory with these settings; lq goes on with smaller ones"
        if memory is None:
            yield "memory: unknown, the model's files are not on this machine or do not tell its shape"
        lengths = self._estimator.formula.lengths(spec)
        if lengths is None:
            yield "rows: not on this machine; their length is taken to be max_seq_length"
        elif lengths.how == "characters":
            yield "rows: their tokens are estimated from characters, no tokenizer.json is on this machine"

    def _steps(self, request: _Request, memory: MemoryEstimate | None, limit: int) -> Iterator[FitStep]:
        """Yield the worker's steps after an out-of-memory, then the user's, up to the first that fits."""
        if memory is None:
            return
        for by, text, spec, stage in _changes(self._estimator, request.spec, request.stage):
            smaller = self._estimator.memory(spec, stage)
            assert smaller is not None
            if by == "user" and smaller.expected > WORTH_IT * memory.expected:
                continue
            memory, judgement = smaller, verdict(smaller, limit)
            yield FitStep(by=by, text=text, memory=smaller, verdict=judgement, first=judgement == "fits")
            if judgement == "fits":
                return


def _changes(
    estimator: Estimator, spec: JobSpec, stage: Stage
) -> Iterator[tuple[Literal["lq", "user"], str, JobSpec, Stage]]:
    """Yield the changes that save memory, each with the settings after it and all before it."""
    cuts = estimator.formula.cuts(spec)
    truncates, lengths = spec.lq.memory.allow_truncation, tuple(length for length, _ in cuts)
    last = stage
    for last, text in oom.ladder(stage, allow_truncation=truncates, lengths=lengths):
        yield "lq", text, spec, last
    shape = estimator.formula.shape(spec.model)
    layers = shape.layers if shape is not None else spec.num_layers
    rank = spec.lora_parameters.rank if spec.fine_tune_type != "full" else None
    num_layers = layers if spec.num_layers <= 0 else min(layers, spec.num_layers)
    for change in oom.user_changes(last, rank=rank, num_layers=num_layers, cuts=cuts):
        lora = spec.lora_parameters.model_copy(update={"rank": change.rank or spec.lora_parameters.rank})
        smaller = spec.model_copy(update={"lora_parameters": lora, "num_layers": change.num_layers})
        yield "user", change.text, smaller, dataclasses.replace(last, max_seq_length=change.max_seq_length)


# --- the jobs to plan ---


def _queued(store: Store) -> Iterator[_Request]:
    """Yield the jobs that have not ended, in the order of the queue."""
    by_worker, awaited = store.jobs.paused_by_worker(), store.dependencies.awaited()
    for job in sorted(store.jobs.overview(ended=0), key=lambda job: (job.status is not Status.RUNNING, job.turn)):
        try:
            spec = store.spec(job.id)
        except (LqError, ValueError):
            continue  # another version of lq wrote the spec
        yield _Request(
            key=job.id,
            job=job,
            spec=spec,
            stage=store.run_plans.get(job.id, spec).stages[-1],
            source=None,
            held=job.status is Status.HELD or (job.status is Status.PAUSED and job.id not in by_worker),
            valid_rows=valid_rows(job),
            after=awaited.get(job.id, ()),
            notes=(),
        )


def _fresh(app: App, loaded: LoadedJob, key: int) -> _Request:
    """Check a job of a file as submit does."""
    facts = check_data(app, loaded.spec, (loaded.source, loaded.data_line))
    valid = facts.files.get("valid.jsonl")
    smaller = smaller_stage(app.store, loaded.spec) if app.home.store.exists() else None
    return _Request(
        key=key,
        job=None,
        spec=loaded.spec,
        stage=smaller if smaller is not None else RunPlan.requested(loaded.spec).stages[0],
        source=loaded.source,
        held=False,
        valid_rows=valid.rows if valid is not None else 0 if facts.source == "folder" else None,
        after=(),
        notes=(*facts.notes, *((smaller.because,) if smaller is not None else ())),
    )


def _predecessors(request: _Request, requests: Sequence[_Request]) -> Iterator[int]:
    """Yield the jobs a file's job waits for: those of that id or group, else the last of that name before it."""
    others = [other for other in requests if other.key != request.key]
    for wanted in (*request.spec.lq.after, *request.spec.lq.after_any):
        of_group = [other.key for other in others if other.spec.lq.group == wanted]
        named = [other.key for other in others if wanted in (other.key, other.spec.name)]
        yield from of_group or named[-1:]
