"""The history of a run's training loss: medians, flags and updates that were not applied.

The rules are in docs/explanation/policies.md, section 1. All losses are in nats per token.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from array import array
from collections import deque
from collections.abc import Sequence

from jobs.loss.alarms import LossReport

GAUSSIAN = 1.4826
"""Ratio of the standard deviation to the median absolute deviation of Gaussian noise."""
MIN_SCALE_SHARE, MIN_SCALE = 0.05, 0.02  # of the median; nats

FLAG_Z, FLAG_RATIO, FLAG_RISE = 6.0, 1.5, 0.15
SUSPECT_Z, SUSPECT_RATIO, SUSPECT_RISE = 12.0, 3.0, 2.0

DRIFT_WINDOW = 20
DRIFT_MIN_REPORTS = 60
DRIFT_RATIO, DRIFT_RISE, DRIFT_SCALES = 1.5, 0.25, 4.0

SKIPPED_SHARE, SKIPPED_ITERATIONS = 0.01, 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineComparison:
    """A loss compared with the unflagged reports before it."""

    loss: float
    median: float
    scale: float  # of the noise, as a standard deviation
    z: float  # scales above the median
    count: int  # reports in the baseline

    @classmethod
    def of(cls, loss: float, baseline: Sequence[float] | deque[float]) -> BaselineComparison:
        """Compare a loss with a baseline of at least one report."""
        middle, scale = median_and_scale(baseline)
        return cls(loss=loss, median=middle, scale=scale, z=(loss - middle) / scale, count=len(baseline))

    @property
    def flagged(self) -> bool:
        """Whether the loss is too high by all three criteria, so that neither low noise nor a low level flags it."""
        rise = self.loss - self.median
        return self.z > FLAG_Z and self.loss > FLAG_RATIO * self.median and rise > FLAG_RISE

    @property
    def suspect(self) -> bool:
        """Whether one such report is enough to validate the weights."""
        return self.z > SUSPECT_Z and self.loss > max(SUSPECT_RATIO * self.median, self.median + SUSPECT_RISE)

    def text(self, iteration: int) -> str:
        """Describe the comparison for the report that ends at `iteration`."""
        times = f"{self.loss / self.median:.1f} times" if self.median > 0 else "above"
        return (
            f"loss {self.loss:.3f} at iteration {iteration:,}: {times} the median {self.median:.3f} of the last "
            f"{self.count} reports (z = {self.z:.0f})"
        )

    def evidence(self) -> dict[str, float]:
        """Return the numbers for a finding."""
        return {"loss": self.loss, "median": self.median, "scale": self.scale, "z": self.z, "base": self.count}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """The median of the last reports, which exceeds the lowest median by more than the margin."""

    cur: float  # median of the last reports
    lo: float  # lowest median of as many earlier reports
    margin: float
    scale: float
    begins: int  # index of the first report after the lowest window, or after the last one equal to it within noise


class DriftWindow:
    """The median of the last 20 reports, flagged ones included, and the lowest one so far."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=DRIFT_WINDOW)
        self._count = 0
        self._lo = math.inf
        self._after = 0  # index of the first report after the lowest window

    def add(self, loss: float, index: int, *, scale: float | None) -> Drift | None:
        """Add the report with this index; return a drift if there is one. Without a scale, only add it."""
        self._last.append(loss)
        self._count += 1
        if len(self._last) < DRIFT_WINDOW:
            return None
        cur, drift = median(self._last), None
        noise = 0.0 if scale is None else DRIFT_SCALES * scale / math.sqrt(DRIFT_WINDOW)
        if scale is not None and self._count >= DRIFT_MIN_REPORTS:
            margin = DRIFT_RISE + noise
            if cur > DRIFT_RATIO * self._lo and cur - self._lo > margin:
                drift = Drift(cur=cur, lo=self._lo, margin=margin, scale=scale, begins=self._after)
        self._lo = min(self._lo, cur)
        if cur <= self._lo + noise:
            self._after = index + 1
        return drift


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedUpdates:
    """Updates that were not applied, in the reports that cover the last 200 iterations."""

    skipped: int
    iterations: int  # that these reports cover
    first: int  # last iteration of the first report with a skipped update


class ReportHistory:
    """The reports so far, in the order of their iterations."""

    def __init__(self, steps_per_report: int) -> None:
        # a run of a week keeps all its reports: arrays need a sixth of the memory of objects
        self.iterations = array("q")
        self.losses = array("d")
        self.first_loss: float | None = None  # the first finite one
        self._steps_per_report = steps_per_report  # covered by the first report
        self._flagged = array("q")  # ascending indexes
        self._recent: deque[LossReport] = deque()  # reports that cover the last 200 iterations
        self._skipped = 0  # in the recent reports
        self._covered_to = 0  # iteration before the first recent report

    def __len__(self) -> int:
        return len(self.iterations)

    def add(self, report: LossReport, *, flagged: bool) -> None:
        """Add the next report."""
        if not self.iterations:
            self._covered_to = max(0, report.iteration - self._steps_per_report)
        assert not self.iterations or report.iteration > self.iterations[-1], "reports must be in order"
        if flagged:
            self._flagged.append(len(self.iterations))
        if self.first_loss is None and math.isfinite(report.loss):
            self.first_loss = report.loss
        self.iterations.append(report.iteration)
        self.losses.append(report.loss)
        self._recent.append(report)
        self._skipped += report.skipped
        while self._recent[0].iteration <= report.iteration - SKIPPED_ITERATIONS:
            old = self._recent.popleft()
            self._skipped -= old.skipped
            self._covered_to = old.iteration

    def skipped_updates(self) -> SkippedUpdates | None:
        """Return the recent updates that were not applied, if they are more than 1 % of at least 200 updates."""
        if not self._skipped:
            return None
        covered = self._recent[-1].iteration - self._covered_to
        if self._skipped <= SKIPPED_SHARE * max(covered, SKIPPED_ITERATIONS):
            return None
        first = next(report.iteration for report in self._recent if report.skipped)
        return SkippedUpdates(skipped=self._skipped, iterations=covered, first=first)

    def flags_among_last(self, count: int) -> list[int]:
        """Return the iterations of the flagged reports among the last `count`."""
        first = len(self.iterations) - count
        return [self.iterations[index] for index in self._flagged[-count:] if index >= first]

    def was_flagged(self, iteration: int) -> bool:
        """Return whether the report that covers this iteration was flagged; False if there is none."""
        index = bisect.bisect_left(self.iterations, iteration)
        at = bisect.bisect_left(self._flagged, index)
        return at < len(self._flagged) and self._flagged[at] == index

    def unflagged_after(self, iteration: int) -> int:
        """Return the number of consecutive unflagged reports directly after this iteration."""
        index = self.count_until(iteration)
        at = bisect.bisect_left(self._flagged, index)
        return (self._flagged[at] if at < len(self._flagged) else len(self.iterations)) - index

    def count_until(self, iteration: int) -> int:
        """Return how many reports end at or before this iteration."""
        return bisect.bisect_right(self.iterations, iteration)


def median_and_scale(values: Sequence[float] | deque[float]) -> tuple[float, float]:
    """Return the median and the scale of the noise, a standard deviation with a lower limit."""
    middle = median(values)
    return middle, max(deviation(values), MIN_SCALE_SHARE * middle, MIN_SCALE)


def deviation(values: Sequence[float] | deque[float]) -> float:
    """Return the standard deviation of Gaussian noise with the median absolute deviation of these values."""
    middle = median(values)
    return GAUSSIAN * median([abs(value - middle) for value in values])


def median(values: Sequence[float] | deque[float]) -> float:
    """Return the median. Values are halved before they are added, so that the sum cannot overflow."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else ordered[half - 1] / 2 + ordered[half] / 2
