"""Collects the facts of one job from the store and its folder."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.model.events import number
from jobs.model.job import Attempt, CheckpointRecord, Incident, Job, ProgressPoint, Validation
from jobs.model.outcomes import Reason
from jobs.model.run_plan import Stage
from jobs.model.states import ENDED, Status
from jobs.policies import early_stop
from orchestrator.report.analysis.verdict import NOTHING_FOUND, Comparison, Series, conclude
from orchestrator.report.facts import (
    AttemptFacts,
    CheckpointFacts,
    DataFile,
    Facts,
    Hardware,
    IncidentFacts,
    JobFacts,
    LossAt,
    Measurement,
    Progress,
    SelfTest,
    Times,
    TrainLoss,
    TrajectoryRow,
    ValidationFacts,
    perplexity,
)
from orchestrator.report.sources import answers, dataset, learned, parameters, read_folder
from orchestrator.store.store import Store

TRAJECTORY_ROWS = 12


def collect(
    store: Store,
    job_id: int,
    *,
    as_status: str | None = None,
    as_reason: str | None = None,
    as_detail: str | None = None,
    now: float,
    home: str | None = None,
) -> Facts:
    """Collect what was measured of one job, and what rules found in it; as `collect_all`, without the series."""
    facts, _ = collect_all(
        store, job_id, as_status=as_status, as_reason=as_reason, as_detail=as_detail, now=now, home=home
    )
    return facts


def collect_all(
    store: Store,
    job_id: int,
    *,
    as_status: str | None = None,
    as_reason: str | None = None,
    as_detail: str | None = None,
    now: float,
    home: str | None = None,
) -> tuple[Facts, Series]:
    """Collect what was measured of one job, what rules found in it, and the series both come from.

    Args:
        store: where the job is.
        job_id: the job.
        as_status: the status to report, where the decision is made but not yet stored.
        as_reason: its reason code.
        as_detail: its line for a person.
        now: unix seconds.
        home: $LQ_HOME to name in the commands; None for the default one.

    Raises:
        NoSuchJob: the store has no such job.
    """
    job, attempts = store.jobs.get(job_id), store.attempts.of(job_id)
    validations, tests = store.metrics.validations(job_id), store.metrics.validations(job_id, kind="test")
    incidents, told = store.incidents.of(job_id), store.metrics.facts(job_id)
    folder = read_folder(job.dir)
    points = store.metrics.points(job.id)
    every = store.metrics.points(job.id, superseded=True) if job.attempts > 1 else points
    job_facts = _job_facts(job, as_status, as_reason, as_detail, attempts, home)
    self_tests = {number: self_test(said) for number, said in store.attempts.self_tests(job_id).items()}
    told_lives = lives(attempts, every, self_tests, _end(job_facts.status, job, now))
    compared, tested = (
        Comparison(ones, learned(told, name)) for ones, name in ((validations, "valid"), (tests, "test"))
    )
    facts = Facts(
        job=job_facts,
        times=_times(job_facts.status, job, told_lives, now),
        settings=folder.settings,
        stages=folder.stages,
        progress=_progress(job, points, folder.stages, folder.data),
        train_loss=_train_loss(points),
        validation=_validation(validations, compared),
        tests=tuple(_measurement(test, tested) for test in tests),
        attempts=told_lives,
        checkpoints=_checkpoints(store.metrics.checkpoints(job_id), job.dir.path, validations),
        incidents=tuple(_incident(incident) for incident in incidents),
        adapter=folder.adapter,
        data=folder.data,
        trajectory=_trajectory(points, validations, job.iteration),
        hardware=hardware(every, incidents, told),
        dataset=dataset(told),
        parameters=parameters(told),
        answers=answers(told),
        findings=NOTHING_FOUND,
        versions=folder.versions,
        host=folder.host,
        unread=folder.unread,
    )
    series = Series(
        points=points,
        every=every,
        validations=validations,
        tests=tests,
        attempts=attempts,
        incidents=incidents,
    )
    return dataclasses.replace(facts, findings=conclude(facts, series, compared, tested)), series


def _job_facts(
    job: Job,
    as_status: str | None,
    as_reason: str | None,
    as_detail: str | None,
    attempts: Sequence[Attempt],
    home: str | None,
) -> JobFacts:
    # The stored detail belongs to the stored status; of a status to come, the last attempt's end tells most.
    detail = job.detail if as_status is None else as_detail or (attempts[-1].detail if attempts else None)
    return JobFacts(
        id=job.id,
        name=job.name,
        status=Status(as_status) if as_status else job.status,
        reason=job.reason if as_status is None else as_reason,
        detail=detail,
        job_dir=job.job_dir,
        home=home,
    )


def _end(status: Status, job: Job, now: float) -> float:
    return (job.ended_at or now) if status in ENDED else now


def _times(status: Status, job: Job, attempts: Sequence[AttemptFacts], now: float) -> Times:
    end = _end(status, job, now)
    return Times(
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        ended_at=end if status in ENDED else None,
        reported_at=now,
        wall_seconds=None if job.started_at is None else max(0.0, end - job.started_at),
        trained_seconds=sum(attempt.seconds for attempt in attempts) if attempts else None,
    )


def _progress(job: Job, points: Sequence[ProgressPoint], stages: Sequence[Stage], data: Sequence[DataFile]) -> Progress:
    # An iteration is what the job file calls one, on every stage: a smaller batch cuts it into micro-batches.
    rows_seen = job.iteration * stages[0].batch_size if stages else None
    train_rows = next((file.rows for file in data if file.name in ("train", "train.jsonl")), None)
    return Progress(
        iterations_done=job.iteration,
        iterations_asked=job.iters,
        rows_seen=rows_seen,
        epochs=rows_seen / train_rows if rows_seen is not None and train_rows else None,
        tokens=next((point.tokens for point in reversed(points) if point.tokens is not None), None),
        it_s=_median(point.it_s for point in points),
        tok_s=_median(point.tok_s for point in points),
        peak_bytes=max((point.peak_bytes for point in points if point.peak_bytes is not None), default=None),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None


def _train_loss(points: Sequence[ProgressPoint]) -> TrainLoss:
    losses = [LossAt(iteration=point.iteration, loss=point.train_loss) for point in points]
    finite = [loss for loss in losses if math.isfinite(loss.loss)]
    counted = [point.skipped for point in points if point.skipped is not None]
    return TrainLoss(
        first=losses[0] if losses else None,
        last=losses[-1] if losses else None,
        lowest=min(finite, key=lambda found: found.loss, default=None),
        reports=len(losses),
        not_finite=len(losses) - len(finite),
        not_applied=sum(counted) if counted else None,
    )


def _validation(validations: Sequence[Validation], compared: Comparison) -> ValidationFacts:
    base, best = next((one for one in validations if one.iteration == 0), None), early_stop.best(validations)
    return ValidationFacts(
        base=None if base is None else _measurement(base, compared),
        best=None if best is None else _measurement(best, compared),
        final=_measurement(validations[-1], compared) if validations else None,
        count=len(validations),
    )


def _measurement(validation: Validation, compared: Comparison) -> Measurement:
    low, high = compared.interval(validation) or (None, None)
    return Measurement(
        low=low,
        high=high,
        iteration=validation.iteration,
        loss=validation.loss,
        standard_error=validation.standard_error,
        perplexity=perplexity(validation.loss),
        examples=validation.examples,
        seconds=validation.seconds,
    )


def _incident(incident: Incident) -> IncidentFacts:
    return IncidentFacts(
        time=incident.time,
        attempt=incident.attempt,
        code=incident.code,
        text=incident.text,
        evidence=dict(incident.evidence),
    )


def _checkpoints(
    records: Sequence[CheckpointRecord], job_dir: Path, validations: Sequence[Validation]
) -> tuple[CheckpointFacts, ...]:
    losses = {validation.iteration: validation.loss for validation in validations}
    newest = {record.iteration: record for record in records}  # written again after a resume: one folder
    best = early_stop.best([one for one in validations if one.iteration in newest])
    return tuple(
        CheckpointFacts(
            iteration=iteration,
            path=newest[iteration].path,
            size_bytes=newest[iteration].size_bytes,
            on_disk=(job_dir / newest[iteration].path).is_dir(),
            val_loss=losses.get(iteration),
            recommended=best is not None and best.iteration == iteration,
        )
        for iteration in sorted(newest)
    )


def _trajectory(
    points: Sequence[ProgressPoint], validations: Sequence[Validation], last: int
) -> tuple[TrajectoryRow, ...]:
    """Return about `TRAJECTORY_ROWS` rows from iteration 0 to the last one, preferring those with a validation."""
    measured = {validation.iteration: validation for validation in validations}
    candidates = sorted(measured.keys() | {point.iteration for point in points})
    if not candidates:
        return ()
    step = max(1.0, last / (TRAJECTORY_ROWS - 1))
    chosen = {_nearest(candidates, sorted(measured), row * step, step) for row in range(TRAJECTORY_ROWS)}
    chosen.add(candidates[-1])
    finite = [validation for validation in validations if math.isfinite(validation.loss)]
    if finite:
        chosen.add(min(finite, key=lambda validation: validation.loss).iteration)
    return tuple(_trajectory_row(iteration, points, measured.get(iteration)) for iteration in sorted(chosen))


def _nearest(candidates: Sequence[int], measured: Sequence[int], target: float, step: float) -> int:
    def distance(iteration: int) -> float:
        return abs(iteration - target)

    validated = min(measured, key=distance, default=None)
    if validated is not None and distance(validated) <= step / 2:
        return validated
    return min(candidates, key=distance)


def _trajectory_row(iteration: int, points: Sequence[ProgressPoint], validation: Validation | None) -> TrajectoryRow:
    point = next((point for point in reversed(points) if point.iteration <= iteration), None)
    return TrajectoryRow(
        iteration=iteration,
        train_loss=point.train_loss if point else None,
        val_loss=validation.loss if validation else None,
        tokens=point.tokens if point else (0 if iteration == 0 else None),
        peak_bytes=point.peak_bytes if point else None,
    )


_ANSWERED_BY_GOING_BACK = {Reason.SPIKE, Reason.DRIFT, Reason.NOT_FINITE}


def lives(
    attempts: Sequence[Attempt], points: Sequence[ProgressPoint], self_tests: Mapping[int, SelfTest], end: float
) -> tuple[AttemptFacts, ...]:
    """Return the attempts as the report tells them.

    Args:
        attempts: by number.
        points: every progress report, in the order in which they came.
        self_tests: by number of the attempt.
        end: unix seconds; of an attempt that lives, or of the report.
    """
    facts: list[AttemptFacts] = []
    before: Attempt | None = None
    came_to: int | None = None
    for attempt in attempts:
        facts.append(
            AttemptFacts(
                number=attempt.number,
                started_at=attempt.started_at,
                ended_at=attempt.ended_at,
                seconds=max(0.0, (attempt.ended_at or end) - attempt.started_at),
                first_iteration=attempt.first_iteration,
                last_iteration=attempt.last_iteration,
                resumed_from=attempt.resumed_from,
                quality=attempt.quality,
                outcome=attempt.outcome,
                reason=attempt.reason,
                detail=attempt.detail,
                exit_code=attempt.exit_code,
                signal=attempt.signal,
                idle_seconds=_idle(before, attempt),
                came_to=came_to,
                repeated_iterations=0 if _went_back(before) else _repeated(came_to, attempt),
                given_up_iterations=(_repeated(came_to, attempt) or 0) if _went_back(before) else 0,
                catch_up_seconds=_catch_up(came_to, attempt, points),
                self_test=self_tests.get(attempt.number),
            )
        )
        before = attempt
        # An attempt that died while loading has no position of its own: the one before it still counts.
        came_to = attempt.last_iteration if attempt.last_iteration is not None else came_to
    return tuple(facts)


def self_test(said: Mapping[str, Any]) -> SelfTest:
    """Read what a self-test said."""
    iteration, equal = said.get("iteration"), said.get("equal")
    return SelfTest(
        iteration=iteration if isinstance(iteration, int) else None,
        measured=number(said.get("measured")),
        recorded=number(said.get("recorded")),
        equal=equal if isinstance(equal, bool) else None,
    )


def _idle(before: Attempt | None, attempt: Attempt) -> float | None:
    if before is None or before.ended_at is None:
        return None
    return max(0.0, attempt.started_at - before.ended_at)


def _went_back(before: Attempt | None) -> bool:
    """Say whether the loss guard ended the attempt before, so that the run goes another way from here."""
    return before is not None and before.reason in _ANSWERED_BY_GOING_BACK


def _repeated(came_to: int | None, attempt: Attempt) -> int | None:
    if attempt.number == 1:
        return 0
    if came_to is None or attempt.first_iteration is None:
        return None
    return max(0, came_to - attempt.first_iteration)


def _catch_up(came_to: int | None, attempt: Attempt, points: Sequence[ProgressPoint]) -> float | None:
    """Return the seconds from the attempt's start until it stood at `came_to` again, None if it never did."""
    if came_to is None:
        return None
    reached = (point for point in points if point.attempt == attempt.number and point.iteration >= came_to)
    point = next(reached, None)
    if point is None:
        return None
    beyond = (point.iteration - came_to) / point.it_s if point.it_s else 0.0
    return max(0.0, point.time - beyond - attempt.started_at)


FEWEST_REPORTS = 10
"""Below which a tenth of the reports is none."""


def hardware(points: Sequence[ProgressPoint], incidents: Sequence[Incident], facts: Mapping[str, Any]) -> Hardware:
    """Return what is known.

    Args:
        points: every progress report, in the order in which they came.
        incidents: of the job.
        facts: what the trainer alone saw, by name.
    """
    limits = [point.limit_bytes for point in points if point.limit_bytes]
    peak = _most(point.peak_bytes for point in points)
    footprint = _most(point.footprint_bytes for point in points)
    taken = _most((peak, footprint))
    swap = [point.swap_bytes for point in points if point.swap_bytes is not None]
    speeds = [point.it_s for point in points if point.it_s is not None and math.isfinite(point.it_s)]
    tenth = len(speeds) // 10 if len(speeds) >= FEWEST_REPORTS else 0
    slept = [one.evidence.get("slept_s") for one in incidents if one.code == "slept"]
    return Hardware(
        limit_bytes=limits[-1] if limits else None,
        peak_bytes=peak,
        footprint_bytes=footprint,
        headroom_bytes=limits[-1] - taken if limits and taken is not None else None,
        swap_first_bytes=swap[0] if swap else None,
        swap_most_bytes=max(swap, default=None),
        it_s_first=statistics.median(speeds[:tenth]) if tenth else None,
        it_s_last=statistics.median(speeds[-tenth:]) if tenth else None,
        sleeps=len(slept),
        slept_seconds=sum(float(one) for one in slept if isinstance(one, int | float)),
        battery_before=_charge(facts.get("battery.before")),
        battery_after=_charge(facts.get("battery.after")),
    )


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _charge(told: object) -> float | None:
    """Read (charge, on mains)."""
    if isinstance(told, list) and told and isinstance(told[0], int | float):
        return float(told[0])
    return None
