"""The verdict on a run (docs/explanation/policies.md, section 7): measured differences in, one of six codes out.

INCONCLUSIVE is checked before the rules that need a validation set, because it means that the set is too small for a
claim. The result of the other rules is kept as `otherwise`. Only DIVERGED needs no validation set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from enum import StrEnum

from jobs.model.text import counted, percent

FEWEST_ROWS = 50
FEWEST_VALIDATIONS = 5
MAX_ALSO_TRAINED = 0.01
EARLY = 0.5
"""If a checkpoint before this share of the iterations is as good as the best, the rest was wasted."""

LAST_STRETCH = 0.8
"""The stretch of the run, from this share of its iterations, that shows whether it still improved."""


class Code(StrEnum):
    """The verdict on a run."""

    DIVERGED = "DIVERGED"
    OVERFIT = "OVERFIT"
    WASTED = "WASTED"
    UNDERTRAINED = "UNDERTRAINED"
    OK = "OK"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two mean losses, in nats per token."""

    value: float  # difference in nats per token; positive if the loss is higher than the reference
    standard_error: float  # standard error of the difference
    low: float  # of the 95 % interval
    high: float  # upper end of the 95 % interval
    rows: int  # compared rows, or reports for train losses
    paired: bool  # row by row; False if only the standard errors of the two losses were known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A validation and its checkpoint."""

    iteration: int
    loss: float  # nats per token
    standard_error: float | None  # by row
    rows: int
    minus_best: Difference | None  # its loss minus the best loss; None if unknown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements that the rules use."""

    guarded: str | None  # why the loss guard ended the run; None if it did not
    iterations: int  # completed
    points: Sequence[Point]  # by iteration
    last_stretch: Difference | None  # the last validation minus the one at LAST_STRETCH of the run
    train_after_best: Difference | None  # reports after the best: mean of the second half minus mean of the first half
    also_trained: int | None  # validation rows that are also training rows; None if not checked

    @property
    def best(self) -> Point | None:
        """The first point with the lowest finite loss."""
        return best_of(self.points)

    @property
    def final(self) -> Point | None:
        """The last validation."""
        return self.points[-1] if self.points else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict, with the numbers that decided."""

    code: Code
    because: str  # one sentence with the numbers
    otherwise: Code | None = None  # for INCONCLUSIVE: the verdict of the other rules
    otherwise_because: str | None = None  # reason of the other verdict
    best: int | None = None  # iteration of the best validation
    good_from: int | None = None  # iteration of the first checkpoint within one standard error of the best
    share_after_best: float | None = None  # of the iterations
    share_after_good: float | None = None  # share of the iterations after that checkpoint, 0 to 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestedRun:
    """The settings that the advice for the next run depends on."""

    iters: int
    learning_rate: float
    steps_per_eval: int
    epochs: float | None  # number of passes over the rows; None if unknown
    spiked: bool  # the loss spiked during the run
    scheduled: bool  # the learning rate follows a schedule, which has its own length


def best_of(points: Sequence[Point]) -> Point | None:
    """Return the first point with the lowest finite loss."""
    return min((point for point in points if math.isfinite(point.loss)), key=lambda point: point.loss, default=None)


def judge(evidence: Evidence) -> Verdict:
    """Return the first verdict whose rule applies."""
    final = evidence.final
    if evidence.guarded is not None:
        return _verdict(Code.DIVERGED, evidence, f"The loss guard ended the run: {evidence.guarded}.")
    if final is not None and not math.isfinite(final.loss):
        text = f"The last validation, at iteration {final.iteration:,}, is not a finite number."
        return _verdict(Code.DIVERGED, evidence, text)
    missing = _missing(evidence)
    code, because = _measured(evidence)
    if not missing:
        return _verdict(code, evidence, because)
    verdict = _verdict(Code.INCONCLUSIVE, evidence, f"{'; '.join(missing)}: not enough for a verdict.")
    if evidence.best is None:
        return verdict
    return dataclasses.replace(verdict, otherwise=code, otherwise_because=because)


def _missing(evidence: Evidence) -> list[str]:
    """Return what the validation set lacks for a claim."""
    final = evidence.final
    if final is None:
        return ["No validation was measured"]
    missing = []
    if final.rows < FEWEST_ROWS:
        missing.append(f"The validation set has {counted(final.rows, 'row')}, fewer than {FEWEST_ROWS}")
    if len(evidence.points) < FEWEST_VALIDATIONS:
        missing.append(f"{counted(len(evidence.points), 'validation')}, fewer than {FEWEST_VALIDATIONS}")
    if evidence.also_trained is not None and evidence.also_trained > MAX_ALSO_TRAINED * final.rows:
        share = percent(evidence.also_trained / final.rows)
        missing.append(f"{evidence.also_trained:,} of {final.rows:,} validation rows ({share}) are also training rows")
    return missing


def _measured(evidence: Evidence) -> tuple[Code, str]:
    """Apply the rules that need a validation set."""
    best, final, good = evidence.best, evidence.final, first_good(evidence)
    if best is None or final is None:
        return Code.INCONCLUSIVE, "No validation was measured."
    end, train = final.minus_best, evidence.train_after_best
    if end is not None and final is not best and end.low > 0 and train is not None and train.high < 0:
        text = (
            f"The last validation is above the best of iteration {best.iteration:,} by {interval(end)}, "
            f"while the train loss after it still changed by {interval(train)}."
        )
        return Code.OVERFIT, text
    if good is not None and good.iteration < EARLY * evidence.iterations:
        return Code.WASTED, _wasted(evidence, good, best)
    stretch = evidence.last_stretch
    if best is final and stretch is not None and stretch.high < 0:
        text = (
            f"The last validation is the best, and over the last {percent(1 - LAST_STRETCH)} of the run "
            f"it still changed by {interval(stretch)}."
        )
        return Code.UNDERTRAINED, text
    text = (
        f"The best validation is at iteration {best.iteration:,} of {evidence.iterations:,}; no checkpoint of the "
        "first half is within one standard error of it."
    )
    return Code.OK, text + (
        f" The last validation is above it by {interval(end)}." if end and final is not best else ""
    )


def _wasted(evidence: Evidence, good: Point, best: Point) -> str:
    share = f"{percent(1 - good.iteration / evidence.iterations)} of the iterations came after it"
    if good is best:
        return f"The best validation is at iteration {best.iteration:,} ({best.loss:.4f}); {share}."
    name = "The model before training" if good.iteration == 0 else f"The checkpoint of iteration {good.iteration:,}"
    gap = "" if good.minus_best is None else f"; the difference is {interval(good.minus_best)}"
    return (
        f"{name} ({good.loss:.4f}) is within one standard error of the best, at iteration "
        f"{best.iteration:,} ({best.loss:.4f}){gap}; {share}."
    )


def first_good(evidence: Evidence) -> Point | None:
    """Return the first checkpoint within one standard error of the best.

    The error is that of the paired difference, or that of the best if the rows are unknown (the one-standard-error
    rule: Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).
    """
    best = evidence.best
    if best is None:
        return None
    for point in evidence.points:
        gap = point.minus_best
        error = gap.standard_error if gap is not None and gap.paired else best.standard_error
        if point is best or (error is not None and point.loss - best.loss <= error):
            return point
    return best


def _verdict(code: Code, evidence: Evidence, because: str) -> Verdict:
    best, good, whole = evidence.best, first_good(evidence), evidence.iterations
    return Verdict(
        code=code,
        because=because,
        best=best.iteration if best else None,
        good_from=good.iteration if good else None,
        share_after_best=1 - best.iteration / whole if best and whole else None,
        share_after_good=1 - good.iteration / whole if good and whole else None,
    )


def interval(difference: Difference) -> str:
    """Return a difference as text: +0.0020 (95 % interval -0.0105 to +0.0145)."""
    return f"{difference.value:+.4f} (95 % interval {difference.low:+.4f} to {difference.high:+.4f})"


def advice(verdict: Verdict, evidence: Evidence, run: RequestedRun) -> str:
    """Return one sentence for the next run, derived from the verdict alone."""
    half = "half the rates of `lr_schedule`" if run.scheduled else f"`learning_rate: {run.learning_rate / 2:g}`"
    schedule = " and the same change of the length of `lr_schedule`" if run.scheduled else ""
    if verdict.code is Code.DIVERGED:
        return f"Try {half} with `lq: {{grad_clip: 1.0}}`, and check the rows that the incidents name."
    if verdict.code is Code.OVERFIT and verdict.best is not None:
        epochs = "" if run.epochs is None or not evidence.iterations else _epochs_at(run, verdict.best, evidence)
        return f"Stop at {_iters(verdict.best, run)}{epochs}{schedule}, or add rows."
    if verdict.code is Code.WASTED and verdict.good_from == 0:
        return "Training brought no improvement: check the data, then try a larger learning rate."
    if verdict.code is Code.WASTED and verdict.good_from is not None:
        slower = f" and {half}, because the loss spiked" if run.spiked else ""
        shorter = f"{_iters(verdict.good_from, run)}{schedule}"
        return (
            f"Try {shorter}{slower}, or end the run with `lq: {{early_stop: {{min_delta: 1se}}}}`; to improve further, "
            "add rows."
        )
    if verdict.code is Code.UNDERTRAINED:
        longer = f"`iters: {2 * run.iters}`{schedule}"
        return f"Continue: {longer}, or a new job with this adapter as `resume_adapter_file`."
    if verdict.code is Code.INCONCLUSIVE:
        return _for_evidence(evidence, run)
    return "These numbers suggest no change."


def _epochs_at(run: RequestedRun, iteration: int, evidence: Evidence) -> str:
    assert run.epochs is not None
    return f" ({run.epochs * iteration / evidence.iterations:.3g} epochs)"


def _for_evidence(evidence: Evidence, run: RequestedRun) -> str:
    final = evidence.final
    steps = []
    if final is None or final.rows < FEWEST_ROWS:
        steps.append(f"put at least {FEWEST_ROWS} rows into valid.jsonl")
    if final is not None and evidence.also_trained and evidence.also_trained > MAX_ALSO_TRAINED * final.rows:
        steps.append("remove the rows of valid.jsonl from train.jsonl")
    if len(evidence.points) < FEWEST_VALIDATIONS:
        steps.append(f"validate more often, with `steps_per_eval: {max(1, run.iters // 10)}`")
    text = " and ".join(steps)
    return f"{text[:1].upper()}{text[1:]}."


def _iters(iteration: int, run: RequestedRun) -> str:
    """Return the setting of `iters`, rounded up to a multiple of the iterations between two validations."""
    every = run.steps_per_eval
    return f"`iters: {max(1, math.ceil(iteration / every)) * every}`"
