"""Synthetic loss curves of fine-tuning, healthy and broken, and the reference run rebuilt from its table.

A curve is a level times noise. All numbers come from a seeded generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from jobs.loss.alarms import LossReport, ValidationLoss
from jobs.loss.history import DRIFT_RATIO, DRIFT_RISE, DRIFT_SCALES, DRIFT_WINDOW, GAUSSIAN, MIN_SCALE_SHARE

ITERATIONS = 15_000
STEPS_PER_REPORT = 10
STEPS_PER_EVAL = 200
WARM_UP = 100
"""Iterations of learning-rate warm-up; the loss does not fall in them."""

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """Some runs of one kind; runs in rows, reports in columns."""

    levels: Array  # losses without noise
    noise: Array  # factors
    validations: Array  # one every 200 iterations
    standard_errors: Array  # of the validations, one per run
    gradients: Array | None = None  # gradient norms of the reports; None if unknown

    @property
    def losses(self) -> Array:
        """The reported losses."""
        return self.levels * self.noise

    def reports(self, run: int) -> list[LossReport]:
        """Return the reports of one run."""
        return as_reports(self.losses[run], None if self.gradients is None else self.gradients[run])

    def validated(self, run: int) -> list[ValidationLoss]:
        """Return the validations of one run."""
        error = float(self.standard_errors[run])
        return [
            ValidationLoss(iteration=(number + 1) * STEPS_PER_EVAL, loss=loss, standard_error=error)
            for number, loss in enumerate(self.validations[run].tolist())
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken:
    """Curves that break, each at its own report."""

    curves: Curves
    onsets: Whole  # first report of the break
    due: Whole  # report at which the level, without noise, fulfils the condition of a drift
    rises: Array  # nats between the levels before and after


def as_reports(losses: Array, gradients: Array | None = None) -> list[LossReport]:
    """Return losses as reports of ten iterations each."""
    norms = [None] * len(losses) if gradients is None else gradients.tolist()
    pairs = enumerate(zip(losses.tolist(), norms, strict=True), start=1)
    return [LossReport(iteration=at * STEPS_PER_REPORT, loss=loss, grad_norm=norm) for at, (loss, norm) in pairs]


def heavy_tails(rng: np.random.Generator, runs: int, reports: int = ITERATIONS // STEPS_PER_REPORT) -> Curves:
    """An exponential fall to 0.08 to 2 nats; noise of 3 to 20 % with the tails of Student's t (3 to 6) or lognormal."""
    levels = _fall(rng, runs, reports, _log_uniform(rng, 0.08, 2.0, runs))
    return _curves(rng, levels, _log_uniform(rng, 0.03, 0.20, runs))


def staircases(rng: np.random.Generator, runs: int, reports: int = ITERATIONS // STEPS_PER_REPORT) -> Curves:
    """A step down to 60 to 95 % at each epoch of 10 to 300 reports.

    Within an epoch the training loss rises by up to 15 %, because its rows were trained longer and longer ago. The
    validation loss does not rise.
    """
    epochs = _log_uniform(rng, 10, 300, runs).astype(np.int64)[:, None]
    at = np.arange(reports)[None, :]
    steps, creep = rng.uniform(0.60, 0.95, (runs, 1)), rng.uniform(0.0, 0.15, (runs, 1))
    start, floor = rng.uniform(1.0, 3.0, (runs, 1)), _log_uniform(rng, 0.08, 1.0, runs)[:, None]
    learnt = np.maximum(start * steps ** (at // epochs), floor)
    levels = learnt * (1 + creep * (at % epochs) / epochs)
    return dataclasses.replace(_curves(rng, learnt, _log_uniform(rng, 0.03, 0.15, runs)), levels=levels)


def overfit(rng: np.random.Generator, runs: int, reports: int = ITERATIONS // STEPS_PER_REPORT) -> Curves:
    """The training loss falls to 0.005 to 0.08; the validation loss rises from 300 to 3,000 iterations on."""
    levels = _fall(rng, runs, reports, _log_uniform(rng, 0.005, 0.08, runs))
    curves = _curves(rng, levels, _log_uniform(rng, 0.05, 0.30, runs))
    at = np.arange(1, curves.validations.shape[1] + 1)[None, :] * STEPS_PER_EVAL
    turn, best = _log_uniform(rng, 300, 3_000, runs)[:, None], _log_uniform(rng, 0.15, 1.5, runs)[:, None]
    before, after = rng.uniform(0.3, 1.5, (runs, 1)), rng.uniform(0.5, 2.0, (runs, 1))
    shape = 1 + before * np.maximum(0, 1 - at / turn) + after * np.maximum(0, at - turn) / ITERATIONS
    validations = best * shape * rng.normal(1, 0.015, shape.shape)
    return dataclasses.replace(curves, validations=validations, standard_errors=0.08 * best[:, 0])


def hard_batches(
    rng: np.random.Generator,
    runs: int,
    reports: int = ITERATIONS // STEPS_PER_REPORT,
    share: tuple[float, float] = (1 / 500, 1 / 100),
) -> Curves:
    """A plateau with single random reports at two to five times the level, one in 500 to one in 100."""
    levels = _fall(rng, runs, reports, _log_uniform(rng, 0.08, 2.0, runs))
    curves = _curves(rng, levels, _log_uniform(rng, 0.03, 0.12, runs))
    hard = rng.random(levels.shape) < _log_uniform(rng, *share, runs)[:, None]
    return dataclasses.replace(curves, noise=np.where(hard, rng.uniform(2, 5, levels.shape), 1.0) * curves.noise)


FAMILIES: dict[str, Callable[[np.random.Generator, int], Curves]] = {
    "heavy tails": heavy_tails,
    "staircases": staircases,
    "overfit": overfit,
    "hard batches": hard_batches,
}


def malignant_spike(rng: np.random.Generator, curves: Curves) -> Broken:
    """A rise by 1 to 8 nats within 1 to 5 reports that lasts 5 to 30 reports and decays, as in the reference run."""
    runs = len(curves.levels)
    rise, ramp = rng.uniform(1, 8, runs), rng.integers(1, 6, runs)
    hold, back = rng.integers(5, 31, runs), _log_uniform(rng, 20, 150, runs)

    def shape(since: Array) -> Array:
        up = np.clip((since + 1) / ramp[:, None], 0, 1)
        down = np.exp(-np.maximum(0, since - (ramp + hold)[:, None]) / back[:, None])
        return np.asarray(up * down)

    return _break(rng, curves, rise, shape)


def permanent_doubling(rng: np.random.Generator, curves: Curves) -> Broken:
    """A sudden, permanent doubling of the level."""
    return _break(rng, curves, None, lambda since: np.ones_like(since), times=1.0)


def slow_drift(rng: np.random.Generator, curves: Curves) -> Broken:
    """A linear, permanent rise to three times the level over 50 to 300 reports."""
    length = _log_uniform(rng, 50, 300, len(curves.levels))
    return _break(rng, curves, None, lambda since: np.clip((since + 1) / length[:, None], 0, 1), times=2.0)


SHORT = 150
"""Reports of a short run of 1,500 iterations."""


def stuck(rng: np.random.Generator, runs: int) -> Broken:
    """A short run whose rate grows until no gradient is left; then its loss stays at 4 to 7 nats.

    Before that the loss is 5 to 30 % below the constant one, so neither a spike nor a drift is near. As in a run of the
    demo model with a growing rate: 5.2 before, 5.951 from then on.
    """
    onsets = rng.integers(15, SHORT * 2 // 3, runs)
    level = rng.uniform(4, 7, (runs, 1))
    before = level * rng.uniform(0.7, 0.95, (runs, 1)) * np.exp(rng.normal(0, 0.01, (runs, SHORT)))
    is_stuck = np.arange(SHORT)[None, :] >= onsets[:, None]
    losses = np.where(is_stuck, level, before)
    gradients = np.where(
        is_stuck, 0.0, _log_uniform(rng, 1e-3, 10.0, runs)[:, None] * rng.uniform(0.3, 3, losses.shape)
    )
    every = STEPS_PER_EVAL // STEPS_PER_REPORT
    curves = Curves(
        levels=losses,
        noise=np.ones_like(losses),
        validations=losses[:, every - 1 :: every],
        standard_errors=0.02 * level[:, 0],
        gradients=gradients,
    )
    return Broken(curves=curves, onsets=onsets, due=onsets, rises=(level - before[:, :1])[:, 0])


def regressing(rng: np.random.Generator, runs: int) -> Curves:
    """A short run at a rate that is too high: after its best, both losses rise, the train loss by 5 to 15 %."""
    turn = rng.uniform(0.35, 0.6, (runs, 1)) * SHORT
    at = np.arange(1, SHORT + 1)[None, :]
    best, fall = rng.uniform(1.5, 4, (runs, 1)), rng.uniform(10, 25, (runs, 1))
    back = rng.uniform(0.05, 0.15, (runs, 1)) * np.clip((at - turn) / rng.uniform(10, 30, (runs, 1)), 0, 1)
    levels = best * (1 + np.exp(-at / fall) + back)
    every = STEPS_PER_EVAL // STEPS_PER_REPORT
    validations = levels[:, every - 1 :: every] + best * np.where(at > turn, 0.15, 0.0)[:, every - 1 :: every]
    noise = np.exp(rng.normal(0, 0.02, levels.shape))
    return Curves(levels=levels, noise=noise, validations=validations, standard_errors=0.01 * best[:, 0])


def learned(rng: np.random.Generator, runs: int) -> Curves:
    """A short run that has learned its rows: its loss is nearly 0, and most of its gradients round to 0."""
    losses = _log_uniform(rng, 1e-7, 0.02, runs)[:, None] * np.exp(rng.normal(0, 0.5, (runs, SHORT)))
    losses = losses + 4 * np.exp(-np.arange(SHORT)[None, :] / rng.uniform(5, 20, (runs, 1)))
    gradients = np.where((rng.random(losses.shape) < 0.9) & (losses < 0.05), 0.0, losses)
    return _plain(losses, gradients)


def tiny_gradients(rng: np.random.Generator, runs: int) -> Curves:
    """A short run whose gradients are tiny but not 0, or 0 in every other report, while its loss stays high."""
    losses = rng.uniform(3, 6, (runs, 1)) * np.exp(rng.normal(0, 0.01, (runs, SHORT)))
    zero = (np.arange(SHORT)[None, :] % rng.integers(2, 10, (runs, 1))) > 0
    gradients = np.where(zero & (rng.random((runs, 1)) < 0.5), 0.0, _log_uniform(rng, 1e-9, 1e-3, runs)[:, None])
    return _plain(losses, gradients)


def _plain(losses: Array, gradients: Array) -> Curves:
    every = STEPS_PER_EVAL // STEPS_PER_REPORT
    ones, errors = np.ones_like(losses), 0.02 * losses.mean(axis=1)
    validations = losses[:, every - 1 :: every]
    return Curves(levels=losses, noise=ones, validations=validations, standard_errors=errors, gradients=gradients)


BREAKS: dict[str, Callable[[np.random.Generator, Curves], Broken]] = {
    "malignant spike": malignant_spike,
    "permanent doubling": permanent_doubling,
    "slow drift": slow_drift,
}


def _break(
    rng: np.random.Generator,
    curves: Curves,
    rise: Array | None,
    shape: Callable[[Array], Array],
    *,
    times: float = 0.0,
) -> Broken:
    """Return curves whose level stays constant from an onset on, plus the break."""
    runs, reports = curves.levels.shape
    onsets = _log_uniform(rng, reports // 15, reports * 8 // 10, runs).astype(np.int64)
    before = np.arange(runs)[:, None], onsets[:, None] - 1 - np.arange(DRIFT_WINDOW)[None, :]
    at = np.median(curves.levels[before], axis=1)
    rise = times * at if rise is None else rise
    since = np.arange(reports)[None, :] - onsets[:, None]
    broken = at[:, None] + rise[:, None] * shape(np.maximum(since, 0).astype(np.float64))
    levels = np.where(since < 0, curves.levels, broken)
    scale = GAUSSIAN * np.median(abs(curves.noise - np.median(curves.noise, axis=1)[:, None]), axis=1)[:, None] * levels
    margin = DRIFT_RISE + DRIFT_SCALES * np.maximum(scale, MIN_SCALE_SHARE * levels) / np.sqrt(DRIFT_WINDOW)
    is_drift = (since >= 0) & (levels > np.maximum(DRIFT_RATIO * at[:, None], at[:, None] + margin))
    due = np.where(is_drift.any(axis=1), is_drift.argmax(axis=1), onsets)
    return Broken(curves=dataclasses.replace(curves, levels=levels), onsets=onsets, due=due, rises=rise)


def _fall(rng: np.random.Generator, runs: int, reports: int, floor: Array) -> Array:
    """An exponential fall from up to 3.5 nats with a time constant of 100 to 3,000 iterations, flat in the warm-up."""
    start = np.minimum(3.5, floor + rng.uniform(0.3, 2.5, runs))
    constant = _log_uniform(rng, 100, 3_000, runs)
    at = np.maximum(0, np.arange(1, reports + 1) * STEPS_PER_REPORT - WARM_UP)
    return np.asarray(floor[:, None] + (start - floor)[:, None] * np.exp(-at[None, :] / constant[:, None]))


def _curves(rng: np.random.Generator, levels: Array, sigma: Array) -> Curves:
    runs, reports = levels.shape
    every = STEPS_PER_EVAL // STEPS_PER_REPORT
    validations = levels[:, every - 1 :: every] * rng.uniform(1.0, 1.4, (runs, 1))
    validations = validations * rng.normal(1, 0.015, validations.shape)
    noise = _tails(rng, runs, reports, sigma) * _wander(rng, runs, reports)
    return Curves(levels=levels, noise=noise, validations=validations, standard_errors=0.08 * validations.min(axis=1))


def _tails(rng: np.random.Generator, runs: int, reports: int, sigma: Array) -> Array:
    """Return factors around 1: Student's t in half of the runs, lognormal in the others.

    They are at least 0.5, because a report is a mean over dozens of rows and a loss is not negative.
    """
    degrees = rng.uniform(3, 6, (runs, 1))
    student = 1 + sigma[:, None] * rng.standard_t(np.broadcast_to(degrees, (runs, reports)))
    lognormal = np.exp(sigma[:, None] * rng.standard_normal((runs, reports)))
    return np.maximum(0.5, np.where(rng.random((runs, 1)) < 0.5, student, lognormal))


def _wander(rng: np.random.Generator, runs: int, reports: int) -> Array:
    """Return slow variations of the level by 2 % over about 20 reports, due to the order of the data."""
    keep = 0.95
    pushes = rng.normal(0, 0.02 * np.sqrt(1 - keep**2), (reports, runs))
    state, path = rng.normal(0, 0.02, runs), np.empty((reports, runs))
    for number in range(reports):
        state = keep * state + pushes[number]
        path[number] = state
    return np.asarray(np.exp(path.T))


def _log_uniform(rng: np.random.Generator, low: float, high: float, runs: int) -> Array:
    return np.exp(rng.uniform(np.log(low), np.log(high), runs))


_TABLE = (
    # iteration, training loss, validation loss; start and peak of the spike as in the text of the report
    (0, 2.972, 2.950),
    (500, 0.150, 0.167),
    (970, 0.150, 0.167),
    (1_000, 7.425, 8.685),
    (1_020, 8.519, 9.6),
    (1_500, 2.136, 2.367),
    (2_000, 0.381, 0.419),
    (3_000, 0.417, 0.457),
    (5_000, 0.155, 0.262),
    (7_000, 0.102, 0.181),
    (10_000, 0.085, 0.165),
    (12_000, 0.087, 0.208),
    (15_000, 0.090, 0.167),
)


def reference_run(rng: np.random.Generator) -> tuple[list[LossReport], list[ValidationLoss]]:
    """Return the reference run with 10 iterations per report and a validation every 100.

    Between the rows of its table, the logarithm of the loss is linear. The noise is 6 % with the tails of Student's t
    with 4 degrees of freedom, and 1 % for the validation, which always uses the same rows.
    """
    at = np.arange(STEPS_PER_REPORT, ITERATIONS + 1, STEPS_PER_REPORT)
    iterations, training, validation = (np.array(column, dtype=np.float64) for column in zip(*_TABLE, strict=True))
    levels = np.exp(np.interp(at, iterations, np.log(training)))
    losses = levels * np.maximum(0.5, 1 + 0.06 * rng.standard_t(4, len(at)))
    measured = np.arange(100, ITERATIONS + 1, 100)
    validations = np.exp(np.interp(measured, iterations, np.log(validation))) * rng.normal(1, 0.01, len(measured))
    return as_reports(losses), [
        ValidationLoss(iteration=int(iteration), loss=float(loss), standard_error=None)
        for iteration, loss in zip(measured, validations, strict=True)
    ]


def rng_of(*seed: int) -> np.random.Generator:
    """Return a separate generator for each part, so that a new part does not change the others."""
    return np.random.default_rng(seed)
