"""95 % intervals by bootstrap over rows. The seed is fixed, so that a report can be reproduced."""

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
"""Rows times resamples. Larger sets get fewer resamples, and need fewer."""

SEED = 20_260_101
NORMAL = 1.959964
"""The 97.5th percentile of the standard normal distribution."""


class Bootstrap:
    """Resamples of the rows of one set. All measurements share them, so that differences stay paired."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = np.asarray(weights, dtype=np.float64)
        rows = len(self._weights)
        draws = max(FEWEST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // max(rows, 1)))
        generator = np.random.default_rng(SEED)
        self._counts = generator.multinomial(rows, np.full(rows, 1 / rows), size=draws) * self._weights

    def interval(self, losses: Sequence[float]) -> tuple[float, float]:
        """Return the 95 % percentile interval of the mean loss of the rows, in nats per token (Efron, 1979)."""
        low, high = self._percentiles(np.asarray(losses, dtype=np.float64)[:, None])
        return float(low[0]), float(high[0])

    def differences(self, losses: Sequence[Sequence[float]], reference: Sequence[float]) -> list[Difference]:
        """Return each measurement minus the reference, both by row, paired."""
        gaps = (np.asarray(losses, dtype=np.float64) - np.asarray(reference, dtype=np.float64)).T
        low, high = self._percentiles(gaps)
        total, rows = self._weights.sum(), len(self._weights)
        mean = self._weights @ gaps / total
        # standard error of the ratio estimator (Cochran, Sampling Techniques, 3rd ed., eq. 6.13)
        spread = ((self._weights[:, None] * (gaps - mean)) ** 2).sum(axis=0)
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
            for place in range(gaps.shape[1])
        ]

    def _percentiles(self, table: Floats) -> tuple[Floats, Floats]:
        """Return the 2.5th and 97.5th percentile of the resampled means of each column."""
        means = self._counts @ table / self._counts.sum(axis=1, keepdims=True)
        low, high = np.percentile(means, (2.5, 97.5), axis=0)
        return low, high


def difference_by_errors(value: float, error: float, other_error: float, rows: int) -> Difference:
    """Return a difference from the standard errors of its two losses, which are taken as independent.

    Losses on the same rows are positively correlated, so the interval is too wide rather than too narrow.
    """
    combined = math.hypot(error, other_error)
    low, high = value - NORMAL * combined, value + NORMAL * combined
    return Difference(value=value, standard_error=combined, low=low, high=high, rows=rows, paired=False)
