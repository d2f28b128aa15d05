"""AttemptHealth: stalls, memory and speed from the events of an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.model.events import Event, Kind
from jobs.model.spec import JobSpec
from jobs.policies.attempt_health import AttemptHealth

GB = 1_000_000_000


class Trainer:
    """A trainer of attempt 2 that reports at given awake times."""

    def __init__(self, **lq: Any) -> None:
        self.health = AttemptHealth(2, JobSpec.model_validate({"lq": lq}))
        self.seq = 0

    def event(self, kind: Kind, awake: float, *, attempt: int = 2, **data: Any) -> Event:
        self.seq += 1
        return Event(seq=self.seq, time=awake, awake=awake, attempt=attempt, kind=kind, data=data)

    def emit(self, kind: Kind, awake: float, **data: Any) -> None:
        self.health.take([self.event(kind, awake, **data)])

    def report(self, awake: float, iteration: int, *, it_s: float = 4.0, **memory: Any) -> None:
        self.emit(Kind.PROGRESS, awake, iteration=iteration, losses=[1.0], it_s=it_s, memory=memory)

    def train(self, *, every: float = 10.0, until: float = 140.0) -> None:
        """Start at iteration 40 and awake time 100, and report until a time."""
        self.emit(Kind.STARTED, 100.0, iteration=40, stage=0)
        self.emit(Kind.PHASE, 100.0, phase="train")
        awake, iteration = 100.0 + every, 50
        while awake <= until:
            self.report(awake, iteration)
            awake, iteration = awake + every, iteration + 10

    def stalls_at(self, awake: float) -> bool:
        return self.health.stall(awake) is not None


def test_no_stall_before_the_first_event() -> None:
    assert Trainer().health.stall(1e9) is None


@pytest.mark.parametrize(
    ("phase", "seconds"), [("load", 1800.0), ("tokenize", 1800.0), ("probe", 1200.0), ("save", 300.0)]
)
def test_each_phase_has_its_own_limit(phase: str, seconds: float) -> None:
    trainer = Trainer()
    trainer.emit(Kind.STARTED, 100.0, iteration=0, stage=0)
    trainer.emit(Kind.PHASE, 200.0, phase=phase)
    assert not trainer.stalls_at(200.0 + seconds)
    found = trainer.health.stall(200.1 + seconds)
    assert found is not None
    assert f"in phase {phase} " in found


def test_heartbeat_is_no_progress() -> None:
    trainer = Trainer()
    trainer.train()
    for awake in range(150, 300, 10):
        trainer.emit(Kind.PROGRESS, float(awake), iteration=80, losses=[], memory={})
    assert trainer.stalls_at(231.0), "90 s after the report at 140"


def test_rare_reports_raise_the_limit() -> None:
    trainer = Trainer()
    trainer.train(every=50.0, until=300.0)
    assert not trainer.stalls_at(300.0 + 6 * 50.0)
    assert trainer.stalls_at(300.1 + 6 * 50.0)


def test_slow_validation_is_no_stall() -> None:
    trainer = Trainer()
    trainer.train()
    trainer.emit(Kind.PHASE, 140.0, phase="validate")
    assert not trainer.stalls_at(140.0 + 3600.0)
    trainer.emit(Kind.VALIDATION, 1140.0, iteration=0, examples=100, seconds=1000.0, loss=1.0)
    trainer.emit(Kind.PHASE, 1140.0, phase="train")
    assert not trainer.stalls_at(1140.0 + 90.0)
    trainer.report(1150.0, 90)
    assert trainer.stalls_at(1150.0 + 91.0), "the validation is not an interval between reports"


def test_second_validation_uses_the_first() -> None:
    trainer = Trainer()
    trainer.train()
    trainer.emit(Kind.VALIDATION, 240.0, iteration=0, examples=100, seconds=100.0, loss=1.0)
    trainer.emit(Kind.PHASE, 300.0, phase="validate")
    assert not trainer.stalls_at(300.0 + 600.0)
    assert trainer.stalls_at(300.1 + 600.0)


def test_sleep_of_machine_is_no_stall() -> None:
    """During eight hours of sleep, the awake clock advances by one second."""
    trainer = Trainer()
    trainer.train()
    last = trainer.event(Kind.PROGRESS, 141.0, iteration=90, losses=[1.0], memory={})
    trainer.health.take(
        [Event(seq=last.seq, time=141.0 + 8 * 3600, awake=141.0, attempt=2, kind=last.kind, data=last.data)]
    )
    assert not trainer.stalls_at(142.0)


def test_other_and_old_events_are_ignored() -> None:
    trainer = Trainer()
    trainer.train()
    trainer.health.take([trainer.event(Kind.PHASE, 999.0, attempt=1, phase="load")])
    old = Event(seq=1, time=0.0, awake=999.0, attempt=2, kind=Kind.STARTED, data={"iteration": 7, "stage": 0})
    trainer.health.take([old])
    assert (trainer.health.phase, trainer.health.first_iteration) == ("train", 40)
    assert trainer.stalls_at(231.0)


def test_survived_counts_new_iterations() -> None:
    trainer = Trainer()
    assert (trainer.health.survived, trainer.health.trained) == (0, False)
    trainer.train()
    assert (trainer.health.survived, trainer.health.trained) == (40, True)


def test_probe_reports_row_lengths() -> None:
    trainer = Trainer()
    trainer.emit(Kind.PHASE, 1.0, phase="probe", lengths={"p99": 900, "p95": 500, "max": 1000})
    assert trainer.health.lengths == (900, 500)


# --- memory ---


def test_peak_is_highest_of_both_figures() -> None:
    trainer = Trainer()
    trainer.train()
    assert trainer.health.peak_bytes is None
    trainer.report(150.0, 90, peak=7 * GB, footprint=5 * GB)
    trainer.report(160.0, 100, peak=7 * GB, footprint=51 * GB)
    trainer.report(170.0, 110, peak=7 * GB, footprint=6 * GB)
    assert trainer.health.peak_bytes == 51 * GB


def test_memory_guard_starts_with_training() -> None:
    """Loading needs other memory than training; a stop would not help."""
    trainer = Trainer()
    trainer.emit(Kind.PROGRESS, 1.0, iteration=0, losses=[], memory={"footprint": 99 * GB, "limit": 10 * GB})
    assert trainer.health.short_of_memory() is None


def test_guard_triggers_near_the_limit() -> None:
    trainer = Trainer()
    trainer.train()
    trainer.report(150.0, 90, footprint=9 * GB, limit=10 * GB)
    assert trainer.health.short_of_memory() is None
    trainer.report(160.0, 100, footprint=int(9.5 * GB), limit=10 * GB)
    assert "9.50 GB" in (trainer.health.short_of_memory() or "")


def test_swap_counts_from_attempt_start() -> None:
    trainer = Trainer()
    trainer.emit(Kind.STARTED, 1.0, iteration=0, stage=0)
    trainer.report(10.0, 10, swap=5 * GB)
    trainer.report(20.0, 20, swap=7 * GB)
    assert trainer.health.short_of_memory() is None
    trainer.report(30.0, 30, swap=8 * GB)
    assert "3.00 GB" in (trainer.health.short_of_memory() or "")


def test_slow_reports_need_memory_pressure() -> None:
    for pressure in (True, False):
        trainer = Trainer()
        trainer.train(every=1.0, until=110.0)
        for step in range(3):
            trainer.report(120.0 + step, 150 + step, it_s=0.5, pressure_high=pressure)
        assert (trainer.health.short_of_memory() is not None) == pressure
        assert trainer.health.pressure_high == pressure


# --- speed, for later estimates ---


def test_speed_is_known_from_events() -> None:
    trainer = Trainer()
    assert (trainer.health.median_it_s, trainer.health.start_s, trainer.health.validation_s) == (None, None, None)
    trainer.emit(Kind.STARTED, 100.0, iteration=0, stage=0, create_time=97.5)
    trainer.emit(Kind.PHASE, 104.0, phase="probe")
    trainer.emit(Kind.PHASE, 110.0, phase="train")
    for awake, seconds in ((112.0, 2.0), (300.0, 4.0), (500.0, 3.0)):
        trainer.emit(Kind.VALIDATION, awake, iteration=0, loss=1.0, examples=8, seconds=seconds)
        trainer.emit(Kind.PHASE, awake, phase="train")
    for it_s in (1.0, 4.0, 5.0):
        trainer.report(600.0, 10, it_s=it_s)
    assert trainer.health.start_s == 12.5, "from the start of the process, before its first event"
    assert trainer.health.validation_s == 3.0
    assert trainer.health.median_it_s == 4.0
