"""The rules that are compared: lq's detector, and four that people use. Each says which reports raise an alarm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jobs.loss.alarms import Alarm, LossFinding
from jobs.loss.detector import MIN_BASELINE, fold
from tests.benchmarks.detectors.curves import STEPS_PER_REPORT, WARM_UP, Array, Curves, as_reports

GRAVE = frozenset({Alarm.SPIKE, Alarm.DRIFT, Alarm.NOT_FINITE})
"""Those that a rollback answers; SUSPECT asks for a validation, OVERFITTING is told."""
QUIET = 20
"""Alarms of the other rules count as one until so many reports have raised none, as lq's do."""
SILENT = max(MIN_BASELINE, WARM_UP // STEPS_PER_REPORT)
"""No rule speaks in the first reports."""

Rule = Callable[[Array], list[list[int]]]
"""From losses, runs in rows, to the reports of each run that raise an alarm."""


def findings(curves: Curves, run: int, *, validate: bool = True) -> list[LossFinding]:
    """Return all that lq's detector finds in a run."""
    validated = curves.validated(run) if validate else []
    return fold(curves.reports(run), validated, warm_up=WARM_UP, steps_per_report=STEPS_PER_REPORT)[1]


def detector(losses: Array) -> list[list[int]]:
    """`jobs/loss/detector.py`, without validations, as the others have none."""
    return [
        [
            found.iteration // STEPS_PER_REPORT - 1
            for found in fold(as_reports(run), [], warm_up=WARM_UP, steps_per_report=STEPS_PER_REPORT)[1]
            if found.alarm in GRAVE
        ]
        for run in losses
    ]


def twice_the_mean(losses: Array) -> list[list[int]]:
    """Five reports in a row above twice the mean of the last 40 that were not."""
    base, count = np.zeros((len(losses), 40)), np.zeros(len(losses), dtype=np.int64)
    high = np.zeros(losses.shape, dtype=bool)
    for number, loss in enumerate(losses.T):
        mean = base.sum(axis=1) / np.maximum(1, np.minimum(count, 40))
        high[:, number] = (loss > 2 * mean) & (number >= SILENT)
        usual = np.flatnonzero(~high[:, number])
        base[usual, count[usual] % 40] = loss[usual]
        count[usual] += 1
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
    """One report above the exponential mean (0.05 of each new one) by 2.5 of the likewise standard deviation."""
    mean, variance = losses[:, 0].copy(), np.zeros(len(losses))
    raised = np.zeros(losses.shape, dtype=bool)
    for number, loss in enumerate(losses.T):
        if number >= SILENT:
            raised[:, number] = loss - mean > 2.5 * np.sqrt(variance)
        apart = loss - mean
        mean += 0.05 * apart
        variance = 0.95 * (variance + 0.05 * apart**2)
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
