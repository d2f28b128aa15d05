"""Before bed: what a rehearsal of each job says of memory, speed, the clock and the data, and whether it would fail.

Nothing is queued; what is learnt of memory and speed goes into the store, where there is one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import Any

from configs.data_files import check_data
from jobs.estimates import cautions, dry_run
from jobs.estimates.cautions import Caution, Data
from jobs.estimates.disk import Need
from jobs.estimates.dry_run import Failure, Forecast, Tried
from jobs.model.configuration import fit_key
from jobs.model.errors import InvalidInput
from jobs.model.events import Event, Kind, number
from jobs.model.job import Fit, Job
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.scheduling.constraints import constraints_of
from jobs.scheduling.timeline import Ahead, Placed, timeline
from orchestrator.core.app import App
from orchestrator.estimation import disk as budget
from orchestrator.planning.dry_run_child import Performance, perform
from orchestrator.scheduling import device_lock
from orchestrator.scheduling.device_lock import Beside
from orchestrator.submission.submit import check_beside

ASKED = (Status.QUEUED, Status.WAITING, Status.HELD)
"""What `--queue` rehearses: what will train without anybody lifting a pause."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A job to rehearse, queued or not."""

    name: str
    file: str | None  # the job file, where it is not queued
    job: Job | None  # the job, where it is
    spec: JobSpec
    run_plan: RunPlan
    need: Need  # of disk
    shortage: str | None  # why the disk is too small
    invalid: Failure | None  # what checking the data again showed, of a queued job
    notes: tuple[str, ...]  # what submit would tell
    after: tuple[int, ...] = ()  # ids of queued jobs that must have ended before

    @property
    def iteration(self) -> int:
        """Completed iterations."""
        return self.job.iteration if self.job is not None else 0

    @property
    def stage(self) -> Stage:
        """The stage that holds where it begins or goes on."""
        return self.run_plan.stage_at(self.iteration)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one rehearsal."""

    candidate: Candidate
    ending: Ending | None  # how the child ended; None where none was started
    tried: Tried | None  # what it measured; None where it did not come to its end
    peak_bytes: int | None
    limit_bytes: int | None
    data: Data | None
    forecast: Forecast | None
    failures: tuple[Failure, ...]
    cautions: tuple[Caution, ...]  # but for those of the clock

    @property
    def ok(self) -> bool:
        """Whether the run would not fail, as far as a rehearsal shows."""
        return not self.failures

    @property
    def counts(self) -> bool:
        """Whether it takes a part of the night: it would run, and nobody has to release it first."""
        job = self.candidate.job
        return self.ok and (job is None or job.status is not Status.HELD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hours:
    """When a job would train, in unix seconds."""

    begins_at: float | None  # None where that is not known: its rehearsal failed, or its turn does not come in a year
    ends_at: float | None
    due_at: float | None  # None where no deadline is set


@contextmanager
def at_rest(app: App, *, anyway: bool) -> Iterator[None]:
    """Have the device for as long as the block takes: beside a training both would be slow, and might not fit.

    A home that is not there has no jobs, and none is made.

    Args:
        app: the home.
        anyway: whatever else uses the device.

    Raises:
        NotAllowed: a job trains, or another verb has the device.
    """
    if not app.home.path.is_dir():
        yield
        return
    beside = Beside.ANYWAY if anyway else Beside.REFUSE
    with device_lock.used(app, "check", None, beside=beside, tell=lambda _: None, queues=False):
        yield


def of_files(app: App, paths: Sequence[Path], *, overwrite: bool, sets: Sequence[str] = ()) -> list[Candidate]:
    """Check job files as submit does, and return what to rehearse, each job of a sweep; nothing is changed.

    Raises:
        what `orchestrator.submit.check_beside` does.
    """
    checked = check_beside(app, paths, overwrite=overwrite, sets=sets)
    shortages = budget.shortages(app, [one.need for one in checked])
    return [
        Candidate(
            name=one.loaded.spec.name,
            file=str(one.loaded.source),
            job=None,
            spec=one.loaded.spec,
            run_plan=RunPlan.requested(one.loaded.spec),
            need=one.need,
            shortage=shortage,
            invalid=None,
            notes=one.notes,
        )
        for one, shortage in zip(checked, shortages, strict=True)
    ]


def of_queue(app: App) -> list[Candidate]:
    """Return the jobs that are still to train, as they were submitted, in the order in which they get their turn."""
    jobs = sorted(app.store.jobs.overview(ended=0) if app.home.store.exists() else [], key=lambda job: job.turn)
    asked = [
        (job, JobSpec.model_validate_json(app.store.jobs.spec_json(job.id))) for job in jobs if job.status in ASKED
    ]
    awaited = app.store.dependencies.awaited() if asked else {}
    looked = [_data_of(spec) for _, spec in asked]
    needs = [budget.need_of(spec, valid_rows=rows) for (_, spec), (rows, _) in zip(asked, looked, strict=True)]
    shortages = budget.shortages(app, needs, queued=[job.id for job, _ in asked])
    return [
        Candidate(
            name=job.name,
            file=None,
            job=job,
            spec=spec,
            run_plan=app.store.run_plans.get(job.id, spec),
            need=need,
            shortage=shortage,
            invalid=invalid,
            notes=(),
            after=awaited.get(job.id, ()),
        )
        for (job, spec), need, shortage, (_, invalid) in zip(asked, needs, shortages, looked, strict=True)
    ]


def _data_of(spec: JobSpec) -> tuple[int, Failure | None]:
    """Look at the data of a queued job once more; return its validation rows, and what is wrong with it by now."""
    try:
        valid = check_data(spec).files.get("valid.jsonl")
    except InvalidInput as error:
        return 0, Failure(code=Reason.DATA_INVALID.value, text=str(error))
    return valid.rows if valid is not None else 0, None


def rehearsed(app: App, candidate: Candidate, *, timeout_s: float) -> Finding:
    """Rehearse a job, and keep what was learnt.

    Args:
        app: the home.
        candidate: the job.
        timeout_s: after so long it is ended, and would fail.
    """
    performance = None
    if candidate.invalid is None:
        performance = perform(
            app.home,
            candidate.spec,
            candidate.run_plan,
            at=candidate.iteration,
            saves=candidate.shortage is None,
            timeout_s=timeout_s,
        )
    finding = _finding(candidate, performance)
    _remember(app, finding)
    return finding


def timetable(
    findings: Sequence[Finding], *, begins_at: float, slots: int = 1, zone: tzinfo | None = None
) -> list[Hours]:
    """Return when each job would begin and end, played through by the rules of the queue (`jobs.timeline`).

    Those that would fail, or are held, take no part of the night; of each is told when it would train if it did.

    Args:
        findings: in the order in which they are chosen.
        begins_at: when the first may begin, in unix seconds.
        slots: how many train at once.
        zone: whose hours windows and deadlines are; None for the machine's own zone.
    """
    ahead = [_ahead(place, one, begins_at, zone) for place, one in enumerate(findings)]
    known = [coming for coming in ahead if coming.seconds is not None]
    counted = {coming.id for coming, one in zip(ahead, findings, strict=True) if one.counts}

    def context(more: int | None = None) -> dict[int, Placed]:
        jobs = [coming for coming in known if coming.id in counted or coming.id == more]
        return {placed.id: placed for placed in timeline(jobs, now=begins_at, slots=slots, zone=zone)}

    placed = context()
    placed |= {coming.id: context(coming.id)[coming.id] for coming in known if coming.id not in counted}
    return [
        Hours(
            begins_at=placed[coming.id].start if coming.id in placed else None,
            ends_at=placed[coming.id].end if coming.id in placed else None,
            due_at=coming.deadline,
        )
        for coming in ahead
    ]


def _ahead(place: int, one: Finding, begins_at: float, zone: tzinfo | None) -> Ahead:
    job, constraints = one.candidate.job, constraints_of(one.candidate.spec.model_dump(mode="json"))
    return Ahead(
        id=job.id if job is not None else -1 - place,
        seconds=one.forecast.total_s if one.forecast is not None else None,
        not_before=job.not_before if job is not None else None,
        window=constraints.window,
        after=one.candidate.after,
        strict=constraints.strict,
        deadline=constraints.due(job.submitted_at if job is not None else begins_at, zone),
    )


def _finding(candidate: Candidate, performance: Performance | None) -> Finding:
    events = performance.events if performance is not None else []
    ending = performance.ending if performance is not None else None
    facts = {str(event.data["name"]): event.data["value"] for event in events if event.kind is Kind.FACT}
    told = facts.get("dry_run")
    tried = None
    if performance is not None and ending is not None and ending.outcome is Outcome.DONE and told is not None:
        tried = _tried(told, performance)
    data = _data(facts.get("dataset"), told)
    peak, limit = _memory(events)
    failures = dry_run.failures(
        candidate.spec,
        candidate.stage,
        ending,
        tried,
        peak_bytes=peak,
        limit_bytes=limit,
        shortage=candidate.shortage,
    )
    careful = cautions.of_settings(candidate.spec)
    if data is not None:
        careful += cautions.of_data(candidate.spec, data)
    return Finding(
        candidate=candidate,
        ending=ending,
        tried=tried,
        peak_bytes=peak,
        limit_bytes=limit,
        data=data,
        forecast=dry_run.forecast(candidate.spec, tried) if tried is not None else None,
        failures=tuple([candidate.invalid] if candidate.invalid is not None else failures),
        cautions=tuple(careful),
    )


def _memory(events: Sequence[Event]) -> tuple[int | None, int | None]:
    """Return the most the child took, and what it may take, in bytes; None where it did not say."""
    said = [event.data.get("memory") or {} for event in events if event.kind is Kind.PROGRESS]
    peaks = [int(one[name]) for one in said for name in ("peak", "footprint") if one.get(name)]
    limits = [int(one["limit"]) for one in said if one.get("limit")]
    return max(peaks, default=None), limits[-1] if limits else None


def _tried(told: Mapping[str, Any], performance: Performance) -> Tried:
    checkpoint = told.get("checkpoint") or {}
    trains = next(event for event in performance.events if event.kind is Kind.PHASE and event.data["phase"] == "train")
    return Tried(
        iteration=int(told["iteration"]),
        updates=int(told["updates"]),
        accumulation=int(told["accumulation"]),
        first_update_s=float(told["first_update_s"]),
        update_s=float(told["update_s"]),
        positions=float(told["positions"]),
        mean_positions=float(told["mean_positions"]),
        start_s=max(0.0, trains.awake - performance.began),
        validation_s=number(told["validation_s"]),
        validation_loss=number(told["validation_loss"]),
        test_s=number(told["test_s"]),
        checkpoint_s=number(checkpoint.get("seconds")),
        checkpoint_bytes=checkpoint.get("bytes"),
        not_finite=tuple(told["not_finite"]),
    )


def _data(told: Mapping[str, Any] | None, more: Mapping[str, Any] | None) -> Data | None:
    if told is None:
        return None
    train, valid, shared = told["train"], told["valid"], told["also_trained"]["valid"]
    rows = int(train["rows"])
    return Data(
        rows=rows,
        truncated=int(train.get("truncated", 0)),
        unsupervised=rows - int(more["supervised"]) if more is not None else 0,
        padding_share=told["padding_share"],
        batches_per_epoch=int(more["batches_per_epoch"]) if more is not None else 0,
        valid_rows=int(valid["rows"]),
        also_trained=int(shared["exact"]),
        nearly_trained=shared["near"],
    )


def _remember(app: App, finding: Finding) -> None:
    """Keep what the configuration took, for the next submit; only where there is a store already."""
    candidate, tried = finding.candidate, finding.tried
    out_of_memory = any(one.code == Reason.OUT_OF_MEMORY for one in finding.failures)
    if not app.home.store.exists() or not (out_of_memory or tried is not None):
        return
    fit = Fit(
        fits=not out_of_memory,
        peak_bytes=finding.peak_bytes,
        job_id=candidate.job.id if candidate.job is not None else 0,
        it_s=tried.it_s if tried is not None else None,
        start_s=tried.start_s + tried.compile_s if tried is not None else None,
        validation_s=tried.validation_s if tried is not None else None,
    )
    app.store.fits.record(fit_key(candidate.spec, candidate.stage), fit, time.time())
