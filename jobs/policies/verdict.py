"""The verdict on a run that has ended (policies.md 7). Pure: measured differences in, one of six codes out.

INCONCLUSIVE stands last in the list of policies.md and is asked second here: it says that the validation set cannot
carry a claim, and a claim that cannot be carried does not hold. Only DIVERGED needs no validation set. What the other
rules would have said is kept beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from enum import StrEnum

from jobs.model.text import counted, percent

FEWEST_ROWS = 50
FEWEST_VALIDATIONS = 5
MOST_ALSO_TRAINED = 0.01
EARLY = 0.5
"""Before this share of the iterations a checkpoint as good as the best makes the rest a waste."""

LAST_STRETCH = 0.8
"""Whether a run was still learning is asked from this share of its iterations on."""


class Code(StrEnum):
    """What became of the run, as far as numbers can tell."""

    DIVERGED = "DIVERGED"
    OVERFIT = "OVERFIT"
    WASTED = "WASTED"
    UNDERTRAINED = "UNDERTRAINED"
    OK = "OK"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """One mean loss minus another, in nats per token."""

    value: float
    standard_error: float
    low: float  # of the 95 % interval
    high: float
    rows: int  # that were compared; reports, where train losses are
    paired: bool  # row by row; False where only the standard errors of the two were known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A validation, and so a checkpoint."""

    iteration: int
    loss: float  # nats per token
    standard_error: float | None  # by row
    rows: int
    minus_best: Difference | None  # its loss minus the best one's; None where it cannot be said


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the rules look at."""

    guarded: str | None  # why the loss guard ended the run; None where it did not
    iterations: int  # completed
    points: Sequence[Point]  # by iteration
    last_stretch: Difference | None  # the last validation minus the one at LAST_STRETCH of the run
    train_after_best: Difference | None  # reports after the best: mean of their second half minus mean of the first
    also_trained: int | None  # validation rows that are training rows too; None where it was not looked at

    @property
    def best(self) -> Point | None:
        """The lowest finite loss, the earliest of equals."""
        return best_of(self.points)

    @property
    def final(self) -> Point | None:
        """The last validation."""
        return self.points[-1] if self.points else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the rules say, with the numbers that decided."""

    code: Code
    because: str  # one sentence with the numbers
    otherwise: Code | None = None  # of an INCONCLUSIVE: what the other rules would say
    otherwise_because: str | None = None
    best: int | None = None  # iteration of the best validation
    good_from: int | None = None  # iteration of the first checkpoint within one standard error of it
    share_after_best: float | None = None  # of the iterations
    share_after_good: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestedRun:
    """What was asked for, as far as advice for the next run needs it."""

    iters: int
    learning_rate: float
    steps_per_eval: int
    epochs: float | None  # how often the run saw its rows; None where it was not measured
    spiked: bool  # the loss spiked on the way
    scheduled: bool  # the learning rate follows a schedule, which has a length of its own


def best_of(points: Sequence[Point]) -> Point | None:
    """Return the point of the lowest finite loss, the earliest of equals."""
    return min((one for one in points if math.isfinite(one.loss)), key=lambda one: one.loss, default=None)


def judge(found: Evidence) -> Verdict:
    """Return the first verdict that holds.

    Args:
        found: of a run that has ended.
    """
    final = found.final
    if found.guarded is not None:
        return _verdict(Code.DIVERGED, found, f"The loss guard ended the run: {found.guarded}.")
    if final is not None and not math.isfinite(final.loss):
        text = f"The last validation, at iteration {final.iteration:,}, is not a finite number."
        return _verdict(Code.DIVERGED, found, text)
    missing = _missing(found)
    code, because = _measured(found)
    if not missing:
        return _verdict(code, found, because)
    held = _verdict(Code.INCONCLUSIVE, found, f"{'; '.join(missing)}: too little to tell more.")
    if found.best is None:
        return held
    return dataclasses.replace(held, otherwise=code, otherwise_because=because)


def _missing(found: Evidence) -> list[str]:
    """Return what the validation set lacks to carry a claim."""
    final = found.final
    if final is None:
        return ["No validation was measured"]
    said = []
    if final.rows < FEWEST_ROWS:
        said.append(f"The validation set has {counted(final.rows, 'row')}, fewer than {FEWEST_ROWS}")
    if len(found.points) < FEWEST_VALIDATIONS:
        said.append(f"{counted(len(found.points), 'validation')}, fewer than {FEWEST_VALIDATIONS}")
    if found.also_trained is not None and found.also_trained > MOST_ALSO_TRAINED * final.rows:
        share = found.also_trained / final.rows
        said.append(
            f"{found.also_trained:,} of {final.rows:,} validation rows ({percent(share)}) were trained on as well"
        )
    return said


def _measured(found: Evidence) -> tuple[Code, str]:
    """Return the first of the rules that need a validation set."""
    best, final, good = found.best, found.final, first_good(found)
    if best is None or final is None:
        return Code.INCONCLUSIVE, "No validation was measured."
    end, falls = final.minus_best, found.train_after_best
    if end is not None and final is not best and end.low > 0 and falls is not None and falls.high < 0:
        text = (
            f"The last validation is above the best of iteration {best.iteration:,} by {interval(end)}, "
            f"while the train loss after it still changed by {interval(falls)}."
        )
        return Code.OVERFIT, text
    if good is not None and good.iteration < EARLY * found.iterations:
        return Code.WASTED, _wasted(found, good, best)
    fell = found.last_stretch
    if best is final and fell is not None and fell.high < 0:
        text = (
            f"The last validation is the best, and over the last {percent(1 - LAST_STRETCH)} of the run "
            f"it still changed by {interval(fell)}."
        )
        return Code.UNDERTRAINED, text
    text = (
        f"The best validation is that of iteration {best.iteration:,} of {found.iterations:,}; no checkpoint of the "
        "first half is within one standard error of it."
    )
    return Code.OK, text + (f" The last one is above it by {interval(end)}." if end and final is not best else "")


def _wasted(found: Evidence, good: Point, best: Point) -> str:
    share = f"{percent(1 - good.iteration / found.iterations)} of the iterations came after it"
    if good is best:
        return f"The best validation is that of iteration {best.iteration:,} ({best.loss:.4f}); {share}."
    name = "The model before training" if good.iteration == 0 else f"The checkpoint of iteration {good.iteration:,}"
    gap = "" if good.minus_best is None else f"; the difference is {interval(good.minus_best)}"
    return (
        f"{name} ({good.loss:.4f}) is within one standard error of the best, that of iteration "
        f"{best.iteration:,} ({best.loss:.4f}){gap}; {share}."
    )


def first_good(found: Evidence) -> Point | None:
    """Return the first checkpoint within one standard error of the best.

    The error is that of the difference, row by row; where rows are unknown that of the best (the one-standard-error
    rule: Breiman et al., Classification and Regression Trees, 1984, 3.4.3).
    """
    best = found.best
    if best is None:
        return None
    for point in found.points:
        gap = point.minus_best
        error = gap.standard_error if gap is not None and gap.paired else best.standard_error
        if point is best or (error is not None and point.loss - best.loss <= error):
            return point
    return best


def _verdict(code: Code, found: Evidence, because: str) -> Verdict:
    best, good, whole = found.best, first_good(found), found.iterations
    return Verdict(
        code=code,
        because=because,
        best=best.iteration if best else None,
        good_from=good.iteration if good else None,
        share_after_best=1 - best.iteration / whole if best and whole else None,
        share_after_good=1 - good.iteration / whole if good and whole else None,
    )


def interval(found: Difference) -> str:
    """Return a difference in words: +0.0020 (95 % interval -0.0105 to +0.0145)."""
    return f"{found.value:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f})"


def advice(verdict: Verdict, found: Evidence, plan: RequestedRun) -> str:
    """Return one sentence for the next run, which follows from the verdict alone.

    Args:
        verdict: what `judge` returned.
        found: what it looked at.
        plan: what was asked for.
    """
    every = plan.steps_per_eval
    half = "half the rates of `lr_schedule`" if plan.scheduled else f"`learning_rate: {plan.learning_rate / 2:g}`"
    schedule = ", with the length of `lr_schedule` changed alike" if plan.scheduled else ""
    if verdict.code is Code.DIVERGED:
        return f"Try {half} with `lq: {{grad_clip: 1.0}}`, and look at the rows the incidents name."
    if verdict.code is Code.OVERFIT and verdict.best is not None:
        seen = "" if plan.epochs is None or not found.iterations else _epochs_at(plan, verdict.best, found)
        return f"Stop at `iters: {_whole_evals(verdict.best, every)}`{seen}{schedule}, or add rows."
    if verdict.code is Code.WASTED and verdict.good_from == 0:
        return "Nothing was gained over the model before training: look at the data, then try a larger learning rate."
    if verdict.code is Code.WASTED and verdict.good_from is not None:
        slower = f" and {half}, because the loss spiked" if plan.spiked else ""
        shorter = f"`iters: {_whole_evals(verdict.good_from, every)}`{schedule}"
        return (
            f"Try {shorter}{slower}, or let `lq: {{early_stop: {{min_delta: 1se}}}}` end it; to get further, add rows."
        )
    if verdict.code is Code.UNDERTRAINED:
        longer = f"`iters: {2 * plan.iters}`{schedule}"
        return f"Go on: {longer}, or a new job whose `resume_adapter_file` is this adapter."
    if verdict.code is Code.INCONCLUSIVE:
        return _for_evidence(found, plan)
    return "These numbers ask for no change."


def _epochs_at(plan: RequestedRun, iteration: int, found: Evidence) -> str:
    assert plan.epochs is not None
    return f" (there each row had been seen {plan.epochs * iteration / found.iterations:.3g} times)"


def _for_evidence(found: Evidence, plan: RequestedRun) -> str:
    final = found.final
    wants = []
    if final is None or final.rows < FEWEST_ROWS:
        wants.append(f"hold back at least {FEWEST_ROWS} rows in valid.jsonl")
    if final is not None and found.also_trained and found.also_trained > MOST_ALSO_TRAINED * final.rows:
        wants.append("take the rows of valid.jsonl out of train.jsonl")
    if len(found.points) < FEWEST_VALIDATIONS:
        wants.append(f"validate more often, with `steps_per_eval: {max(1, plan.iters // 10)}`")
    text = " and ".join(wants)
    return f"{text[:1].upper()}{text[1:]}."


def _whole_evals(iteration: int, every: int) -> int:
    """Round up to a multiple of the iterations between two validations."""
    return max(1, math.ceil(iteration / every)) * every
