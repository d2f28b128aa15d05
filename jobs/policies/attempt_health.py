"""The phase, speed and memory of an attempt: a fold over its events.

The stall watch, the memory guard and the classification of its end use it. For an adopted trainer, lq folds the events
again, so there is no state to save.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from jobs.model.events import Event, Kind, MeasuredEvent, PhaseEvent, ProgressEvent, StartedEvent, value_of
from jobs.model.spec import JobSpec
from jobs.policies import stall
from jobs.policies.memory_guard import SLOW_REPORTS, guard

_SPEEDS_KEPT = 200


class AttemptHealth:
    """What the events of one attempt show about its trainer."""

    def __init__(self, attempt: int, spec: JobSpec) -> None:
        self._attempt, self._spec = attempt, spec
        self._seq = 0  # of the last event
        self.phase = "load"
        self.first_iteration: int | None = None
        self.iteration: int | None = None
        self.trained = False  # whether it has reported a loss
        self.peak_bytes: int | None = None
        self.memory_share: float | None = None  # peak memory as a share of the limit
        self.train_rows: int | None = None  # rows of the training set
        self.batches_per_epoch: int | None = None
        self.lengths: tuple[int, int] | None = None  # 99th and 95th percentile of the tokens of a row
        self._progress_at: float | None = None  # awake clock of the last progress
        self._intervals: list[float] = []  # awake seconds between reports
        self._speeds: list[float] = []  # iterations per second of each report
        self._reports: list[ProgressEvent] = []
        self._swap_at_start: int | None = None
        self._slowest_row_s: float | None = None  # seconds per row of the slowest validation
        self._started_at: float | None = None  # awake clock of the start of the process
        self.start_s: float | None = None  # awake seconds from the start of the process to training
        self._validations: list[float] = []  # seconds of each validation
        self._rows: int | None = None  # rows of a validation

    def take(self, events: Iterable[Event]) -> None:
        """Fold events in order; events that were folded before are ignored."""
        for event in events:
            if event.attempt == self._attempt and event.seq > self._seq:
                self._seq = event.seq
                self._take(event)

    def _take(self, event: Event) -> None:
        match value_of(event):
            case None:
                return  # the store reports an event of a wrong shape
            case ProgressEvent() as progress:
                self._take_memory(progress)
                if not progress.losses:
                    return  # no progress
                self._take_report(event, progress)
            case PhaseEvent() as phase:
                self._take_phase(event, phase)
            case StartedEvent() as started:
                self.first_iteration = self.iteration = started.iteration
                importing = max(0.0, event.time - (started.create_time or event.time))
                self._started_at = event.awake - importing
            case MeasuredEvent(examples=rows, seconds=seconds) if rows:
                self._rows = rows
                self._slowest_row_s = max(self._slowest_row_s or 0.0, seconds / rows)
                if event.kind is Kind.VALIDATION:
                    self._validations.append(seconds)
        self._progress_at = event.awake

    def _take_phase(self, event: Event, phase: PhaseEvent) -> None:
        self.phase = phase.phase
        if self.phase == "train" and self.start_s is None and self._started_at is not None:
            self.start_s = event.awake - self._started_at
        if phase.batches_per_epoch is not None:
            self.train_rows, self.batches_per_epoch = phase.rows, phase.batches_per_epoch
        if phase.lengths is not None:
            self.lengths = (phase.lengths.p99, phase.lengths.p95)

    def _take_report(self, event: Event, progress: ProgressEvent) -> None:
        self.iteration = progress.iteration
        if self.trained and self._progress_at is not None:
            self._intervals = [*self._intervals, event.awake - self._progress_at][-stall.INTERVALS :]
        self.trained = True
        if progress.it_s is not None:
            self._speeds = [*self._speeds, progress.it_s][-_SPEEDS_KEPT:]

    def _take_memory(self, progress: ProgressEvent) -> None:
        memory = progress.memory
        self.peak_bytes = max(self.peak_bytes or 0, memory.peak or 0, memory.footprint or 0) or None
        shares = [self.memory_share, memory.address_space_share]
        if memory.limit and self.peak_bytes is not None:
            shares.append(self.peak_bytes / memory.limit)
        self.memory_share = max((share for share in shares if share is not None), default=None)
        if self._swap_at_start is None:
            self._swap_at_start = memory.swap
        self._reports = [*self._reports, progress][-SLOW_REPORTS:]

    @property
    def pressure_high(self) -> bool:
        """Whether the system reported memory pressure at the last sample."""
        return bool(self._reports and self._reports[-1].memory.pressure_high)

    @property
    def median_it_s(self) -> float | None:
        """Median speed of the last reports in iterations per second; None without reports."""
        return statistics.median(self._speeds) if self._speeds else None

    @property
    def validation_s(self) -> float | None:
        """Median duration of a validation in seconds; None without validations."""
        return statistics.median(self._validations) if self._validations else None

    @property
    def survived(self) -> int:
        """Iterations trained in this attempt."""
        return (self.iteration or 0) - (self.first_iteration or 0)

    def stall(self, awake: float) -> str | None:
        """Return why the phase has stalled; None if it has not. `awake` is the awake clock now."""
        if self._progress_at is None:
            return None
        allowed = stall.deadline(
            self.phase,
            limits=self._spec.lq.stall,
            intervals=self._intervals,
            slowest_row_s=self._slowest_row_s,
            rows=self._rows,
        )
        return stall.stalled(self.phase, silent_s=awake - self._progress_at, deadline_s=allowed)

    def short_of_memory(self) -> str | None:
        """Return why the attempt should continue with less memory; None if it need not."""
        if not self.trained:
            return None
        median = statistics.median(self._speeds) if len(self._speeds) > SLOW_REPORTS else None
        return guard(self._reports, swap_at_start=self._swap_at_start, median_it_s=median)
