"""What an attempt's events say about its life: silence, memory, progress."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.model.events import Event, Kind
from jobs.model.spec import JobSpec
from jobs.policies.attempt_health import AttemptHealth

GB = 1_000_000_000


class Child:
    """A child of attempt 2 that says what a test wants, at awake times the test names."""

    def __init__(self, **lq: Any) -> None:
        self.health = AttemptHealth(2, JobSpec.model_validate({"lq": lq}))
        self.seq = 0

    def event(self, kind: Kind, awake: float, *, attempt: int = 2, **data: Any) -> Event:
        self.seq += 1
        return Event(seq=self.seq, time=awake, awake=awake, attempt=attempt, kind=kind, data=data)

    def say(self, kind: Kind, awake: float, **data: Any) -> None:
        self.health.take([self.event(kind, awake, **data)])

    def report(self, awake: float, iteration: int, *, it_s: float = 4.0, **memory: Any) -> None:
        self.say(Kind.PROGRESS, awake, iteration=iteration, losses=[1.0], it_s=it_s, memory=memory)

    def trains(self, *, every: float = 10.0, until: float = 140.0) -> None:
        """Begin at iteration 40 and report up to some time; the clock begins at 100."""
        self.say(Kind.STARTED, 100.0, iteration=40, stage=0)
        self.say(Kind.PHASE, 100.0, phase="train")
        awake, iteration = 100.0 + every, 50
        while awake <= until:
            self.report(awake, iteration)
            awake, iteration = awake + every, iteration + 10

    def stalls_at(self, awake: float) -> bool:
        return self.health.stall(awake) is not None


def test_nothing_is_said_of_a_child_that_has_not_spoken() -> None:
    assert Child().health.stall(1e9) is None


@pytest.mark.parametrize(
    ("phase", "seconds"), [("load", 1800.0), ("tokenize", 1800.0), ("probe", 1200.0), ("save", 300.0)]
)
def test_each_phase_has_its_own_patience(phase: str, seconds: float) -> None:
    child = Child()
    child.say(Kind.STARTED, 100.0, iteration=0, stage=0)
    child.say(Kind.PHASE, 200.0, phase=phase)
    assert not child.stalls_at(200.0 + seconds)
    found = child.health.stall(200.1 + seconds)
    assert found is not None
    assert found.phase == phase


def test_a_heartbeat_is_a_sign_of_life_but_no_progress() -> None:
    child = Child()
    child.trains()
    for awake in range(150, 300, 10):
        child.say(Kind.PROGRESS, float(awake), iteration=80, losses=[], memory={})
    assert child.stalls_at(231.0), "90 s after the report at 140"


def test_a_trainer_that_reports_seldom_is_waited_for_longer() -> None:
    child = Child()
    child.trains(every=50.0, until=300.0)
    assert not child.stalls_at(300.0 + 6 * 50.0)
    assert child.stalls_at(300.1 + 6 * 50.0)


def test_a_slow_validation_is_no_stall_and_training_after_it_is_watched_as_before() -> None:
    child = Child()
    child.trains()
    child.say(Kind.PHASE, 140.0, phase="validate")
    assert not child.stalls_at(140.0 + 3600.0)
    child.say(Kind.VALIDATION, 1140.0, examples=100, seconds=1000.0, loss=1.0)
    child.say(Kind.PHASE, 1140.0, phase="train")
    assert not child.stalls_at(1140.0 + 90.0)
    child.report(1150.0, 90)
    assert child.stalls_at(1150.0 + 91.0), "the time of the validation is no interval of training"


def test_the_second_validation_is_measured_by_the_first() -> None:
    child = Child()
    child.trains()
    child.say(Kind.VALIDATION, 240.0, examples=100, seconds=100.0, loss=1.0)
    child.say(Kind.PHASE, 300.0, phase="validate")
    assert not child.stalls_at(300.0 + 600.0)
    assert child.stalls_at(300.1 + 600.0)


def test_the_clock_is_the_one_that_stops_in_sleep() -> None:
    """Eight hours of sleep pass between two looks; that clock has moved by a second."""
    child = Child()
    child.trains()
    last = child.event(Kind.PROGRESS, 141.0, iteration=90, losses=[1.0], memory={})
    child.health.take(
        [Event(seq=last.seq, time=141.0 + 8 * 3600, awake=141.0, attempt=2, kind=last.kind, data=last.data)]
    )
    assert not child.stalls_at(142.0)


def test_other_attempts_events_and_events_seen_before_change_nothing() -> None:
    child = Child()
    child.trains()
    child.health.take([child.event(Kind.PHASE, 999.0, attempt=1, phase="load")])
    old = Event(seq=1, time=0.0, awake=999.0, attempt=2, kind=Kind.STARTED, data={"iteration": 7, "stage": 0})
    child.health.take([old])
    assert (child.health.phase, child.health.first_iteration) == ("train", 40)
    assert child.stalls_at(231.0)


def test_what_an_attempt_survived_is_counted_from_where_it_began() -> None:
    child = Child()
    assert (child.health.survived, child.health.trained) == (0, False)
    child.trains()
    assert (child.health.survived, child.health.trained) == (40, True)


def test_the_lengths_of_the_rows_are_told_by_the_probe() -> None:
    child = Child()
    child.say(Kind.PHASE, 1.0, phase="probe", lengths={"p99": 900, "p95": 500, "max": 1000})
    assert child.health.lengths == (900, 500)


# --- memory ---


def test_the_peak_is_the_most_that_was_seen_of_either_figure() -> None:
    child = Child()
    child.trains()
    assert child.health.peak_bytes is None
    child.report(150.0, 90, peak=7 * GB, footprint=5 * GB)
    child.report(160.0, 100, peak=7 * GB, footprint=51 * GB)
    child.report(170.0, 110, peak=7 * GB, footprint=6 * GB)
    assert child.health.peak_bytes == 51 * GB


def test_no_memory_is_short_before_it_trains() -> None:
    """What loading takes is not what training takes; a stop then would bring nothing."""
    child = Child()
    child.say(Kind.PROGRESS, 1.0, iteration=0, losses=[], memory={"footprint": 99 * GB, "limit": 10 * GB})
    assert child.health.short_of_memory() is None


def test_the_guard_speaks_as_soon_as_the_limit_is_near() -> None:
    child = Child()
    child.trains()
    child.report(150.0, 90, footprint=9 * GB, limit=10 * GB)
    assert child.health.short_of_memory() is None
    child.report(160.0, 100, footprint=int(9.5 * GB), limit=10 * GB)
    assert child.health.short_of_memory() == "it took 9.50 GB, more than 92% of its limit of 10.00 GB"


def test_swap_is_counted_from_this_attempts_beginning() -> None:
    child = Child()
    child.say(Kind.STARTED, 1.0, iteration=0, stage=0)
    child.report(10.0, 10, swap=5 * GB)
    child.report(20.0, 20, swap=7 * GB)
    assert child.health.short_of_memory() is None
    child.report(30.0, 30, swap=8 * GB)
    assert child.health.short_of_memory() == "swap grew by 3.00 GB since it began"


def test_a_crawl_under_pressure_is_noticed_and_a_crawl_without_is_not() -> None:
    for pressure in (True, False):
        child = Child()
        child.trains(every=1.0, until=110.0)
        for step in range(3):
            child.report(120.0 + step, 150 + step, it_s=0.5, pressure_high=pressure)
        assert (child.health.short_of_memory() is not None) == pressure
        assert child.health.pressure_high == pressure


# --- how fast it goes, for later plans ---


def test_the_pace_of_an_attempt_is_known_from_its_events() -> None:
    child = Child()
    assert (child.health.median_it_s, child.health.start_s, child.health.validation_s) == (None, None, None)
    child.say(Kind.STARTED, 100.0, iteration=0, stage=0, create_time=97.5)
    child.say(Kind.PHASE, 104.0, phase="probe")
    child.say(Kind.PHASE, 110.0, phase="train")
    for awake, seconds in ((112.0, 2.0), (300.0, 4.0), (500.0, 3.0)):
        child.say(Kind.VALIDATION, awake, iteration=0, loss=1.0, examples=8, seconds=seconds)
        child.say(Kind.PHASE, awake, phase="train")
    for it_s in (1.0, 4.0, 5.0):
        child.report(600.0, 10, it_s=it_s)
    assert child.health.start_s == 12.5, "from the process's own start, before it said a word"
    assert child.health.validation_s == 3.0
    assert child.health.median_it_s == 4.0
