"""The plan of a night: whether each job fits into memory, how long it takes, when it runs. Nothing is trained.

The queue as it stands comes first, job files that are not queued yet stand behind it.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.estimates import memory as memory_need
from jobs.estimates import run_time
from jobs.estimates.disk import Need
from jobs.estimates.fit_advice import Settings, changes
from jobs.estimates.memory import Estimate
from jobs.estimates.run_time import RunTime
from jobs.model.errors import LqError
from jobs.model.job import Job
from jobs.model.memory_limit import limit_bytes, usable_bytes
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.scheduling.constraints import constraints_of
from jobs.scheduling.timeline import Ahead, Placed, timeline
from orchestrator.core.app import App
from orchestrator.estimation import disk as budget
from orchestrator.estimation.estimator import Estimator
from orchestrator.estimation.history import RunHistory, showed_by
from orchestrator.submission.provenance import valid_rows
from workers.system import sensors

if TYPE_CHECKING:
    from configs.load import LoadedJob
    from orchestrator.store.store import Store

MAC_SHARE = 0.75
"""Of a Mac's memory, what Metal recommends to take at most where no earlier job has told it."""

WORTH_IT = 0.99
"""A change that leaves more of what a job takes is not told."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remedy:
    """Something to change so that a job fits."""

    text: str  # the keys to write
    memory: Estimate
    verdict: str
    first: bool  # the first that fits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """One job of the plan."""

    id: int | None  # None: a file that is not queued
    name: str
    source: Path | None  # of a file that is not queued
    status: str  # of the job; `file` where it is not queued
    memory: Estimate | None  # None where the model is not on this machine
    limit: int  # bytes: `lq.memory.limit`
    verdict: str | None  # fits, tight, does not fit; None where nothing is known
    time: RunTime | None  # what is left; None where nothing is known
    placed: Placed
    deadline: float | None  # unix seconds
    remedies: tuple[Remedy, ...]  # where it is tight or does not fit
    disk: Need | None  # of a file; what a queued job may take is in the plan's total
    notes: tuple[str, ...]  # one line each, for the user

    @property
    def room(self) -> int:
        """Bytes it may take before lq ends the attempt to make room."""
        return usable_bytes(self.limit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the night will be."""

    now: float  # unix seconds
    jobs: tuple[Planned, ...]  # in the order in which they are chosen
    recommended: int  # bytes that the device recommends to take at most
    recommended_by: str  # where that is known from
    disk_free: int  # bytes
    disk_need: int  # bytes that all these jobs may still take
    disk_floor: int  # bytes that must stay free
    queue_paused: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """A job before it is planned."""

    key: int  # its id; below 0 for a file
    job: Job | None
    spec: JobSpec
    stage: Stage
    source: Path | None
    asked_at: float  # unix seconds
    held: bool
    valid_rows: int | None  # None where they were not counted
    after: tuple[int, ...]  # keys of jobs that must end first, of those that are known by their ids
    notes: tuple[str, ...]


def plan(app: App, files: Sequence[Path], *, sets: Sequence[str] = (), now: float | None = None) -> Plan:
    """Plan the queue, and job files behind it.

    Args:
        app: the home.
        files: job files; one with a matrix makes several jobs.
        sets: `key=value` each, laid upon every file.
        now: unix seconds; the clock's where None.

    Raises:
        InvalidInput: a file cannot be trained with.
    """
    from configs.load import load_jobs

    now = time.time() if now is None else now
    settings = app.settings()
    loaded = [one for path in files for one in load_jobs(path, sets, defaults=settings.defaults)]
    fresh = [_fresh(app, one, -place, now) for place, one in enumerate(loaded, start=1)]  # before anything is made
    store = app.store if app.home.store.exists() else None
    asked = [*(_queued(store) if store is not None else []), *fresh]
    planner = _Planner(app, store, now)
    return planner.plan(asked, slots=settings.slots, floor=settings.disk.floor)


class _Planner:
    def __init__(self, app: App, store: Store | None, now: float) -> None:
        self._app, self._store, self._now = app, store, now
        self._reckoner = Estimator(app.home.lengths if app.home.path.is_dir() else None)
        self._earlier = RunHistory(store, self._reckoner)
        self._recommended, self._by = recommended_memory(store)

    def plan(self, asked: Sequence[_Asked], *, slots: int, floor: int) -> Plan:
        times = {one.key: self._time(one) for one in asked}
        ahead = [_ahead(one, times[one.key], asked) for one in asked]
        placed = timeline(ahead, now=self._now, slots=slots)
        jobs = tuple(
            self._planned(one, times[one.key], where, coming.deadline)
            for one, where, coming in zip(asked, placed, ahead, strict=True)
        )
        files = sum(one.disk.total for one in jobs if one.disk is not None)
        paused = self._store is not None and self._store.queue.state().paused_at is not None
        return Plan(
            now=self._now,
            jobs=jobs,
            recommended=self._recommended,
            recommended_by=self._by,
            disk_free=budget.free_for(self._app),
            disk_need=files + sum(budget.promised(self._app)),
            disk_floor=floor,
            queue_paused=paused,
        )

    def _time(self, one: _Asked) -> RunTime | None:
        pace = self._earlier.pace(one.spec, one.stage)
        if pace is None:
            return None
        return run_time.left(
            one.spec,
            pace,
            iteration=one.job.iteration if one.job is not None else 0,
            validates=one.valid_rows != 0,
            running=one.job is not None and one.job.status is Status.RUNNING,
        )

    def _planned(self, one: _Asked, left: RunTime | None, placed: Placed, deadline: float | None) -> Planned:
        limit = limit_bytes(one.spec.lq.memory.limit, self._recommended)
        memory = self._memory(one.spec, one.stage)
        verdict = self._verdict(one, memory, limit)
        notes = [*one.notes, *self._notes(one, memory)]
        need = budget.need_of(one.spec, valid_rows=one.valid_rows or 0) if one.source is not None else None
        return Planned(
            id=one.job.id if one.job is not None else None,
            name=one.spec.name,
            source=one.source,
            status=one.job.status.value if one.job is not None else "file",
            memory=memory,
            limit=limit,
            verdict=verdict,
            time=left,
            placed=placed,
            deadline=deadline,
            remedies=self._remedies(one, limit) if verdict in ("tight", "does not fit") else (),
            disk=need,
            notes=tuple(notes),
        )

    # --- memory ---

    def _memory(self, spec: JobSpec, stage: Stage) -> Estimate | None:
        parts = self._reckoner.parts(spec, stage)
        if parts is None:
            return None
        same, others = self._earlier.memory(spec, stage)
        return memory_need.estimate(parts, same=same, others=others)

    def _verdict(self, one: _Asked, memory: Estimate | None, limit: int) -> str | None:
        fit = self._earlier.fit(one.spec, one.stage)
        if fit is not None and not fit.fits:
            return "does not fit"
        return memory_need.verdict(memory, limit) if memory is not None else None

    def _notes(self, one: _Asked, memory: Estimate | None) -> list[str]:
        notes = []
        fit = self._earlier.fit(one.spec, one.stage)
        if fit is not None and not fit.fits:
            notes.append(f"{showed_by(fit)} ran out of memory with these settings; lq goes on with a smaller batch")
        if memory is None:
            notes.append("memory: not known, the model's files are not on this machine or do not tell its shape")
        lengths = self._reckoner.lengths(one.spec)
        if lengths is None:
            notes.append("rows: not on this machine, so taken to be as long as max_seq_length")
        elif lengths.how == "characters":
            notes.append("rows: their tokens are estimated from characters, no tokenizer.json is on this machine")
        return notes

    def _remedies(self, one: _Asked, limit: int) -> tuple[Remedy, ...]:
        """Return what to change, up to the first change that fits."""
        found = []
        asked, least = self._settings(one), self._memory(one.spec, one.stage)
        for change in changes(asked, cuts=self._reckoner.cuts(one.spec)):
            spec, stage = _with(one.spec, one.stage, asked, change.settings)
            memory = self._memory(spec, stage)
            if memory is None or least is None:
                break
            if memory.expected > WORTH_IT * least.expected:
                continue
            verdict = memory_need.verdict(memory, limit)
            found.append(Remedy(text=change.text, memory=memory, verdict=verdict, first=verdict == "fits"))
            if verdict == "fits":
                break
        return tuple(found)

    def _settings(self, one: _Asked) -> Settings:
        shape = self._reckoner.shape(one.spec.model)
        layers = shape.layers if shape is not None else one.spec.num_layers
        return Settings(
            batch_size=one.stage.batch_size,
            grad_accumulation_steps=one.stage.grad_accumulation_steps,
            iters=one.spec.iters,
            grad_checkpoint=one.stage.grad_checkpoint,
            max_seq_length=one.stage.max_seq_length,
            rank=one.spec.lora_parameters.rank if one.spec.fine_tune_type != "full" else None,
            num_layers=layers if one.spec.num_layers <= 0 else min(layers, one.spec.num_layers),
        )


def most_memory(app: App, spec: JobSpec, stage: Stage) -> int | None:
    """Return the upper end of what a configuration is reckoned to take, in bytes; None where that cannot be told.

    Args:
        app: the home.
        spec: what is asked for.
        stage: the settings it would train under.
    """
    reckoner = Estimator(app.home.lengths if app.home.path.is_dir() else None)
    parts = reckoner.parts(spec, stage)
    if parts is None:
        return None
    same, others = RunHistory(app.store, reckoner).memory(spec, stage)
    return memory_need.estimate(parts, same=same, others=others).high


def recommended_memory(store: Store | None, platform: str = sys.platform) -> tuple[int, str]:
    """Return what the device recommends to take at most, in bytes, and where that is known from.

    The trainer asks MLX; here it must not be imported. On a Mac an earlier job has told what its limit came to.

    Args:
        store: None where nothing was ever submitted.
        platform: the operating system, as `sys.platform` names it.
    """
    allowed = sensors.allowed_memory()
    if platform != "darwin":
        return allowed, "what the system allows"
    for job in reversed(store.jobs.overview(ended=20)) if store is not None else ():
        assert store is not None
        told = [point.limit_bytes for point in store.metrics.points(job.id) if point.limit_bytes]
        limit = _spec_of(store, job.id).lq.memory.limit if told else None
        if told and isinstance(limit, str):
            return int(told[-1] / (float(limit.rstrip("%")) / 100)), f"as job {job.id} was told"
    return int(MAC_SHARE * allowed), f"{MAC_SHARE:.0%} of its memory; no job has run yet"


# --- what is asked for ---


def _queued(store: Store) -> list[_Asked]:
    """Return the jobs that have not ended, in the order in which they are chosen."""
    by_themselves = store.jobs.paused_by_worker()
    awaited, found = store.dependencies.awaited(), []
    for job in sorted(store.jobs.overview(ended=0), key=lambda job: (job.status is not Status.RUNNING, job.turn)):
        try:
            spec = _spec_of(store, job.id)
        except (LqError, ValueError):
            continue  # of a newer version
        run_plan = store.run_plans.get(job.id, spec)
        held = job.status is Status.HELD or (job.status is Status.PAUSED and job.id not in by_themselves)
        found.append(
            _Asked(
                key=job.id,
                job=job,
                spec=spec,
                stage=run_plan.stages[-1],
                source=None,
                asked_at=job.submitted_at,
                held=held,
                valid_rows=valid_rows(job),
                after=awaited.get(job.id, ()),
                notes=(),
            )
        )
    return found


def _fresh(app: App, loaded: LoadedJob, key: int, now: float) -> _Asked:
    """Look at a job of a file as submit does.

    Raises:
        InvalidInput: it cannot be trained with.
    """
    from configs.data_files import check_data
    from orchestrator.submission.submit import known_to_fit

    facts = check_data(loaded.spec, (loaded.source, loaded.data_line))
    valid = facts.files.get("valid.jsonl")
    stage = known_to_fit(app, loaded.spec) if app.home.store.exists() else None
    return _Asked(
        key=key,
        job=None,
        spec=loaded.spec,
        stage=stage if stage is not None else RunPlan.requested(loaded.spec).stages[0],
        source=loaded.source,
        asked_at=now,
        held=False,
        valid_rows=valid.rows if valid is not None else 0 if facts.source == "folder" else None,
        after=(),
        notes=(*facts.notes, *((stage.because,) if stage is not None else ())),
    )


def _spec_of(store: Store, job_id: int) -> JobSpec:
    return store.spec(job_id)


def _ahead(one: _Asked, left: RunTime | None, asked: Sequence[_Asked]) -> Ahead:
    constraints = constraints_of(one.spec.model_dump(mode="json"))
    return Ahead(
        id=one.key,
        seconds=left.expected if left is not None else None,
        running=one.job is not None and one.job.status is Status.RUNNING,
        held=one.held,
        not_before=one.job.not_before if one.job is not None and one.job.status is Status.WAITING else None,
        window=constraints.window,
        after=_predecessors(one, asked),
        strict=constraints.strict,
        deadline=constraints.due(one.asked_at, None),
    )


def _predecessors(one: _Asked, asked: Sequence[_Asked]) -> tuple[int, ...]:
    """Return the jobs a job waits for that have not ended; a file's are those of that id or group, else the last of
    that name before it.
    """
    if one.job is not None:
        return one.after
    found: list[int] = []
    for wanted in (*one.spec.lq.after, *one.spec.lq.after_any):
        others = [other for other in asked if other.key != one.key]
        of_group = [other.key for other in others if other.spec.lq.group == wanted]
        named = [other.key for other in others if other.key == wanted or other.spec.name == wanted]
        found += of_group or named[-1:]
    return tuple(found)


def _with(spec: JobSpec, stage: Stage, asked: Settings, settings: Settings) -> tuple[JobSpec, Stage]:
    """Return a job with other settings."""
    lora = spec.lora_parameters
    if settings.rank is not None:
        lora = lora.model_copy(update={"rank": settings.rank})
    same = dataclasses.asdict(settings)
    layers = spec.num_layers if settings.num_layers == asked.num_layers else settings.num_layers
    changed = {name: same[name] for name in ("batch_size", "grad_accumulation_steps", "grad_checkpoint")}
    changed |= {"max_seq_length": settings.max_seq_length}
    return (
        spec.model_copy(update={"lora_parameters": lora, "num_layers": layers, "iters": settings.iters} | changed),
        dataclasses.replace(stage, **changed),
    )
