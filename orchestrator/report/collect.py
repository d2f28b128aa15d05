"""Store rows and the job's folder -> Facts. Reads only; computes what was measured and judges nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.course import Leg
from jobs.events import number
from jobs.job import Attempt, CheckpointRecord, Incident, Job, ProgressPoint, Validation
from jobs.states import ENDED, Status
from orchestrator.report.facts import (
    AttemptFacts,
    CheckpointFacts,
    DataFile,
    Facts,
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
from orchestrator.report.folder import read_folder
from orchestrator.store.store import Store
from workers.job_dir import JobDir

TRAJECTORY_ROWS = 12


def collect(
    store: Store,
    job_id: int,
    *,
    as_status: str | None = None,
    as_reason: str | None = None,
    now: float,
    home: str | None = None,
) -> Facts:
    """Collect what was measured of one job.

    Args:
        store: where the job is.
        job_id: the job.
        as_status: the status to report, where the decision is made but not yet stored.
        as_reason: its reason code.
        now: unix seconds.
        home: $LQ_HOME to name in the commands; None for the default one.

    Raises:
        NoSuchJob: the store has no such job.
    """
    job, lives = store.job(job_id), store.attempts(job_id)
    points, validations = store.points(job_id), store.validations(job_id)
    folder = read_folder(JobDir(Path(job.job_dir)))
    job_facts = _job_facts(job, as_status, as_reason, lives, home)
    end = _end(job_facts.status, job, now)
    self_tests = {number: _self_test(said) for number, said in store.self_tests(job_id).items()}
    attempts = _attempts(lives, store.points(job_id, superseded=True), self_tests, end)
    return Facts(
        job=job_facts,
        times=_times(job_facts.status, job, attempts, now),
        settings=folder.settings,
        legs=folder.legs,
        progress=_progress(job, points, folder.legs, folder.data),
        train_loss=_train_loss(points),
        validation=_validation(validations),
        tests=tuple(_measurement(test) for test in store.validations(job_id, kind="test")),
        attempts=attempts,
        checkpoints=_checkpoints(store.checkpoints(job_id), Path(job.job_dir), validations),
        incidents=tuple(_incident(incident) for incident in store.incidents(job_id)),
        adapter=folder.adapter,
        data=folder.data,
        trajectory=_trajectory(points, validations, job.iteration),
        versions=folder.versions,
        host=folder.host,
        unread=folder.unread,
    )


def _job_facts(
    job: Job, as_status: str | None, as_reason: str | None, attempts: Sequence[Attempt], home: str | None
) -> JobFacts:
    # The stored detail belongs to the stored status; of a status to come, the last attempt's end tells most.
    detail = job.detail if as_status is None else (attempts[-1].detail if attempts else None)
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


def _progress(job: Job, points: Sequence[ProgressPoint], legs: Sequence[Leg], data: Sequence[DataFile]) -> Progress:
    # Of a course with several legs the batch size changes on the way; its rows are not iterations times batch.
    rows_seen = job.iteration * legs[0].batch_size if len(legs) == 1 else None
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
    return TrainLoss(
        first=losses[0] if losses else None,
        last=losses[-1] if losses else None,
        lowest=min(finite, key=lambda found: found.loss, default=None),
        reports=len(losses),
        not_finite=len(losses) - len(finite),
    )


def _validation(validations: Sequence[Validation]) -> ValidationFacts:
    measured = [_measurement(validation) for validation in validations]
    finite = [found for found in measured if math.isfinite(found.loss)]
    return ValidationFacts(
        base=next((found for found in measured if found.iteration == 0), None),
        best=min(finite, key=lambda found: found.loss, default=None),
        final=measured[-1] if measured else None,
        count=len(measured),
    )


def _measurement(validation: Validation) -> Measurement:
    return Measurement(
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


def _attempts(
    attempts: Sequence[Attempt], points: Sequence[ProgressPoint], self_tests: Mapping[int, SelfTest], end: float
) -> tuple[AttemptFacts, ...]:
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
                repeated_iterations=_repeated(came_to, attempt),
                catch_up_seconds=_catch_up(came_to, attempt, points),
                self_test=self_tests.get(attempt.number),
            )
        )
        before = attempt
        # An attempt that died while loading has no position of its own: the one before it still counts.
        came_to = attempt.last_iteration if attempt.last_iteration is not None else came_to
    return tuple(facts)


def _self_test(said: Mapping[str, Any]) -> SelfTest:
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


def _checkpoints(
    records: Sequence[CheckpointRecord], job_dir: Path, validations: Sequence[Validation]
) -> tuple[CheckpointFacts, ...]:
    losses = {validation.iteration: validation.loss for validation in validations}
    newest = {record.iteration: record for record in records}  # written again after a resume: one folder
    return tuple(
        CheckpointFacts(
            iteration=iteration,
            path=newest[iteration].path,
            size_bytes=newest[iteration].size_bytes,
            on_disk=(job_dir / newest[iteration].path).is_dir(),
            val_loss=losses.get(iteration),
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
