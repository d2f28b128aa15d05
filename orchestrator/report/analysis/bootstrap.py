"""95 % intervals by bootstrap over rows. NumPy only; seeded, so a report written anew says the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.policies.verdict import Difference

Floats = NDArray[np.float64]

RESAMPLES = 2000
FEWEST_RESAMPLES = 200
MOST_DRAWS = 8_000_000
"""Rows times resamples: larger sets get fewer resamples, and need fewer."""

SEED = 20_260_101
NORMAL = 1.959964
"""97.5 % of the standard normal distribution lies below."""


class Bootstrap:
    """Resamples of the rows of one validation set: the same ones for every measurement, so that pairs stay pairs."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Draw.

        Args:
            weights: supervised tokens of each row; a loss is the mean of its rows by these.
        """
        self._weights = np.asarray(weights, dtype=np.float64)
        rows = len(self._weights)
        draws = max(FEWEST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // max(rows, 1)))
        chance = np.random.default_rng(SEED)
        self._counts = chance.multinomial(rows, np.full(rows, 1 / rows), size=draws) * self._weights

    def interval(self, losses: Sequence[float]) -> tuple[float, float]:
        """Return the 95 % percentile interval of the mean loss (Efron, 1979).

        Args:
            losses: of each row, nats per token.
        """
        low, high = self._percentiles(np.asarray(losses, dtype=np.float64)[:, None])
        return float(low[0]), float(high[0])

    def differences(self, losses: Sequence[Sequence[float]], reference: Sequence[float]) -> list[Difference]:
        """Return each measurement minus the reference, row by row.

        Args:
            losses: of each measurement, by row.
            reference: by row.
        """
        table = (np.asarray(losses, dtype=np.float64) - np.asarray(reference, dtype=np.float64)).T
        low, high = self._percentiles(table)
        total, rows = self._weights.sum(), len(self._weights)
        mean = self._weights @ table / total
        # the ratio estimator's error (Cochran, Sampling Techniques, 3rd ed., eq. 6.13)
        spread = ((self._weights[:, None] * (table - mean)) ** 2).sum(axis=0)
        error = np.sqrt(rows / max(rows - 1, 1) * spread) / total
        return [
            Difference(
                value=float(mean[place]),
                standard_error=float(error[place]),
                low=float(low[place]),
                high=float(high[place]),
                rows=rows,
                paired=True,
            )
            for place in range(table.shape[1])
        ]

    def _percentiles(self, table: Floats) -> tuple[Floats, Floats]:
        """Return the 2.5th and 97.5th percentile of the resampled means of each column."""
        means = self._counts @ table / self._counts.sum(axis=1, keepdims=True)
        low, high = np.percentile(means, (2.5, 97.5), axis=0)
        return low, high


def by_errors(value: float, one: float, other: float, rows: int) -> Difference:
    """Return a difference of which only the standard errors of its two sides are known, taken as independent.

    Losses on the same rows rise and fall together, so this interval is too wide rather than too narrow.

    Args:
        value: one loss minus the other.
        one: standard error of the one.
        other: of the other.
        rows: that were measured.
    """
    error = math.hypot(one, other)
    return Difference(
        value=value,
        standard_error=error,
        low=value - NORMAL * error,
        high=value + NORMAL * error,
        rows=rows,
        paired=False,
    )
