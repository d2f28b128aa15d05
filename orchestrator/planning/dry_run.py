"""Dry runs of jobs: the memory, speed, time and data they show, and whether the jobs would fail.

Nothing is queued. The memory and speed of each configuration go into the store, if there is one.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import Any

from jobs.estimates import cautions, dry_run
from jobs.estimates.cautions import Caution, DataSummary
from jobs.estimates.disk import SpaceNeed
from jobs.estimates.dry_run import DryRunFailure, DryRunMeasurements
from jobs.estimates.estimate import TimeEstimate
from jobs.model.configuration import fit_key
from jobs.model.errors import InvalidInput
from jobs.model.events import Event, FactEvent, PhaseEvent, ProgressEvent, number, value_of, values_of
from jobs.model.job import Fit, Job
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.scheduling.timeline import JobTimes, PendingJob, timeline
from orchestrator.core.app import App
from orchestrator.estimation import disk
from orchestrator.estimation.history import RunHistory
from orchestrator.planning.dry_run_child import ChildRun, run_child
from orchestrator.planning.queue_forecast import pending_job
from orchestrator.scheduling import device_lock
from orchestrator.scheduling.device_lock import Beside
from orchestrator.submission.data_check import check_data
from orchestrator.submission.submit import check_all


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRunRequest:
    """A job to check, queued or not."""

    file: str | None = None  # the job file; None for a queued job
    job: Job | None = None  # the queued job
    spec: JobSpec
    run_plan: RunPlan
    need: SpaceNeed
    shortage: str | None = None  # why the disk is too small
    invalid: DryRunFailure | None = None  # the data of a queued job is no longer valid
    notes: tuple[str, ...] = ()  # what submit would print
    after: tuple[int, ...] = ()  # ids of queued jobs that must end first

    @property
    def name(self) -> str:
        """The name of the job."""
        return self.spec.name

    @property
    def iteration(self) -> int:
        """Completed iterations."""
        return self.job.iteration if self.job is not None else 0

    @property
    def stage(self) -> Stage:
        """The stage that the run begins or resumes with."""
        return self.run_plan.stage_at(self.iteration)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRunResult:
    """The result of one dry run."""

    request: DryRunRequest
    ending: Ending | None  # how the child ended; None if none was started
    measured: DryRunMeasurements | None  # None if it did not complete
    peak_bytes: int | None
    limit_bytes: int | None
    data: DataSummary | None
    time: TimeEstimate | None
    failures: tuple[DryRunFailure, ...]
    cautions: tuple[Caution, ...]  # except for the deadline's

    @property
    def ok(self) -> bool:
        """Whether the dry run shows no reason why the run would fail."""
        return not self.failures

    @property
    def counts(self) -> bool:
        """Whether the job would run by itself: it would not fail, and it is not held."""
        job = self.request.job
        return self.ok and (job is None or job.status is not Status.HELD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timetable:
    """When a job would train, in unix seconds."""

    begins_at: float | None  # None if unknown: its dry run failed, or its turn does not come within a year
    ends_at: float | None
    due_at: float | None  # None if it has no deadline


@contextmanager
def exclusive_device(app: App, *, anyway: bool) -> Iterator[None]:
    """Hold the device within the block: a dry run and a training together would be slow, and might not fit.

    A home that does not exist has no jobs, and is not made. `anyway` shares the device with its present user;
    without it, raise NotAllowed if there is one.
    """
    if not app.home.path.is_dir():
        yield
        return
    beside = Beside.ANYWAY if anyway else Beside.REFUSE
    with device_lock.used(app, "check", None, beside=beside, tell=lambda _: None, queues=False):
        yield


def of_files(app: App, paths: Sequence[Path], *, overwrite: bool, sets: Sequence[str] = ()) -> list[DryRunRequest]:
    """Check job files as submit does, and return each of their jobs; nothing is changed."""
    checked = check_all(app, paths, overwrite=overwrite, sets=sets, space=False)
    shortages = disk.shortages(app, [job.need for job in checked])
    return [
        DryRunRequest(
            file=str(job.loaded.source),
            spec=job.loaded.spec,
            run_plan=RunPlan.requested(job.loaded.spec),
            need=job.need,
            shortage=shortage,
            notes=job.notes,
        )
        for job, shortage in zip(checked, shortages, strict=True)
    ]


def of_queue(app: App) -> list[DryRunRequest]:
    """Return the jobs that are still to train, in the order in which they get their turn."""
    if not app.home.store.exists():
        return []
    unpaused = (Status.QUEUED, Status.WAITING, Status.HELD)
    jobs = sorted((job for job in app.store.jobs.overview(ended=0) if job.status in unpaused), key=lambda job: job.turn)
    specs = [app.store.spec(job.id) for job in jobs]
    data = [_checked_data(app, spec) for spec in specs]
    needs = [disk.need_of(spec, valid_rows=rows) for spec, (rows, _) in zip(specs, data, strict=True)]
    shortages = disk.shortages(app, needs, queued=[job.id for job in jobs])
    awaited = app.store.dependencies.awaited()
    return [
        DryRunRequest(
            job=job,
            spec=spec,
            run_plan=app.store.run_plans.get(job.id, spec),
            need=need,
            shortage=shortage,
            invalid=invalid,
            after=awaited.get(job.id, ()),
        )
        for job, spec, need, shortage, (_, invalid) in zip(jobs, specs, needs, shortages, data, strict=True)
    ]


def _checked_data(app: App, spec: JobSpec) -> tuple[int, DryRunFailure | None]:
    """Check the data of a queued job again; return its validation rows, and why it is no longer valid."""
    try:
        valid = check_data(app, spec).files.get("valid.jsonl")
    except InvalidInput as error:
        return 0, DryRunFailure(code=Reason.DATA_INVALID.value, text=str(error))
    return valid.rows if valid is not None else 0, None


def checked(app: App, request: DryRunRequest, *, timeout_s: float) -> DryRunResult:
    """Do the dry run of a job, and store what it shows. One that takes longer than `timeout_s` counts as failed."""
    at, saves = request.iteration, request.shortage is None
    child_run = None
    if request.invalid is None:
        child_run = run_child(app.home, request.spec, request.run_plan, at=at, saves=saves, timeout_s=timeout_s)
    result = _result(request, child_run)
    _remember(app, result)
    return result


def running_jobs(app: App) -> list[PendingJob]:
    """Return the jobs that train now, with the time they have left; one of unknown duration counts as done."""
    if not app.home.store.exists():
        return []
    history = RunHistory(app.store)
    pending = []
    for job in app.store.jobs.running():
        left = history.time_left(job, json.loads(app.store.jobs.spec_json(job.id)))
        pending.append(PendingJob(id=job.id, seconds=left.expected_s if left is not None else 0.0, running=True))
    return pending


def timetables(
    results: Sequence[DryRunResult],
    *,
    now: float,
    slots: int = 1,
    running: Sequence[PendingJob] = (),
    zone: tzinfo | None = None,
) -> list[Timetable]:
    """Return when each job, in the order of the queue, would begin and end (jobs/scheduling/timeline.py).

    Jobs that would fail or are held take no time of the others; their own times are those they would have otherwise.
    """
    pending = [
        pending_job(
            result.request.job or -number,
            result.request.spec.model_dump(mode="json"),
            result.time,
            now=now,
            zone=zone,
            after=result.request.after,
        )
        for number, result in enumerate(results, start=1)
    ]
    known = [job for job in pending if job.seconds is not None]
    counted = {job.id for job, result in zip(pending, results, strict=True) if result.counts}

    def simulated(extra: int | None = None) -> dict[int, JobTimes]:
        jobs = [job for job in known if job.id in counted or job.id == extra]
        return {times.id: times for times in timeline([*running, *jobs], now=now, slots=slots, zone=zone)}

    times = simulated()
    times |= {job.id: simulated(job.id)[job.id] for job in known if job.id not in counted}
    return [
        Timetable(
            begins_at=times[job.id].start if job.id in times else None,
            ends_at=times[job.id].end if job.id in times else None,
            due_at=job.deadline,
        )
        for job in pending
    ]


def _result(request: DryRunRequest, child_run: ChildRun | None) -> DryRunResult:
    spec, ending = request.spec, child_run.ending if child_run is not None else None
    events = child_run.events if child_run is not None else []
    facts = {fact.name: fact.value for fact in values_of(events, FactEvent)}
    report = facts.get("dry_run")
    measured = None
    if child_run is not None and child_run.ending.outcome is Outcome.DONE and report is not None:
        measured = _measurements(report, child_run)
    data = _data_summary(facts.get("dataset"), report)
    peak, limit = _memory(events)
    failures = dry_run.failures(
        spec, request.stage, ending, measured, peak_bytes=peak, limit_bytes=limit, shortage=request.shortage
    )
    return DryRunResult(
        request=request,
        ending=ending,
        measured=measured,
        peak_bytes=peak,
        limit_bytes=limit,
        data=data,
        time=dry_run.estimated_time(spec, measured) if measured is not None else None,
        failures=(request.invalid,) if request.invalid is not None else tuple(failures),
        cautions=(*cautions.of_settings(spec), *(cautions.of_data(spec, data) if data is not None else ())),
    )


def _memory(events: Sequence[Event]) -> tuple[int | None, int | None]:
    """Return the child's peak memory and its limit in bytes; None if it reported none."""
    readings = [progress.memory for progress in values_of(events, ProgressEvent)]
    peaks = [size for reading in readings for size in (reading.peak, reading.footprint) if size]
    limits = [reading.limit for reading in readings if reading.limit]
    return max(peaks, default=None), limits[-1] if limits else None


def _measurements(report: Mapping[str, Any], child_run: ChildRun) -> DryRunMeasurements:
    checkpoint = report.get("checkpoint") or {}
    phases = ((event, value_of(event)) for event in child_run.events)
    training = next(event for event, at in phases if isinstance(at, PhaseEvent) and at.phase == "train")
    return DryRunMeasurements(
        iteration=int(report["iteration"]),
        updates=int(report["updates"]),
        accumulation=int(report["accumulation"]),
        first_update_s=float(report["first_update_s"]),
        update_s=float(report["update_s"]),
        positions=float(report["positions"]),
        mean_positions=float(report["mean_positions"]),
        start_s=max(0.0, training.awake - child_run.began) + (number(report.get("reference_s")) or 0.0),
        validation_s=number(report["validation_s"]),
        validation_loss=number(report["validation_loss"]),
        test_s=number(report["test_s"]),
        checkpoint_s=number(checkpoint.get("seconds")),
        checkpoint_bytes=checkpoint.get("bytes"),
        not_finite=tuple(report["not_finite"]),
    )


def _data_summary(dataset: Mapping[str, Any] | None, report: Mapping[str, Any] | None) -> DataSummary | None:
    if dataset is None:
        return None
    train, valid, shared = dataset["train"], dataset["valid"], dataset["also_trained"]["valid"]
    rows = int(train["rows"])
    return DataSummary(
        rows=rows,
        truncated=int(train.get("truncated", 0)),
        unsupervised=rows - int(report["supervised"]) if report is not None else 0,
        padding_share=dataset["padding_share"],
        batches_per_epoch=int(report["batches_per_epoch"]) if report is not None else 0,
        valid_rows=int(valid["rows"]),
        also_trained=int(shared["exact"]),
        nearly_trained=shared["near"],
    )


def _remember(app: App, result: DryRunResult) -> None:
    """Store what the configuration took, for later submits and plans; only if there is a store."""
    request, measured = result.request, result.measured
    out_of_memory = any(failure.code == Reason.OUT_OF_MEMORY for failure in result.failures)
    if not app.home.store.exists() or not (out_of_memory or measured is not None):
        return
    fit = Fit(
        fits=not out_of_memory,
        peak_bytes=result.peak_bytes,
        job_id=request.job.id if request.job is not None else 0,
        it_s=measured.it_s if measured is not None else None,
        start_s=measured.speed.start_s if measured is not None else None,
        validation_s=measured.validation_s if measured is not None else None,
    )
    app.store.fits.record(fit_key(request.spec, request.stage), fit, time.time())
