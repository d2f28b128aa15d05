"""From the series of a run to its verdict. The rules are in jobs/policies/verdict.py."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence

from jobs.model.job import Attempt, Incident, ProgressPoint, Validation
from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, Status
from jobs.policies import early_stop
from jobs.policies.verdict import LAST_STRETCH, Difference, Evidence, Point, RequestedRun, Verdict, advice, judge
from orchestrator.report.analysis.bootstrap import Bootstrap, by_errors
from orchestrator.report.analysis.phases import SPIKE, phases
from orchestrator.report.analysis.timeline import ROLLED_BACK, changes, guilty, happenings
from orchestrator.report.facts import Facts, Findings, Gain, Happening, Phase, Ruling

FEWEST_REPORTS = 8
"""After the best, below which nothing is said about the train loss there."""


class Comparison:
    """The validations of one run, ready to be compared row by row where their rows are known."""

    def __init__(self, validations: Sequence[Validation], learned: Sequence[int] | None) -> None:
        """Line the rows up.

        Args:
            validations: by iteration.
            learned: supervised tokens of each validation row; None where that was not told.
        """
        self._kept: list[int] = []  # rows with a token to learn; the others have no loss
        self._bootstrap: Bootstrap | None = None
        usual = max((one.examples for one in validations), default=0)
        rows = [one.row_losses for one in validations if one.row_losses and len(one.row_losses) == usual]
        if learned is None or len(learned) < usual or not rows:
            return
        self._kept = [row for row in range(usual) if learned[row] > 0]
        self._usual = usual
        if len(self._kept) > 1:
            self._bootstrap = Bootstrap([learned[row] for row in self._kept])

    def interval(self, one: Validation) -> tuple[float, float] | None:
        """Return the 95 % interval of a loss: by bootstrap, or by its standard error, or none."""
        rows = self._rows(one)
        if self._bootstrap is not None and rows is not None:
            return self._bootstrap.interval(rows)
        if one.standard_error is None or not math.isfinite(one.loss):
            return None
        apart = by_errors(one.loss, one.standard_error, 0.0, one.examples)
        return apart.low, apart.high

    def differences(self, ones: Sequence[Validation], reference: Validation | None) -> list[Difference | None]:
        """Return each loss minus that of the reference; None where neither rows nor errors are known."""
        if reference is None:
            return [None] * len(ones)
        base, rows = self._rows(reference), [self._rows(one) for one in ones]
        places = [place for place, row in enumerate(rows) if row is not None]
        paired: dict[int, Difference] = {}
        if self._bootstrap is not None and base is not None and places:
            known = [row for row in rows if row is not None]
            paired = dict(zip(places, self._bootstrap.differences(known, base), strict=True))
        return [paired.get(place) or _unpaired(one, reference) for place, one in enumerate(ones)]

    def _rows(self, one: Validation) -> list[float] | None:
        losses = one.row_losses
        if self._bootstrap is None or losses is None or len(losses) != self._usual:
            return None
        kept = [losses[row] for row in self._kept]
        return kept if math.isfinite(sum(kept)) else None


def _unpaired(one: Validation, reference: Validation) -> Difference | None:
    if one.standard_error is None or reference.standard_error is None or not math.isfinite(one.loss):
        return None
    return by_errors(one.loss - reference.loss, one.standard_error, reference.standard_error, one.examples)


def evidence(
    validations: Sequence[Validation],
    points: Sequence[ProgressPoint],
    comparison: Comparison,
    *,
    iterations: int,
    guarded: str | None,
    also_trained: int | None,
) -> Evidence:
    """Return what the rules look at.

    Args:
        validations: that count, by iteration.
        points: the progress reports that count, by iteration.
        comparison: of these validations.
        iterations: completed.
        guarded: why the loss guard ended the run; None where it did not.
        also_trained: validation rows that are training rows too; None where nobody looked.
    """
    best = early_stop.best(validations)
    gaps = comparison.differences(validations, best)
    return Evidence(
        guarded=guarded,
        iterations=iterations,
        points=[
            Point(
                iteration=one.iteration,
                loss=one.loss,
                standard_error=one.standard_error,
                rows=one.examples,
                minus_best=gap,
            )
            for one, gap in zip(validations, gaps, strict=True)
        ],
        last_stretch=_last_stretch(validations, comparison, iterations),
        train_after_best=None if best is None else trend(points, after=best.iteration),
        also_trained=also_trained,
    )


def _last_stretch(validations: Sequence[Validation], comparison: Comparison, iterations: int) -> Difference | None:
    """Return the last validation minus the last one before the last stretch of the run began."""
    before = [one for one in validations[:-1] if one.iteration <= LAST_STRETCH * iterations]
    if not before:
        return None
    return comparison.differences(validations[-1:], before[-1])[0]


def trend(points: Sequence[ProgressPoint], *, after: int) -> Difference | None:
    """Return how the train loss moved: the mean of the later half of the reports minus that of the earlier half.

    Args:
        points: by iteration.
        after: only reports that lie wholly after this iteration count.
    """
    losses = [
        point.train_loss
        for before, point in zip((None, *points[:-1]), points, strict=True)
        if before is not None and before.iteration >= after and math.isfinite(point.train_loss)
    ]
    if len(losses) < FEWEST_REPORTS:
        return None
    early, late = losses[: len(losses) // 2], losses[len(losses) // 2 :]
    one, other = (math.sqrt(statistics.variance(half) / len(half)) for half in (late, early))
    return by_errors(statistics.fmean(late) - statistics.fmean(early), one, other, len(losses))


NOTHING_FOUND = Findings(ruling=None, phases=(), happenings=(), changes=(), guilty=(), gains=())

_GUARDED = {Reason.DIVERGED, Reason.SPIKE, Reason.DRIFT, Reason.NOT_FINITE}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """What the store has of one job, in full."""

    points: Sequence[ProgressPoint]  # that lead to the present weights, by iteration
    every: Sequence[ProgressPoint]  # superseded ones too, in the order in which they came
    validations: Sequence[Validation]  # that lead to the present weights
    tests: Sequence[Validation]
    attempts: Sequence[Attempt]
    incidents: Sequence[Incident]


def conclude(facts: Facts, series: Series, compared: Comparison, tested: Comparison) -> Findings:
    """Ask the rules.

    Args:
        facts: what was measured; its findings are not looked at.
        series: of the same job.
        compared: the validations of the series.
        tested: its tests.
    """
    found = phases(series.points)
    happened = happenings(series.incidents, series.attempts, series.every, found)
    guarded = _guarded(facts)
    if guarded is not None and not any(one.code == facts.job.reason for one in happened):
        happened = (*happened, _gave_up(facts, guarded))
    return Findings(
        ruling=_ruling(facts, series, compared, found, guarded),
        phases=found,
        happenings=happened,
        changes=changes(facts.stages),
        guilty=guilty(series.incidents),
        gains=tuple(_gains(series, compared, tested)),
    )


def _gains(series: Series, compared: Comparison, tested: Comparison) -> Iterator[Gain]:
    """Yield what each set says of the weights to be used: the best by validation, else the last."""
    best = early_stop.best(series.validations)
    for name, ones, comparison in (("validation", series.validations, compared), ("test", series.tests, tested)):
        before = next((one for one in ones if one.iteration == 0), None)
        later = [one for one in ones if one.iteration]
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


def _guarded(facts: Facts) -> str | None:
    """Return why the loss guard ended the job, None where it did not."""
    job = facts.job
    if job.status is not Status.FAILED:
        return None
    ended = job.reason in _GUARDED
    in_a_row = job.reason == Reason.CRASH_LOOP and facts.attempts and facts.attempts[-1].reason in _GUARDED
    return (job.detail or str(job.reason)).rstrip(".") if ended or in_a_row else None


def _gave_up(facts: Facts, why: str) -> Happening:
    return Happening(
        time=facts.times.ended_at,
        iteration=facts.progress.iterations_done,
        attempt=facts.attempts[-1].number if facts.attempts else None,
        code=str(facts.job.reason),
        what="The loss guard ended the run.",
        evidence=f"{why}.",
        action="the job failed.",
        cost_iterations=None,
        cost_seconds=None,
        cost="",
        numbers={},
    )


def _ruling(
    facts: Facts, series: Series, compared: Comparison, found: Sequence[Phase], guarded: str | None
) -> Ruling | None:
    """Return the verdict on a run that has ended; None where there is no run, or no end."""
    done = facts.progress.iterations_done
    if facts.job.status not in ENDED or not done:
        return None
    overlaps = facts.dataset.overlaps if facts.dataset else ()
    seen = evidence(
        series.validations,
        series.points,
        compared,
        iterations=done,
        guarded=guarded,
        also_trained=next((one.exact for one in overlaps if one.name == "valid"), None),
    )
    verdict = judge(seen)
    best, final = seen.best, seen.final
    return Ruling(
        verdict=verdict,
        advice=_advice(facts, found, series, verdict, seen),
        seconds_after_good=_seconds_after(facts, verdict.share_after_good),
        final_minus_best=final.minus_best if final and best and final.iteration != best.iteration else None,
        train_after_best=seen.train_after_best,
    )


def _advice(facts: Facts, found: Sequence[Phase], series: Series, verdict: Verdict, seen: Evidence) -> str:
    settings = facts.settings
    if settings is None:
        return "config.yaml could not be read, so nothing is advised."
    spiked = any(one.name == SPIKE for one in found) or any(one.code in ROLLED_BACK for one in series.incidents)
    plan = RequestedRun(
        iters=facts.progress.iterations_asked,
        learning_rate=settings.learning_rate,
        steps_per_eval=settings.steps_per_eval,
        epochs=facts.progress.epochs,
        spiked=spiked,
        scheduled=settings.lr_schedule is not None,
    )
    return advice(verdict, seen, plan)


def _seconds_after(facts: Facts, share: float | None) -> float | None:
    trained = facts.times.trained_seconds
    return None if share is None or trained is None else share * trained
