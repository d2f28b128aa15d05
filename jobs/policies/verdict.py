"""The verdict on a run (docs/explanation/policies.md, section 7): measured differences in, one of seven codes out.

INCONCLUSIVE is checked before the rules that need a validation set, because it means that the set is too small for a
claim. The result of the other rules is kept as `otherwise`. Only DIVERGED needs no validation set.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from jobs.loss.validations import MEMORIZED
from jobs.model.text import counted, percent

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

FEWEST_ROWS = 50
FEWEST_VALIDATIONS = 5
MAX_ALSO_TRAINED = 0.01
EARLY = 0.5
"""If a checkpoint before this share of the iterations is as good as the best, the rest was wasted."""

LAST_STRETCH = 0.8
"""The stretch of the run, from this share of its iterations, that shows whether it still improved."""


HARDLY = 0.02
"""A run that improved the validation loss by less than this share of it needs a larger learning rate, not more time."""


class Code(StrEnum):
    """The verdict on a run."""

    DIVERGED = "DIVERGED"
    OVERFIT = "OVERFIT"
    REGRESSED = "REGRESSED"
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
    stuck_from: int | None  # iteration since which every gradient is 0; None if the run learns
    iterations: int  # completed
    points: Sequence[Point]  # by iteration
    last_stretch: Difference | None  # the last validation minus the one at LAST_STRETCH of the run
    train_after_best: Difference | None  # reports after the best: mean of the second half minus mean of the first half
    train_end: float | None  # the mean of that second half
    flagged: bool  # the loss guard flags reports right before the last validation
    also_trained: int | None  # measured validation rows that are also training rows; None if not checked
    valid_rows: int | None  # rows of valid.jsonl, of which a validation may measure fewer; None if unknown

    @property
    def best(self) -> Point | None:
        """The first point with the lowest finite loss."""
        return best_of(self.points)

    @property
    def final(self) -> Point | None:
        """The last validation."""
        return self.points[-1] if self.points else None

    @property
    def limited(self) -> bool:
        """Whether `val_batches` leaves out rows of the validation set."""
        return self.final is not None and self.valid_rows is not None and self.final.rows < self.valid_rows


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
    """What the advice for the next run depends on, besides the verdict."""

    lq: str  # how the user calls lq for this home
    job_id: int
    spec: JobSpec
    succeeded: bool
    published: int | None  # iteration of the job's adapter
    epochs: float | None  # number of passes over the rows; None if unknown
    spiked: bool  # the loss spiked during the run
    guilty: bool  # the incidents name rows that may have caused an alarm
    lowest_factor: float = 1.0  # of the learning rate, by rollbacks


def best_of(points: Sequence[Point]) -> Point | None:
    """Return the first point with the lowest finite loss."""
    return min((point for point in points if math.isfinite(point.loss)), key=lambda point: point.loss, default=None)


def judge(evidence: Evidence) -> Verdict:
    """Return the first verdict whose rule applies."""
    final = evidence.final
    if evidence.guarded is not None:
        return _verdict(Code.DIVERGED, evidence, f"The loss guard ended the run: {evidence.guarded}.")
    if evidence.stuck_from is not None:
        text = f"Every gradient since iteration {evidence.stuck_from:,} is 0: the model no longer learns."
        return _verdict(Code.DIVERGED, evidence, text)
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
    """Return what the validations lack for a claim."""
    final = evidence.final
    if final is None:
        return ["No validation was measured"]
    missing = []
    if final.rows < FEWEST_ROWS:
        has = f"The validation set has {counted(final.rows, 'row')}"
        if evidence.limited:
            has = f"A validation measures {final.rows:,} of {evidence.valid_rows:,} rows (val_batches)"
        missing.append(f"{has}, fewer than {FEWEST_ROWS}")
    if len(evidence.points) < FEWEST_VALIDATIONS:
        missing.append(f"{counted(len(evidence.points), 'validation')}, fewer than {FEWEST_VALIDATIONS}")
    if _shared(evidence, final):
        share = percent(evidence.also_trained / final.rows) if evidence.also_trained else ""
        rows = f"{evidence.also_trained:,} of {final.rows:,} {'measured ' if evidence.limited else ''}validation rows"
        missing.append(f"{rows} ({share}) are also training rows")
    return missing


def _shared(evidence: Evidence, final: Point) -> bool:
    return evidence.also_trained is not None and evidence.also_trained > MAX_ALSO_TRAINED * final.rows


def _measured(evidence: Evidence) -> tuple[Code, str]:
    """Apply the rules that need a validation set."""
    best, final, good = evidence.best, evidence.final, first_good(evidence)
    if best is None or final is None:
        return Code.INCONCLUSIVE, "No validation was measured."
    end = final.minus_best
    if end is not None and final is not best and end.low > 0:
        return _worse_end(evidence, best, end)
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


def _worse_end(evidence: Evidence, best: Point, end: Difference) -> tuple[Code, str]:
    """Return OVERFIT if the train loss after the best falls or is memorized, and REGRESSED otherwise."""
    train, level = evidence.train_after_best, evidence.train_end
    place = f"the best, of iteration {best.iteration:,}," if best.iteration else "the model before training"
    text = f"The last validation is above {place} by {interval(end)}"
    if train is None or level is None:
        return Code.REGRESSED, f"{text}; too few train reports follow it to say whether the train loss fell."
    if evidence.flagged:
        return Code.REGRESSED, f"{text}, and the loss guard flags the train loss at the end."
    if train.high < 0:
        return Code.OVERFIT, f"{text}, while the train loss after it still fell, by {interval(train)}."
    if train.low <= 0 and level < MEMORIZED * best.loss:
        return Code.OVERFIT, f"{text}, while the train loss stayed at {level:.4f}, far below it."
    how = "rose" if train.low > 0 else "did not fall"
    return Code.REGRESSED, f"{text}, and the train loss after it {how}: it changed by {interval(train)}."


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
    """Return the advice for the next run, derived from the verdict alone, with a command where settings change."""
    match verdict.code:
        case Code.DIVERGED:
            rows = ", and check the rows that the incidents name" if run.guilty else ""
            return f"Lower the learning rate: {_retry(run, *_rates(run, 0.5), 'lq.grad_clip=1.0')}{rows}."
        case Code.REGRESSED:
            return f"Lower the learning rate: {_retry(run, *_rates(run, 0.5))}.{_kept(verdict, run)}"
        case Code.OVERFIT if verdict.best:
            epochs = f" ({run.epochs * verdict.best / evidence.iterations:.3g} epochs)" if run.epochs else ""
            again = _retry(run, *_length(run, verdict.best))
            return f"Add rows, or stop at the best{epochs}: {again}.{_kept(verdict, run)}"
        case Code.OVERFIT:
            return "Add rows: the model before training is better on the validation set."
        case Code.WASTED if not verdict.good_from:
            larger = _retry(run, *_rates(run, 10))
            return f"Training brought no improvement: check the data, then try a larger learning rate: {larger}."
        case Code.WASTED:
            assert verdict.good_from is not None
            slower = _rates(run, 0.5) if run.spiked else ()
            because = ", at half the rate, because the loss spiked" if run.spiked else ""
            again = _retry(run, *_length(run, verdict.good_from), *slower)
            return f"A shorter run is enough: {again}{because}; to improve further, add rows."
        case Code.UNDERTRAINED if not run.succeeded:
            return f"Continue: `{run.lq} retry {run.job_id}`."
        case Code.UNDERTRAINED if _hardly_changed(evidence):
            larger = _retry(run, *_rates(run, 10))
            return f"The whole run changed the loss by less than {HARDLY:.0%}: try a larger learning rate: {larger}."
        case Code.UNDERTRAINED:
            schedule = run.spec.lr_schedule
            if schedule is None or schedule.length is None:
                return f"Continue: `{run.lq} extend {run.job_id} --iters {2 * run.spec.iters}`."
            again = _retry(run, *_length(run, 2 * run.spec.iters))
            return f"Train longer: {again}; the schedule ends with this run, so a longer one starts again."
        case Code.INCONCLUSIVE:
            return _for_evidence(evidence, run)
        case Code.OK:
            return "These numbers suggest no change."


def _hardly_changed(evidence: Evidence) -> bool:
    """Return whether the best validation is about as high as the one before training."""
    first, best = evidence.points[0], evidence.best
    return best is not None and first.iteration == 0 and first.loss - best.loss < HARDLY * first.loss


def _retry(run: RequestedRun, *sets: str) -> str:
    """Return the command that trains the job again with other settings."""
    return " ".join([f"`{run.lq} retry {run.job_id}", *(f"--set {shlex.quote(item)}" for item in sets)]) + "`"


def _rates(run: RequestedRun, factor: float) -> Iterator[str]:
    """Yield the settings that multiply the learning rate, as low as the run went."""
    schedule, factor = run.spec.lr_schedule, factor * (run.lowest_factor if factor < 1 else 1)
    if schedule is None:
        yield f"learning_rate={factor * run.spec.learning_rate:.3g}"
        return
    for index, rate in enumerate(schedule.arguments[: 2 if schedule.name == "linear_schedule" else 1]):
        if rate:
            yield f"lr_schedule.arguments[{index}]={factor * rate:.3g}"
    if factor < 1 and schedule.name.endswith("_decay") and schedule.length is None and schedule.arguments[1] > 1:
        yield "lr_schedule.arguments[1]=1.0"  # a decay rate above 1 raises the learning rate


def _length(run: RequestedRun, iteration: int) -> Iterator[str]:
    """Yield the settings of a run to an iteration, rounded up to a validation, with its schedule stretched alike."""
    every, schedule = run.spec.steps_per_eval, run.spec.lr_schedule
    iters = max(1, math.ceil(iteration / every)) * every
    yield f"iters={iters}"
    if schedule is not None and schedule.length_argument is not None:
        length = schedule.arguments[schedule.length_argument] * iters / run.spec.iters
        yield f"lr_schedule.arguments[{schedule.length_argument}]={max(1, round(length))}"


def _kept(verdict: Verdict, run: RequestedRun) -> str:
    best = verdict.best is not None and run.published == verdict.best
    return f" The job's adapter is that of the best validation, at iteration {verdict.best:,}." if best else ""


def _for_evidence(evidence: Evidence, run: RequestedRun) -> str:
    """Return how the next run measures enough: what to change in the files, and the command."""
    final = evidence.final
    steps, sets = [], []
    if evidence.limited or (final is None and run.spec.val_batches == 0):
        sets.append("val_batches=-1")
    if (evidence.valid_rows or (final.rows if final else 0)) < FEWEST_ROWS:
        steps.append(f"put at least {FEWEST_ROWS} rows into valid.jsonl")
    if final is not None and _shared(evidence, final):
        steps.append("remove the rows of valid.jsonl from train.jsonl")
    if len(evidence.points) < FEWEST_VALIDATIONS:
        sets.append(f"steps_per_eval={max(1, run.spec.iters // 10)}")
    if sets:
        steps.append(f"train again with more validation: {_retry(run, *sets)}")
    text = ", then ".join(steps)
    return f"{text[:1].upper()}{text[1:]}."
