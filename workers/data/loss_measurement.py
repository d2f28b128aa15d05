"""A measured loss and its standard error. Numbers only; no mlx."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from jobs.model.events import MeasuredRewards


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossMeasurement:
    """The loss of rows, in file order."""

    sums: tuple[float, ...]  # cross entropy of each row, in nats
    tokens: tuple[int, ...]  # supervised tokens of each row; of preferences 1: their loss is a mean over rows
    rewards: tuple[tuple[float, float], ...] = ()  # of each row's chosen and rejected answer; NaN without one
    seconds: float  # duration of the measurement

    @property
    def examples(self) -> int:
        """Rows."""
        return len(self.sums)

    @property
    def loss(self) -> float:
        """Nats per token."""
        total = sum(self.tokens)
        return sum(self.sums) / total if total else math.nan

    @property
    def standard_error(self) -> float | None:
        """Standard error of the loss, by row; None for a single row, or without a supervised token.

        The loss is the ratio of two sums, so this is the error of the ratio estimator (Cochran, Sampling Techniques,
        3rd ed., eq. 6.13 without the finite-population correction):
        sqrt(n/(n-1) * sum((s_i - loss*t_i)^2)) / sum(t_i).
        """
        total, count, loss = sum(self.tokens), self.examples, self.loss
        if not total or count < 2:
            return None
        spread = sum((row_sum - loss * length) ** 2 for row_sum, length in zip(self.sums, self.tokens, strict=True))
        return math.sqrt(count / (count - 1) * spread) / total

    @property
    def row_losses(self) -> list[float]:
        """Nats per token of each row."""
        return [
            row_sum / length if length else math.nan for row_sum, length in zip(self.sums, self.tokens, strict=True)
        ]

    @property
    def measured_rewards(self) -> MeasuredRewards | None:
        """The rewards with standard errors, by row; None without a preference objective."""
        pairs = [pair for pair, counted in zip(self.rewards, self.tokens, strict=False) if counted]
        if not pairs:
            return None
        chosen, rejected = ([reward for reward in side if not math.isnan(reward)] for side in zip(*pairs, strict=True))
        margins = [good - bad for good, bad in pairs if not math.isnan(good - bad)]
        errors = [_error(margins)] if margins else [_error(chosen), _error(rejected)]
        agrees = [float(good > bad if margins else good > 0 or bad < 0) for good, bad in pairs]
        return MeasuredRewards(
            chosen=_mean(chosen),
            rejected=_mean(rejected),
            margin=_mean(chosen) - _mean(rejected),
            margin_error=None if None in errors else math.hypot(*(error or 0.0 for error in errors)),
            accuracy=_mean(agrees),
            accuracy_error=_error(agrees),
        )

    def first(self, examples: int) -> LossMeasurement:
        """Return the measurement of the first rows."""
        share = examples / self.examples if self.examples else 0.0
        return LossMeasurement(
            sums=self.sums[:examples],
            tokens=self.tokens[:examples],
            rewards=self.rewards[:examples],
            seconds=self.seconds * share,
        )

    def rows_within(self, seconds: float, *, multiple: int) -> int:
        """Return how many of the first rows were measured in this time: a multiple of `multiple`, at least one."""
        if self.seconds <= seconds:
            return self.examples
        return min(self.examples, multiple * max(1, int(self.examples * seconds / self.seconds) // multiple))


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean; None for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
