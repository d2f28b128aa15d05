"""From the series of a run to its findings. The rules of the verdict are in jobs/policies/verdict.py."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shlex
import statistics
from collections.abc import Iterator, Sequence

from jobs.loss.alarms import LossReport, ValidationLoss
from jobs.loss.detector import LossDetector, fold
from jobs.model.job import Attempt, Incident, ProgressPoint, Validation
from jobs.model.outcomes import Reason
from jobs.model.spec import JobSpec
from jobs.model.states import ENDED, Status
from jobs.policies import early_stop
from jobs.policies.after_loss_alarm import GUARD_REASONS
from jobs.policies.verdict import LAST_STRETCH, Difference, Evidence, Point, RequestedRun, Verdict, advice, judge
from orchestrator.report.analysis.bootstrap import Bootstrap, difference_by_errors
from orchestrator.report.analysis.phases import SPIKE, phases
from orchestrator.report.analysis.timeline import ROLLED_BACK, changes, guilty, happenings
from orchestrator.report.facts import Facts, Findings, Gain, Happening, Phase, Ruling

FEWEST_REPORTS = 8
"""Reports after the best validation that a trend of the train loss needs."""

NOTHING_FOUND = Findings(ruling=None, phases=(), happenings=(), changes=(), guilty=(), gains=())

_BY_ROWS = {Reason.SPIKE, Reason.DRIFT, Reason.NOT_FINITE}
"""Alarms that rows may have caused."""

_LOSS_GUARD = GUARD_REASONS | {Reason.DIVERGED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """The records of one job in the store."""

    points: Sequence[ProgressPoint]  # that led to the present weights, by iteration
    every: Sequence[ProgressPoint]  # superseded ones too, in the order of their arrival
    validations: Sequence[Validation]  # that led to the present weights
    tests: Sequence[Validation]
    attempts: Sequence[Attempt]
    incidents: Sequence[Incident]
    spec: JobSpec


class Comparison:
    """Validations of one run, which are compared row by row if the losses of their rows are known."""

    def __init__(self, validations: Sequence[Validation], supervised: Sequence[int] | None) -> None:
        """`supervised`: tokens of each validation row; None if the trainer did not report them."""
        self._rows: list[int] = []  # rows without a supervised token have no loss
        self._bootstrap: Bootstrap | None = None
        self._size = max((validation.examples for validation in validations), default=0)
        known = any(validation.row_losses and len(validation.row_losses) == self._size for validation in validations)
        if supervised is None or len(supervised) < self._size or not known:
            return
        self._rows = [row for row in range(self._size) if supervised[row] > 0]
        if len(self._rows) > 1:
            self._bootstrap = Bootstrap([supervised[row] for row in self._rows])

    def interval(self, validation: Validation) -> tuple[float, float] | None:
        """Return the 95 % interval of a loss, from its rows or its standard error; None if neither is known."""
        rows = self._row_losses(validation)
        if self._bootstrap is not None and rows is not None:
            return self._bootstrap.interval(rows)
        if validation.standard_error is None or not math.isfinite(validation.loss):
            return None
        found = difference_by_errors(validation.loss, validation.standard_error, 0.0, validation.examples)
        return found.low, found.high

    def differences(self, validations: Sequence[Validation], reference: Validation | None) -> list[Difference | None]:
        """Return each loss minus that of the reference; None if neither rows nor standard errors are known."""
        if reference is None:
            return [None] * len(validations)
        base, rows = self._row_losses(reference), [self._row_losses(validation) for validation in validations]
        places = [place for place, losses in enumerate(rows) if losses is not None]
        paired: dict[int, Difference] = {}
        if self._bootstrap is not None and base is not None and places:
            known = [losses for losses in rows if losses is not None]
            paired = dict(zip(places, self._bootstrap.differences(known, base), strict=True))
        return [paired.get(place) or _unpaired(one, reference) for place, one in enumerate(validations)]

    def _row_losses(self, validation: Validation) -> list[float] | None:
        losses = validation.row_losses
        if self._bootstrap is None or losses is None or len(losses) != self._size:
            return None
        kept = [losses[row] for row in self._rows]
        return kept if math.isfinite(sum(kept)) else None


def _unpaired(validation: Validation, reference: Validation) -> Difference | None:
    error, other = validation.standard_error, reference.standard_error
    if error is None or other is None or not math.isfinite(validation.loss):
        return None
    return difference_by_errors(validation.loss - reference.loss, error, other, validation.examples)


def conclude(facts: Facts, series: Series, validated: Comparison, tested: Comparison) -> Findings:
    """Apply the rules to what was measured."""
    guard, detector = _loss_guard_end(facts), _detector(series)
    observed = _evidence(facts, series, validated, detector, guard)
    verdict = judge(observed) if facts.job.status in ENDED and observed.iterations else None
    found = phases(series.points, verdict, stuck_from=observed.stuck_from)
    entries = happenings(series.incidents, series.attempts, series.every, found)
    if guard is not None and not any(entry.code == facts.job.reason for entry in entries):
        entries = (*entries, _gave_up(facts, guard))
    return Findings(
        ruling=None if verdict is None else _ruling(facts, series, verdict, observed, found),
        phases=found,
        happenings=entries,
        changes=changes(facts.stages),
        guilty=guilty(series.incidents),
        gains=tuple(_gains(series, validated, tested)),
    )


def _detector(series: Series) -> LossDetector:
    """Return the loss detector after the reports that led to the present weights."""
    spec = series.spec
    complete = (p for p in series.points if p.iteration % spec.steps_per_report == 0 or p.iteration == spec.iters)
    reports = [LossReport.of(point) for point in complete]
    measured = [ValidationLoss.of(validation) for validation in series.validations]
    return fold(reports, measured, warm_up=spec.warmup_iterations, steps_per_report=spec.steps_per_report)[0]


def _gains(series: Series, validated: Comparison, tested: Comparison) -> Iterator[Gain]:
    """Yield the gain of each set under the best weights by validation, or under the last ones."""
    best = early_stop.best(series.validations)
    for name, measured, comparison in (("validation", series.validations, validated), ("test", series.tests, tested)):
        before = next((one for one in measured if one.iteration == 0), None)
        later = [one for one in measured if one.iteration]
        if before is None or not later:
            continue
        after = next((one for one in later if best and one.iteration == best.iteration), later[-1])
        yield Gain(
            name=name,
            before=before.loss,
            after=after.loss,
            iteration=after.iteration,
            rows=after.examples,
            difference=comparison.differences([after], before)[0],
        )


def _loss_guard_end(facts: Facts) -> str | None:
    """Return why the loss guard ended the job; None if it did not."""
    job = facts.job
    if job.status is not Status.FAILED:
        return None
    crash_loop = job.reason == Reason.CRASH_LOOP and facts.attempts and facts.attempts[-1].reason in _LOSS_GUARD
    return (job.detail or str(job.reason)).rstrip(".") if job.reason in _LOSS_GUARD or crash_loop else None


def _gave_up(facts: Facts, why: str) -> Happening:
    return Happening(
        time=facts.times.ended_at,
        iteration=facts.progress.iterations_done,
        attempt=facts.attempts[-1].number if facts.attempts else None,
        code=str(facts.job.reason),
        what="The loss guard ended the run",
        evidence=why,
        action="the job failed",
        cost_iterations=None,
        cost_seconds=None,
        cost="",
        numbers={},
    )


def _ruling(facts: Facts, series: Series, verdict: Verdict, observed: Evidence, found: Sequence[Phase]) -> Ruling:
    home, codes = facts.job.home, {incident.code for incident in series.incidents}
    requested = RequestedRun(
        lq=f"LQ_HOME={shlex.quote(home)} lq" if home else "lq",
        job_id=facts.job.id,
        spec=series.spec,
        succeeded=facts.job.status is Status.SUCCEEDED,
        published=facts.adapter.best.iteration if facts.adapter.best else None,
        epochs=facts.progress.epochs,
        spiked=any(phase.name == SPIKE for phase in found) or not codes.isdisjoint(ROLLED_BACK),
        guilty=bool(guilty(series.incidents)) and not codes.isdisjoint(_BY_ROWS),
        lowest_factor=min((stage.learning_rate_factor for stage in facts.stages), default=1.0),
    )
    best, final, share = observed.best, observed.final, verdict.share_after_good
    trained = facts.times.trained_seconds
    return Ruling(
        verdict=verdict,
        advice=advice(verdict, observed, requested),
        seconds_after_good=None if share is None or trained is None else share * trained,
        final_minus_best=final.minus_best if final and best and final.iteration != best.iteration else None,
        train_after_best=observed.train_after_best,
    )


def _evidence(
    facts: Facts, series: Series, comparison: Comparison, detector: LossDetector, guarded: str | None
) -> Evidence:
    """Return the input of the verdict's rules."""
    validations, iterations = series.validations, facts.progress.iterations_done
    overlap = next((one for one in (facts.dataset.overlaps if facts.dataset else ()) if one.name == "valid"), None)
    best = early_stop.best(validations)
    gaps = comparison.differences(validations, best)
    unflagged = [point for point in series.points if not detector.reports.was_flagged(point.iteration)]
    train, level = (None, None) if best is None else trend(unflagged, after=best.iteration)
    return Evidence(
        guarded=guarded,
        stuck_from=detector.stuck_from,
        iterations=iterations,
        points=[
            Point(
                iteration=validation.iteration,
                loss=validation.loss,
                standard_error=validation.standard_error,
                rows=validation.examples,
                minus_best=gap,
            )
            for validation, gap in zip(validations, gaps, strict=True)
        ],
        last_stretch=_last_stretch(validations, comparison, iterations),
        train_after_best=train,
        train_end=level,
        flagged=detector.in_doubt,
        also_trained=overlap.measured if overlap else None,
        valid_rows=overlap.rows if overlap else None,
    )


def _last_stretch(validations: Sequence[Validation], comparison: Comparison, iterations: int) -> Difference | None:
    """Return the last validation minus the last one before the last stretch of the run."""
    before = [validation for validation in validations[:-1] if validation.iteration <= LAST_STRETCH * iterations]
    return comparison.differences(validations[-1:], before[-1])[0] if before else None


def trend(points: Sequence[ProgressPoint], *, after: int) -> tuple[Difference | None, float | None]:
    """Return the mean train loss of the later half of the reports after `after`, minus that of the earlier half.

    The second value is the mean of the later half. Both are None if there are fewer than FEWEST_REPORTS.
    """
    losses = [
        point.train_loss
        for before, point in itertools.pairwise(points)
        if before.iteration >= after and math.isfinite(point.train_loss)
    ]
    if len(losses) < FEWEST_REPORTS:
        return None, None
    early, late = losses[: len(losses) // 2], losses[len(losses) // 2 :]
    error, other = (math.sqrt(statistics.variance(half) / len(half)) for half in (late, early))
    level = statistics.fmean(late)
    return difference_by_errors(level - statistics.fmean(early), error, other, len(losses)), level
