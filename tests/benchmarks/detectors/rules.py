"""The compared rules: the detector of lq and four common rules. Each returns the reports that raise an alarm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jobs.loss.alarms import Alarm, LossFinding
from jobs.loss.detector import MIN_BASELINE, fold
from tests.benchmarks.detectors.curves import STEPS_PER_REPORT, WARM_UP, Array, Curves, as_reports

GRAVE = frozenset({Alarm.SPIKE, Alarm.DRIFT, Alarm.NOT_FINITE, Alarm.NO_GRADIENT})
"""Alarms that cause a rollback. SUSPECT causes a validation, OVERFITTING and REGRESSED are only reported."""
QUIET = 20
"""An episode of the other rules ends after so many reports without an alarm, as in lq."""
SILENT = max(MIN_BASELINE, WARM_UP // STEPS_PER_REPORT)
"""Initial reports in which no rule raises an alarm."""

Rule = Callable[[Array], list[list[int]]]
"""Maps losses, with runs in rows, to the reports of each run that raise an alarm."""


def findings(curves: Curves, run: int, *, validate: bool = True) -> list[LossFinding]:
    """Return all findings of the detector of lq in a run."""
    validated = curves.validated(run) if validate else []
    return fold(curves.reports(run), validated, warm_up=WARM_UP, steps_per_report=STEPS_PER_REPORT)[1]


def detector(losses: Array) -> list[list[int]]:
    """The detector of lq, without validations, because the other rules have none."""
    return [
        [
            finding.iteration // STEPS_PER_REPORT - 1
            for finding in fold(as_reports(run), [], warm_up=WARM_UP, steps_per_report=STEPS_PER_REPORT)[1]
            if finding.alarm in GRAVE
        ]
        for run in losses
    ]


def twice_the_mean(losses: Array) -> list[list[int]]:
    """Five consecutive reports above twice the mean of the last 40 other reports."""
    base, count = np.zeros((len(losses), 40)), np.zeros(len(losses), dtype=np.int64)
    high = np.zeros(losses.shape, dtype=bool)
    for number, loss in enumerate(losses.T):
        mean = base.sum(axis=1) / np.maximum(1, np.minimum(count, 40))
        high[:, number] = (loss > 2 * mean) & (number >= SILENT)
        others = np.flatnonzero(~high[:, number])
        base[others, count[others] % 40] = loss[others]
        count[others] += 1
    five = np.lib.stride_tricks.sliding_window_view(high, 5, axis=1).all(axis=2)
    return _where(np.pad(five, ((0, 0), (4, 0))))


def six_sigma(losses: Array) -> list[list[int]]:
    """One report above the mean of the last 128 by six of their standard deviations."""
    raised = np.zeros(losses.shape, dtype=bool)
    for number in range(SILENT, losses.shape[1]):
        before = losses[:, max(0, number - 128) : number]
        raised[:, number] = losses[:, number] > before.mean(axis=1) + 6 * before.std(axis=1)
    return _where(raised)


def exponential_z(losses: Array) -> list[list[int]]:
    """One report 2.5 exponential standard deviations above the exponential mean (weight 0.05)."""
    mean, variance = losses[:, 0].copy(), np.zeros(len(losses))
    raised = np.zeros(losses.shape, dtype=bool)
    for number, loss in enumerate(losses.T):
        if number >= SILENT:
            raised[:, number] = loss - mean > 2.5 * np.sqrt(variance)
        difference = loss - mean
        mean += 0.05 * difference
        variance = 0.95 * (variance + 0.05 * difference**2)
    return _where(raised)


def absolute(losses: Array) -> list[list[int]]:
    """One report above 3.0."""
    raised = losses > 3.0
    raised[:, :SILENT] = False
    return _where(raised)


RULES: dict[str, Rule] = {
    "lq": detector,
    "twice the mean for five": twice_the_mean,
    "6 sigma of 128": six_sigma,
    "z 2.5 on an exponential mean": exponential_z,
    "absolute 3.0": absolute,
}


def episodes(raised: list[int]) -> list[int]:
    """Return the first alarm of each episode."""
    return [each for before, each in zip([-QUIET - 1, *raised], raised, strict=False) if each - before > QUIET]


def _where(raised: np.typing.NDArray[np.bool_]) -> list[list[int]]:
    return [np.flatnonzero(run).tolist() for run in raised]
