"""What is usual: the losses of the reports so far, in medians, for the loss detector (policies.md 1). Pure."""

from __future__ import annotations

import bisect
import dataclasses
import math
from array import array
from collections import deque
from collections.abc import Sequence

from jobs.loss.alarms import LossReport

GAUSSIAN = 1.4826
"""Times the median absolute deviation is the standard deviation, where the noise is Gaussian."""
LEAST_SCALE_SHARE, LEAST_SCALE = 0.05, 0.02  # of the median; nats

FLAG_Z, FLAG_RATIO, FLAG_RISE = 6.0, 1.5, 0.15
SUSPECT_Z, SUSPECT_RATIO, SUSPECT_RISE = 12.0, 3.0, 2.0

STRETCH = 20
LEAST_FOR_DRIFT = 60
DRIFT_RATIO, DRIFT_RISE, DRIFT_SCALES = 1.5, 0.25, 4.0

SKIPPED_SHARE, SKIPPED_ITERATIONS = 0.01, 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usual:
    """A loss beside those before it."""

    loss: float  # nats per token, as are all others
    median: float
    scale: float  # of the noise around it, as a standard deviation
    z: float  # scales above the median
    count: int  # the reports it is compared with

    @classmethod
    def of(cls, loss: float, base: Sequence[float] | deque[float]) -> Usual:
        """Compare a loss with the unflagged ones before it; at least one."""
        middle, scale = median_and_scale(base)
        return cls(loss=loss, median=middle, scale=scale, z=(loss - middle) / scale, count=len(base))

    @property
    def flagged(self) -> bool:
        """Whether it lies too high: three times over, so that neither small noise nor a small level makes it so."""
        rise = self.loss - self.median
        return self.z > FLAG_Z and self.loss > FLAG_RATIO * self.median and rise > FLAG_RISE

    @property
    def suspect(self) -> bool:
        """Whether it lies so high that one such report is enough to look at the weights."""
        return self.z > SUSPECT_Z and self.loss > max(SUSPECT_RATIO * self.median, self.median + SUSPECT_RISE)

    def text(self, iteration: int) -> str:
        """Say it in a line, for the report that ends at an iteration."""
        times = f"{self.loss / self.median:.1f} times" if self.median > 0 else "above"
        return (
            f"loss {self.loss:.3f} at iteration {iteration:,}: {times} the median {self.median:.3f} of the last "
            f"{self.count} reports (z = {self.z:.0f})"
        )

    def evidence(self) -> dict[str, float | int | str]:
        """Return its numbers."""
        return {"loss": self.loss, "median": self.median, "scale": self.scale, "z": self.z, "base": self.count}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rise:
    """The last stretch of reports above the lowest one by more than their noise."""

    cur: float  # median of the last stretch
    lo: float  # lowest median of a stretch
    margin: float  # what the difference has to exceed
    scale: float
    begins: int  # which report came first after the lowest stretch, or the last that lay no higher but for its noise


class Stretch:
    """The median of the last 20 reports beside the lowest there was; flagged ones count too."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=STRETCH)
        self._count = 0
        self._lo = math.inf
        self._after = 0  # which report came first after the lowest stretch

    def add(self, loss: float, number: int, *, scale: float | None) -> Rise | None:
        """Move on by a report, the `number`-th of all from 0; without a scale nothing is compared."""
        self._last.append(loss)
        self._count += 1
        if len(self._last) < STRETCH:
            return None
        cur, rise = median(self._last), None
        noise = 0.0 if scale is None else DRIFT_SCALES * scale / math.sqrt(STRETCH)
        if scale is not None and self._count >= LEAST_FOR_DRIFT:
            margin = DRIFT_RISE + noise
            if cur > DRIFT_RATIO * self._lo and cur - self._lo > margin:
                rise = Rise(cur=cur, lo=self._lo, margin=margin, scale=scale, begins=self._after)
        self._lo = min(self._lo, cur)
        if cur <= self._lo + noise:
            self._after = number + 1
        return rise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skips:
    """Updates not applied, over the reports that cover the last 200 iterations."""

    skipped: int
    iterations: int  # that those reports cover
    first: int  # last iteration of the first of them that skipped any


class Reports:
    """The reports so far, by iteration."""

    def __init__(self, steps_per_report: int) -> None:
        """Begin with none.

        Args:
            steps_per_report: iterations that the first one covers; the others begin where the one before them ends.
        """
        # every report of a run stays, a week's too: as plain numbers they take a sixth of the memory
        self.iterations = array("q")
        self.losses = array("d")
        self.first_loss: float | None = None  # the first that was finite
        self._steps_per_report = steps_per_report
        self._flagged = array("q")  # which of them, rising
        self._recent: deque[LossReport] = deque()  # those that reach into the last 200 iterations
        self._skipped = 0  # in them
        self._covered_to = 0  # where the first of them begins

    def __len__(self) -> int:
        return len(self.iterations)

    def add(self, report: LossReport, *, flagged: bool) -> None:
        """Take in the next one."""
        if not self.iterations:
            self._covered_to = max(0, report.iteration - self._steps_per_report)
        assert not self.iterations or report.iteration > self.iterations[-1], "reports come in order, each once"
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

    def skips(self) -> Skips | None:
        """Return the updates not applied of late where they are more than 1 %; at the start, of 200 all the same."""
        if not self._skipped:
            return None
        covered = self._recent[-1].iteration - self._covered_to
        if self._skipped <= SKIPPED_SHARE * max(covered, SKIPPED_ITERATIONS):
            return None
        first = next(each.iteration for each in self._recent if each.skipped)
        return Skips(skipped=self._skipped, iterations=covered, first=first)

    def flags_among_last(self, count: int) -> list[int]:
        """Return the iterations of the flagged ones among the last so many."""
        first = len(self.iterations) - count
        return [self.iterations[index] for index in self._flagged[-count:] if index >= first]

    def was_flagged(self, iteration: int) -> bool:
        """Whether the one that covers this iteration was flagged; False where none does."""
        index = bisect.bisect_left(self.iterations, iteration)
        place = bisect.bisect_left(self._flagged, index)
        return place < len(self._flagged) and self._flagged[place] == index

    def calm_after(self, iteration: int) -> int:
        """Return how many in a row, directly after this iteration, were unflagged."""
        index = self.count_until(iteration)
        place = bisect.bisect_left(self._flagged, index)
        return (self._flagged[place] if place < len(self._flagged) else len(self.iterations)) - index

    def count_until(self, iteration: int) -> int:
        """Return how many reports end no later than this iteration."""
        return bisect.bisect_right(self.iterations, iteration)


def median_and_scale(values: Sequence[float] | deque[float]) -> tuple[float, float]:
    """Return the median, and the scale of the noise around it as a standard deviation, with a floor."""
    middle = median(values)
    deviation = median([abs(value - middle) for value in values])
    return middle, max(GAUSSIAN * deviation, LEAST_SCALE_SHARE * middle, LEAST_SCALE)


def median(values: Sequence[float] | deque[float]) -> float:
    """Return the median; halved before they are added, so that the largest numbers there are do not overflow."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else ordered[half - 1] / 2 + ordered[half] / 2


def finite(losses: Sequence[float]) -> list[float]:
    """Return those that are numbers."""
    return [loss for loss in losses if math.isfinite(loss)]
