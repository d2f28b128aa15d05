"""The loss detector (policies.md 1): told of reports and validations in turn, it says when a run is going wrong. Pure.

It is a fold over the reports that lead to the present weights. After a resume or a rollback it is folded again over
those, so there is no state to save. What is done about a finding is not decided here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from jobs.loss.alarms import Alarm, LossFinding, LossReport, ValidationLoss
from jobs.loss.history import SKIPPED_SHARE, STRETCH, Reports, Rise, Skips, Stretch, Usual
from jobs.loss.validations import Validations

BASE_REPORTS = 40  # the unflagged reports that say what is usual
LEAST_BASE = 15
FLAGS_SEEN, FLAGS_WANTED = 4, 3
EARLY_RATIO, EARLY_RISE, EARLY_REPORTS = 1.5, 1.0, 5
CLEARING = 2  # unflagged reports in a row that clear a suspicion
REARMING = 20  # unflagged reports in a row that end an episode


class LossDetector:
    """The state of the fold.

    SPIKE, DRIFT and NOT_FINITE are raised once an episode: a run that is left alone after one is a single incident, not
    thousands. An episode ends with 20 unflagged reports in a row. A SUSPECT is raised once until two unflagged reports
    clear it, OVERFITTING once a run.
    """

    def __init__(self, *, warm_up: int, steps_per_report: int) -> None:
        """Begin before the first report.

        Args:
            warm_up: iterations in which the loss is not compared with what was usual before.
            steps_per_report: iterations that a report covers.
        """
        self._warm_up = warm_up
        self._reports = Reports(steps_per_report)
        self._base: deque[float] = deque(maxlen=BASE_REPORTS)
        self._stretch = Stretch()
        self._validations = Validations()
        self._suspicion: int | None = None
        self._unsuspicious = 0  # unflagged reports in a row since it opened
        self._skips_told = False
        self._muted: set[Alarm] = set()  # what the present episode has had
        self._calm = 0  # unflagged reports in a row
        self._level = 0  # of them, those that were not risen above the lowest stretch either

    @property
    def suspicion(self) -> int | None:
        """The first flag of the SUSPECT that is open; None where none is."""
        return self._suspicion

    def was_flagged(self, iteration: int) -> bool:
        """Whether the report that covers this iteration was flagged; False where none covers it."""
        return self._reports.was_flagged(iteration)

    def calm_after(self, iteration: int) -> int:
        """Return how many reports in a row, directly after this iteration, were unflagged."""
        return self._reports.calm_after(iteration)

    def tolerance_met(self, validated: ValidationLoss) -> bool:
        """Whether a validation is no more than max(3 standard errors, 10 %, 0.05) beyond the best so far."""
        return math.isfinite(validated.loss) and not self._validations.is_beyond(validated)

    def report(self, report: LossReport) -> LossFinding | None:
        """Fold one report in; reports come in the order of their iterations, each once.

        Returns:
            What it gave away; of several things the gravest.
        """
        usual, rise = self._usual(report), None
        if not math.isfinite(report.loss):
            flagged = True
        elif usual is None:
            flagged = self._far_above_first(report)
            self._stretch.add(report.loss, len(self._reports), scale=None)
        else:
            flagged = usual.flagged
            rise = self._stretch.add(report.loss, len(self._reports), scale=usual.scale)
        self._remember(report, flagged=flagged, risen=rise is not None)
        suspect = self._watch(report, usual, flagged=flagged)
        if not math.isfinite(report.loss):
            return self._once(_not_finite(report, "loss"))
        spike = self._spike(report, usual) if usual else self._early_spike(report)
        drift = _drift(report, rise, self._reports.iterations[rise.begins]) if rise else None
        return self._once(spike) or self._once(drift) or self._once(suspect)

    def validation(self, validated: ValidationLoss) -> LossFinding | None:
        """Fold one validation in; it comes after the report that ends at its iteration.

        Returns:
            NOT_FINITE, or what two validations in a row beyond the best mean: SPIKE where the training loss rose too,
            else OVERFITTING.
        """
        if not math.isfinite(validated.loss):
            return self._once(_not_finite(validated, "validation loss"))
        return self._once(self._validations.add(validated, self._reports, in_episode=Alarm.SPIKE in self._muted))

    def _usual(self, report: LossReport) -> Usual | None:
        """Return what is usual here; None while the main rule cannot speak."""
        if len(self._base) < LEAST_BASE or report.iteration <= self._warm_up or not math.isfinite(report.loss):
            return None
        return Usual.of(report.loss, self._base)

    def _far_above_first(self, report: LossReport) -> bool:
        first = self._reports.first_loss
        return first is not None and report.loss > EARLY_RATIO * first + EARLY_RISE

    def _remember(self, report: LossReport, *, flagged: bool, risen: bool) -> None:
        self._reports.add(report, flagged=flagged)
        if not flagged:
            self._base.append(report.loss)
        self._calm = 0 if flagged else self._calm + 1
        self._level = 0 if flagged or risen else self._level + 1
        if self._calm >= REARMING:
            self._muted -= {Alarm.SPIKE, Alarm.NOT_FINITE, Alarm.SUSPECT}
        if self._level >= REARMING:  # a loss that stays up without a flag is still the same drift
            self._muted.discard(Alarm.DRIFT)

    def _once(self, finding: LossFinding | None) -> LossFinding | None:
        """Return a finding unless its episode has had it."""
        if finding is None or finding.alarm in self._muted:
            return None
        if finding.alarm in (Alarm.SPIKE, Alarm.DRIFT, Alarm.NOT_FINITE):
            self._muted |= {Alarm.SPIKE, Alarm.DRIFT, Alarm.SUSPECT}
            self._calm = self._level = 0
        if finding.alarm is Alarm.NOT_FINITE:
            self._muted.add(Alarm.NOT_FINITE)
        return finding

    def _watch(self, report: LossReport, usual: Usual | None, *, flagged: bool) -> LossFinding | None:
        """Clear the suspicion, or open one: on one enormous loss, or on many updates that were not applied."""
        self._unsuspicious = 0 if flagged else self._unsuspicious + 1
        if self._unsuspicious >= CLEARING:
            self._suspicion = None
        skips = self._reports.skips()
        self._skips_told = self._skips_told and skips is not None
        if self._suspicion is not None:
            return None
        if usual is not None and usual.suspect:
            suspect = _suspect(report, usual)
        elif skips is not None and not self._skips_told:
            suspect = _many_skipped(report, skips)
            self._skips_told = True
        else:
            return None
        self._suspicion, self._unsuspicious = suspect.first_flag, 0
        return suspect

    def _spike(self, report: LossReport, usual: Usual) -> LossFinding | None:
        flags = self._reports.flags_among_last(FLAGS_SEEN)
        if not usual.flagged or len(flags) < FLAGS_WANTED:
            return None
        return LossFinding(
            alarm=Alarm.SPIKE,
            iteration=report.iteration,
            first_flag=flags[0],
            text=f"{usual.text(report.iteration)}; {len(flags)} of the last {FLAGS_SEEN} reports flagged",
            evidence={**usual.evidence(), "flags": len(flags)},
        )

    def _early_spike(self, report: LossReport) -> LossFinding | None:
        flags = self._reports.flags_among_last(EARLY_REPORTS)
        first = self._reports.first_loss
        if first is None or len(flags) < EARLY_REPORTS:
            return None
        limit = EARLY_RATIO * first + EARLY_RISE
        return LossFinding(
            alarm=Alarm.SPIKE,
            iteration=report.iteration,
            first_flag=flags[0],
            text=f"loss {report.loss:.3f} at iteration {report.iteration:,}: {EARLY_REPORTS} reports in a row above "
            f"{limit:.3f}, where the run began at {first:.3f}",
            evidence={"loss": report.loss, "first": first, "limit": limit, "flags": len(flags)},
        )


def fold(
    reports: Sequence[LossReport], validations: Sequence[ValidationLoss], *, warm_up: int, steps_per_report: int
) -> tuple[LossDetector, list[LossFinding]]:
    """Fold a whole run; a validation comes after the report that ends at its iteration.

    Args:
        reports: those that lead to the present weights, oldest first.
        validations: likewise.
        warm_up: iterations in which the loss is not compared with what was usual before.
        steps_per_report: iterations that a report covers.

    Returns:
        The detector after the last of them, and all that it found, oldest first.
    """
    detector = LossDetector(warm_up=warm_up, steps_per_report=steps_per_report)
    found: list[LossFinding | None] = []
    waiting = deque(validations)
    for report in reports:
        while waiting and waiting[0].iteration < report.iteration:
            found.append(detector.validation(waiting.popleft()))
        found.append(detector.report(report))
    found += [detector.validation(each) for each in waiting]
    return detector, [each for each in found if each is not None]


def _drift(report: LossReport, rise: Rise, first_flag: int) -> LossFinding:
    return LossFinding(
        alarm=Alarm.DRIFT,
        iteration=report.iteration,
        first_flag=first_flag,
        text=f"loss {report.loss:.3f} at iteration {report.iteration:,}: the median {rise.cur:.3f} of the last "
        f"{STRETCH} reports is {rise.cur - rise.lo:.3f} above the lowest there was, {rise.lo:.3f} "
        f"({rise.margin:.3f} is tolerated); not that low again since iteration {first_flag:,}",
        evidence={"loss": report.loss, "cur": rise.cur, "lo": rise.lo, "margin": rise.margin, "scale": rise.scale},
    )


def _suspect(report: LossReport, usual: Usual) -> LossFinding:
    return LossFinding(
        alarm=Alarm.SUSPECT,
        iteration=report.iteration,
        first_flag=report.iteration,
        text=usual.text(report.iteration),
        evidence=usual.evidence(),
    )


def _many_skipped(report: LossReport, skips: Skips) -> LossFinding:
    return LossFinding(
        alarm=Alarm.SUSPECT,
        iteration=report.iteration,
        first_flag=skips.first,
        text=f"{skips.skipped} of the last {skips.iterations} updates up to iteration {report.iteration:,} were not "
        f"applied, because their loss or gradient was not finite; more than {SKIPPED_SHARE:.0%}",
        evidence={"skipped": skips.skipped, "iterations": skips.iterations},
    )


def _not_finite(seen: LossReport | ValidationLoss, what: str) -> LossFinding:
    return LossFinding(
        alarm=Alarm.NOT_FINITE,
        iteration=seen.iteration,
        first_flag=seen.iteration,
        text=f"{what} {seen.loss} at iteration {seen.iteration:,}",
        evidence={"loss": seen.loss},
    )
