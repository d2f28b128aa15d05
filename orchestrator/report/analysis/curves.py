"""Smoothing and thinning of curves. NumPy only, without matplotlib."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def smoothed(values: Floats, window: int) -> Floats:
    """Return the mean over `window` values around each one, without values that are not finite."""
    finite = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(finite, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(finite)))
    here = np.arange(len(values))
    # fewer towards the ends, as many on each side, or the mean would lag where the loss falls fastest;
    # at least a quarter, or the mean would end in a single noisy report
    half = np.clip(np.minimum(here, len(values) - 1 - here), window // 8, window // 2)
    low, high = np.maximum(here - half, 0), np.minimum(here + half + 1, len(values))
    number = counts[high] - counts[low]
    return np.where(finite, (sums[high] - sums[low]) / np.maximum(number, 1), np.nan)


def outline(x: Floats, y: Floats, buckets: int) -> tuple[Floats, Floats]:
    """Return the lowest and the highest point of each bucket, which draw the same picture as all points.

    Values that are not finite are kept only in buckets without others. `x` is ascending.
    """
    if len(x) <= 2 * buckets:
        return x, y
    size = -(-len(x) // buckets)
    rows = -(-len(x) // size)
    padded = np.full(rows * size, np.nan)
    padded[: len(y)] = np.where(np.isfinite(y), y, np.nan)
    table = padded.reshape(rows, size)
    begins = np.arange(rows) * size
    gaps = np.isnan(table).all(axis=1)
    lowest = np.where(gaps, 0, np.where(np.isnan(table), np.inf, table).argmin(axis=1)) + begins
    highest = np.where(gaps, 0, np.where(np.isnan(table), -np.inf, table).argmax(axis=1)) + begins
    kept = np.unique(np.concatenate((lowest, highest)))
    return x[kept], y[kept]


def wants_log(values: Floats) -> bool:
    """Return whether the values need a logarithmic axis: all are positive, and they span more than a factor of 12."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() / finite.min() > 12)


def running_median(values: Floats, width: int) -> Floats:
    """Return the median of `width` (odd) values around each of the finite values.

    Near the beginning it takes as many values as there are on both sides, or it would lag where the loss falls fastest.
    Near the end it takes those that are left, or it would end in a single noisy report.
    """
    half = min(width // 2, (len(values) - 1) // 2)
    if half == 0:
        return values.copy()
    middle = np.median(np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1), axis=1)
    begin = [np.median(values[: 2 * place + 1]) for place in range(half)]
    end = [np.median(values[place - half :]) for place in range(len(values) - half, len(values))]
    return np.concatenate((begin, middle, end))
