"""Applies the rules of phases.py, timeline.py and jobs/policies/verdict.py to facts and series."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from jobs.model.job import Attempt, Incident, ProgressPoint, Validation
from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, Status
from jobs.policies import early_stop
from jobs.policies.verdict import Evidence, RequestedRun, Verdict, advice, judge
from orchestrator.report.evidence import Comparison, evidence
from orchestrator.report.facts import Facts
from orchestrator.report.findings import Findings, Gain, Happening, Phase, Ruling
from orchestrator.report.phases import SPIKE, phases
from orchestrator.report.timeline import ROLLED_BACK, changes, guilty, happenings

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
