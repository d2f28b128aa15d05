"""Collects the facts of one job from the store and the job folder. Reads only."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.model.job import Attempt, CheckpointRecord, Incident, Job, ProgressPoint, Validation
from jobs.model.run_plan import Stage
from jobs.model.states import ENDED
from jobs.policies import early_stop
from jobs.policies.after_loss_alarm import GUARD_REASONS
from orchestrator.report import sources
from orchestrator.report.analysis.verdict import NOTHING_FOUND, Comparison, Series, conclude
from orchestrator.report.facts import (
    AttemptFacts,
    CheckpointFacts,
    DataFile,
    Facts,
    Hardware,
    JobFacts,
    LossAt,
    Measurement,
    PendingStatus,
    Progress,
    SelfTest,
    Times,
    TrainLoss,
    TrajectoryRow,
    ValidationFacts,
    perplexity,
)
from orchestrator.store.store import Store

TRAJECTORY_ROWS = 12
FEWEST_SPEEDS = 10
"""Reports needed to compare the speed of the first and the last tenth."""

_STORED = {field.name for field in dataclasses.fields(AttemptFacts)} & {
    field.name for field in dataclasses.fields(Attempt)
}
"""Values of an attempt that a report takes from the store as they are."""

_ROLLBACKS = GUARD_REASONS


def collect(
    store: Store, job_id: int, *, now: float, home: str | None = None, pending: PendingStatus | None = None
) -> Facts:
    """Return the facts of one job. Takes the arguments of `collect_all`."""
    return collect_all(store, job_id, now=now, home=home, pending=pending)[0]


def collect_all(
    store: Store, job_id: int, *, now: float, home: str | None = None, pending: PendingStatus | None = None
) -> tuple[Facts, Series]:
    """Return the facts of one job and the series that they come from.

    Args:
        home: $LQ_HOME to name in commands; None for the default home.
        pending: the status to report if it is decided but not stored yet.
    """
    job, series, reported = store.jobs.get(job_id), _series(store, job_id), store.metrics.facts(job_id)
    folder = sources.read_folder(job.dir)
    status = pending.status if pending is not None else job.status
    end = (job.ended_at or now) if status in ENDED else now
    self_tests = {key: sources.read_as(SelfTest, event) for key, event in store.attempts.self_tests(job_id).items()}
    attempts = tuple(_attempts(series.attempts, series.every, self_tests, end))
    validated = Comparison(series.validations, sources.supervised_tokens(reported, "valid"))
    tested = Comparison(series.tests, sources.supervised_tokens(reported, "test"))
    facts = Facts(
        job=_job(job, series.attempts, home, pending),
        times=_times(job, attempts, end=end if status in ENDED else None, now=now),
        settings=folder.settings,
        stages=folder.stages,
        progress=_progress(job, series.points, folder.stages, folder.data),
        train_loss=_train_loss(series.points),
        validation=_validation(series.validations, validated),
        tests=tuple(_measurement(test, tested) for test in series.tests),
        evaluations=folder.evaluations,
        attempts=attempts,
        checkpoints=_checkpoints(store.metrics.checkpoints(job_id), Path(job.job_dir), series.validations),
        incidents=tuple(series.incidents),
        adapter=folder.adapter,
        data=folder.data,
        trajectory=_trajectory(series.points, series.validations, job.iteration),
        hardware=_hardware(series.every, series.incidents, reported),
        dataset=sources.dataset(reported),
        parameters=sources.parameters(reported),
        answers=sources.answers(reported),
        findings=NOTHING_FOUND,
        versions=folder.versions,
        host=folder.host,
        unread=folder.unread,
        written_by=importlib.metadata.version("lq"),
    )
    return dataclasses.replace(facts, findings=conclude(facts, series, validated, tested)), series


def _series(store: Store, job_id: int) -> Series:
    points, attempts = store.metrics.points(job_id), store.attempts.of(job_id)
    return Series(
        points=points,
        every=store.metrics.points(job_id, superseded=True) if len(attempts) > 1 else points,
        validations=store.metrics.validations(job_id),
        tests=store.metrics.validations(job_id, kind="test"),
        attempts=attempts,
        incidents=store.incidents.of(job_id),
        spec=store.spec(job_id),
    )


# --- job, times, progress ---


def _job(job: Job, attempts: Sequence[Attempt], home: str | None, pending: PendingStatus | None) -> JobFacts:
    status, reason, detail = job.status, job.reason, job.detail
    if pending is not None:  # the stored detail belongs to the stored status
        last = attempts[-1].detail if attempts else None
        status, reason, detail = pending.status, pending.reason, pending.detail or last
    return JobFacts(
        id=job.id, name=job.name, status=status, reason=reason, detail=detail, job_dir=job.job_dir, home=home
    )


def _times(job: Job, attempts: Sequence[AttemptFacts], *, end: float | None, now: float) -> Times:
    until = now if end is None else end
    return Times(
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        ended_at=end,
        reported_at=now,
        wall_seconds=None if job.started_at is None else max(0.0, until - job.started_at),
        trained_seconds=sum(attempt.seconds for attempt in attempts) if attempts else None,
    )


def _progress(job: Job, points: Sequence[ProgressPoint], stages: Sequence[Stage], data: Sequence[DataFile]) -> Progress:
    # a smaller batch splits an iteration into micro-batches, so the requested batch size counts on every stage
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
        peak_bytes=_most(point.peak_bytes for point in points),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


# --- losses ---


def _train_loss(points: Sequence[ProgressPoint]) -> TrainLoss:
    losses = [LossAt(iteration=point.iteration, loss=point.train_loss) for point in points]
    finite = [loss for loss in losses if math.isfinite(loss.loss)]
    skipped = [point.skipped for point in points if point.skipped is not None]
    return TrainLoss(
        first=losses[0] if losses else None,
        last=losses[-1] if losses else None,
        lowest=min(finite, key=lambda loss: loss.loss, default=None),
        reports=len(losses),
        not_finite=len(losses) - len(finite),
        not_applied=sum(skipped) if skipped else None,
    )


def _validation(validations: Sequence[Validation], comparison: Comparison) -> ValidationFacts:
    base = next((validation for validation in validations if validation.iteration == 0), None)
    best = early_stop.best(validations)
    return ValidationFacts(
        base=None if base is None else _measurement(base, comparison),
        best=None if best is None else _measurement(best, comparison),
        final=_measurement(validations[-1], comparison) if validations else None,
        count=len(validations),
    )


def _measurement(validation: Validation, comparison: Comparison) -> Measurement:
    low, high = comparison.interval(validation) or (None, None)
    return Measurement(
        low=low,
        high=high,
        iteration=validation.iteration,
        loss=validation.loss,
        standard_error=validation.standard_error,
        perplexity=None if validation.rewards else perplexity(validation.loss),
        examples=validation.examples,
        seconds=validation.seconds,
        rewards=validation.rewards,
    )


def _trajectory(
    points: Sequence[ProgressPoint], validations: Sequence[Validation], last: int
) -> tuple[TrajectoryRow, ...]:
    """Return about `TRAJECTORY_ROWS` evenly spread rows, at validations if possible, with the best and the last."""
    validated = {validation.iteration: validation for validation in validations}
    iterations = sorted(validated.keys() | {point.iteration for point in points})
    if not iterations:
        return ()
    step = max(1.0, last / (TRAJECTORY_ROWS - 1))
    chosen = {_nearest(iterations, sorted(validated), row * step, step) for row in range(TRAJECTORY_ROWS)}
    chosen.add(iterations[-1])
    if (best := early_stop.best(validations)) is not None:
        chosen.add(best.iteration)
    return tuple(_trajectory_row(iteration, points, validated.get(iteration)) for iteration in sorted(chosen))


def _nearest(iterations: Sequence[int], validated: Sequence[int], target: float, step: float) -> int:
    def distance(iteration: int) -> float:
        return abs(iteration - target)

    validation = min(validated, key=distance, default=None)
    if validation is not None and distance(validation) <= step / 2:
        return validation
    return min(iterations, key=distance)


def _trajectory_row(iteration: int, points: Sequence[ProgressPoint], validation: Validation | None) -> TrajectoryRow:
    point = next((point for point in reversed(points) if point.iteration <= iteration), None)
    return TrajectoryRow(
        iteration=iteration,
        train_loss=point.train_loss if point else None,
        val_loss=validation.loss if validation else None,
        accuracy=validation.rewards.accuracy if validation and validation.rewards else None,
        margin=validation.rewards.margin if validation and validation.rewards else None,
        tokens=point.tokens if point else (0 if iteration == 0 else None),
        peak_bytes=point.peak_bytes if point else None,
    )


# --- attempts ---


def _attempts(
    attempts: Sequence[Attempt], points: Sequence[ProgressPoint], self_tests: Mapping[int, SelfTest], end: float
) -> Iterator[AttemptFacts]:
    """Yield the attempts with the cost of each restart; `end` is the end of an attempt that has not ended."""
    before: Attempt | None = None
    came_to: int | None = None
    for attempt in attempts:
        repeated = _repeated(came_to, attempt)
        rolled_back = before is not None and before.reason in _ROLLBACKS
        yield AttemptFacts(
            **{name: getattr(attempt, name) for name in _STORED},
            seconds=max(0.0, (attempt.ended_at or end) - attempt.started_at),
            idle_seconds=max(0.0, attempt.started_at - before.ended_at) if before and before.ended_at else None,
            came_to=came_to,
            repeated_iterations=0 if rolled_back else repeated,
            given_up_iterations=(repeated or 0) if rolled_back else 0,
            catch_up_seconds=_catch_up(came_to, attempt, points),
            self_test=self_tests.get(attempt.number),
        )
        before = attempt
        # an attempt that crashed while loading reached no iteration
        came_to = attempt.last_iteration if attempt.last_iteration is not None else came_to


def _repeated(came_to: int | None, attempt: Attempt) -> int | None:
    if attempt.number == 1:
        return 0
    if came_to is None or attempt.first_iteration is None:
        return None
    return max(0, came_to - attempt.first_iteration)


def _catch_up(came_to: int | None, attempt: Attempt, points: Sequence[ProgressPoint]) -> float | None:
    """Return the seconds from the start of the attempt until it reached `came_to`; None if it did not."""
    if came_to is None:
        return None
    reached = (point for point in points if point.attempt == attempt.number and point.iteration >= came_to)
    point = next(reached, None)
    if point is None:
        return None
    beyond = (point.iteration - came_to) / point.it_s if point.it_s else 0.0
    return max(0.0, point.time - beyond - attempt.started_at)


# --- checkpoints, incidents, hardware ---


def _checkpoints(
    records: Sequence[CheckpointRecord], job_dir: Path, validations: Sequence[Validation]
) -> tuple[CheckpointFacts, ...]:
    losses = {validation.iteration: validation.loss for validation in validations}
    newest = {record.iteration: record for record in records}  # a resume overwrites checkpoints
    best = early_stop.best([validation for validation in validations if validation.iteration in newest])
    return tuple(
        CheckpointFacts(
            iteration=iteration,
            path=record.path,
            size_bytes=record.size_bytes,
            on_disk=(job_dir / record.path).is_dir(),
            val_loss=losses.get(iteration),
            recommended=best is not None and best.iteration == iteration,
        )
        for iteration, record in sorted(newest.items())
    )


def _hardware(points: Sequence[ProgressPoint], incidents: Sequence[Incident], reported: Mapping[str, Any]) -> Hardware:
    limit = next((point.limit_bytes for point in reversed(points) if point.limit_bytes), None)
    peak, footprint = _most(point.peak_bytes for point in points), _most(point.footprint_bytes for point in points)
    used = _most((peak, footprint))
    swap = [point.swap_bytes for point in points if point.swap_bytes is not None]
    speeds = [point.it_s for point in points if point.it_s is not None and math.isfinite(point.it_s)]
    tenth = len(speeds) // 10 if len(speeds) >= FEWEST_SPEEDS else 0
    slept = [incident.evidence.get("slept_s") for incident in incidents if incident.code == "slept"]
    return Hardware(
        limit_bytes=limit,
        peak_bytes=peak,
        footprint_bytes=footprint,
        headroom_bytes=limit - used if limit is not None and used is not None else None,
        swap_first_bytes=swap[0] if swap else None,
        swap_most_bytes=max(swap, default=None),
        it_s_first=statistics.median(speeds[:tenth]) if tenth else None,
        it_s_last=statistics.median(speeds[-tenth:]) if tenth else None,
        sleeps=len(slept),
        slept_seconds=sum(float(seconds) for seconds in slept if isinstance(seconds, int | float)),
        battery_before=_charge(reported.get("battery.before")),
        battery_after=_charge(reported.get("battery.after")),
    )


def _charge(battery: object) -> float | None:
    """Return the charge of a battery reading, which is (charge, on mains)."""
    if isinstance(battery, list) and battery and isinstance(battery[0], int | float):
        return float(battery[0])
    return None
