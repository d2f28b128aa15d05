"""The simulated queue: order, slots, windows, dependencies, strict jobs, unknown durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow
from jobs.scheduling.timeline import JobTimes, PendingJob, timeline

EVENING = datetime(2026, 6, 1, 20, tzinfo=UTC).timestamp()
HOUR = 3600.0
NIGHT = time_windows.parse_window("22:00-07:00")


def played(*jobs: PendingJob, slots: int = 1) -> dict[int, JobTimes]:
    """Play the queue from 20:00 on; hours are UTC's."""
    return {one.id: one for one in timeline(jobs, now=EVENING, slots=slots, zone=UTC)}


def job(number: int, hours_left: float | None = 1.0, **fields: object) -> PendingJob:
    seconds = None if hours_left is None else hours_left * HOUR
    return PendingJob(id=number, seconds=seconds, **fields)  # type: ignore[arg-type]


def at(one: JobTimes) -> tuple[float | None, float | None]:
    """Return start and end in hours from 20:00."""
    start, end = ((None if moment is None else (moment - EVENING) / HOUR) for moment in (one.start, one.end))
    return start, end


def test_jobs_run_in_their_order() -> None:
    context = played(job(7, 2), job(3, 1), job(5, 0.5))
    assert [at(context[number]) for number in (7, 3, 5)] == [(0, 2), (2, 3), (3, 3.5)]


def test_running_job_keeps_its_slot() -> None:
    context = played(job(1, 1), job(2, 3, running=True))
    assert at(context[2]) == (0, 3)
    assert at(context[1]) == (3, 4)


def test_second_slot_takes_the_next_job() -> None:
    context = played(job(1, 4), job(2, 1), job(3, 1), slots=2)
    assert [at(context[number]) for number in (1, 2, 3)] == [(0, 4), (0, 1), (1, 2)]


def test_closed_window_lets_others_go_first() -> None:
    context = played(job(1, 1, window=NIGHT), job(2, 1))
    assert at(context[2]) == (0, 1)
    assert at(context[1]) == (2, 3)


def test_job_resumes_in_the_next_window() -> None:
    context = played(job(1, 10, window=NIGHT), job(2, 20))
    # 20:00 job 2 starts, and is not pushed aside when the window opens; then two nights
    assert at(context[2]) == (0, 20)
    assert [((start - EVENING) / HOUR, ((end or 0) - EVENING) / HOUR) for start, end in context[1].stints] == [
        (26, 35),
        (50, 51),
    ]


def test_slot_is_free_outside_the_window() -> None:
    context = played(job(1, 12, window=NIGHT, running=False), job(2, 1.5), job(3, 8))
    assert at(context[2]) == (0, 1.5)
    assert at(context[3]) == (1.5, 9.5)
    assert context[1].stints[0] == (EVENING + 9.5 * HOUR, EVENING + 11 * HOUR)


def test_job_waits_for_its_predecessors() -> None:
    context = played(job(1, 1, after=(3,)), job(2, 1), job(3, 1))
    assert [at(context[number]) for number in (2, 3, 1)] == [(0, 1), (1, 2), (2, 3)]


def test_ended_predecessors_are_ignored() -> None:
    assert at(played(job(2, 1, after=(1,)))[2]) == (0, 1)


def test_strict_job_blocks_jobs_behind_it() -> None:
    context = played(job(1, 1, window=NIGHT, strict=True), job(2, 1))
    assert at(context[1]) == (2, 3)
    assert at(context[2]) == (3, 4)


def test_waiting_job_starts_at_its_time() -> None:
    context = played(job(1, 1, not_before=EVENING + HOUR / 2), job(2, 0.25))
    assert at(context[2]) == (0, 0.25)
    assert at(context[1]) == (0.5, 1.5)


def test_unknown_duration_hides_later_starts() -> None:
    context = played(job(1, 1), job(2, None), job(3, 1), job(4, 1, after=(3,)))
    assert at(context[2]) == (1, None)
    assert context[2].behind is None
    assert (at(context[3]), context[3].behind) == ((None, None), 2)
    assert (at(context[4]), context[4].behind) == ((None, None), 2)


def test_unknown_duration_takes_one_slot() -> None:
    context = played(job(1, None), job(2, 1), job(3, 1), job(4, 1, after=(1,)), slots=2)
    assert at(context[3]) == (1, 2)
    assert context[4].behind == 1


def test_held_job_never_starts() -> None:
    context = played(job(1, 1, held=True), job(2, 1), job(3, 1, after=(1,)))
    assert at(context[2]) == (0, 1)
    assert (context[1].start, context[1].behind) == (None, 1)
    assert (context[3].start, context[3].behind) == (None, 1)


def test_circular_jobs_end_the_simulation() -> None:
    context = played(job(1, 1, after=(2,)), job(2, 1, after=(1,)), job(3, 1))
    assert at(context[3]) == (0, 1)
    assert context[1].start is None
    assert context[2].start is None


def test_strict_held_job_is_the_reason() -> None:
    context = played(job(1, 1, after=(9,), strict=True), job(2, 1), job(9, 1, held=True))
    assert context[2].behind == 9


@pytest.mark.parametrize(("due", "late"), [(3.0, -1.0), (1.5, 0.5)])
def test_deadline_margin_is_computed(due: float, late: float) -> None:
    one = played(job(1, 2, deadline=EVENING + due * HOUR))[1]
    assert one.late_s == late * HOUR


def test_unknown_end_has_no_deadline_margin() -> None:
    assert played(job(1, None, deadline=EVENING))[1].late_s is None


def test_thousand_jobs_are_fast() -> None:
    jobs = [PendingJob(id=number, seconds=600.0) for number in range(1000)]
    began = time.process_time()
    last = timeline(jobs, now=EVENING, zone=UTC)[-1]
    assert last.end == pytest.approx(EVENING + 600_000)
    assert time.process_time() - began < 1.0


MINUTES = st.integers(0, 24 * 60 - 1)
SPANS = (
    st.tuples(MINUTES, MINUTES).filter(lambda pair: pair[0] != pair[1]).map(lambda p: TimeWindow(start=p[0], end=p[1]))
)


@st.composite
def queues(draw: st.DrawFn) -> list[PendingJob]:
    """Draw a queue; its jobs come after earlier or later ones."""
    count = draw(st.integers(1, 8))
    return [
        PendingJob(
            id=number,
            seconds=draw(st.none() | st.floats(60, 90_000)),
            held=draw(st.integers(0, 9)) == 0,
            not_before=draw(st.none() | st.floats(EVENING - HOUR, EVENING + 50 * HOUR)),
            window=draw(st.none() | SPANS),
            after=tuple(one for one in draw(st.lists(st.integers(0, count - 1), max_size=2)) if one != number),
            strict=draw(st.integers(0, 5)) == 0,
        )
        for number in range(count)
    ]


@given(queues(), st.integers(1, 3))
def test_simulation_keeps_every_rule(jobs: list[PendingJob], slots: int) -> None:
    placed = timeline(jobs, now=EVENING, slots=slots, zone=UTC)
    by_id = {one.id: one for one in placed}
    assert [one.id for one in placed] == [one.id for one in jobs]
    for asked, one in zip(jobs, placed, strict=True):
        assert (one.behind is None) == (one.end is not None or bool(one.stints and asked.seconds is None)), asked
        if one.end is not None:
            assert asked.seconds is not None
            done = sum((end or 0) - start for start, end in one.stints)
            assert done == pytest.approx(asked.seconds, abs=0.01)
        for start, end in one.stints:
            assert not asked.held
            assert start >= max(EVENING, asked.not_before or EVENING)
            for before in asked.after:
                ended = by_id[before].end
                assert ended is not None
                assert ended <= start + 1e-6
            if asked.window is not None and end is not None:
                closes = time_windows.until(asked.window, start, UTC)
                assert closes is not None
                assert end <= closes
    _require_slots(placed, slots)
    _require_strict(jobs, by_id)


def _require_slots(placed: list[JobTimes], slots: int) -> None:
    stints = [(start, end if end is not None else float("inf")) for one in placed for start, end in one.stints]
    for start, _ in stints:
        assert sum(first <= start < last for first, last in stints) <= slots


def _require_strict(jobs: list[PendingJob], by_id: dict[int, JobTimes]) -> None:
    for place, asked in enumerate(jobs):
        if asked.strict and not asked.held:
            first = by_id[asked.id].start
            for behind in jobs[place + 1 :]:
                start = by_id[behind.id].start
                assert start is None or (first is not None and first <= start)


@given(queues())
def test_one_slot_keeps_the_queue_order(jobs: list[PendingJob]) -> None:
    plain = [PendingJob(id=one.id, seconds=one.seconds or 60.0) for one in jobs]
    starts = [one.start for one in timeline(plain, now=EVENING, zone=UTC)]
    assert starts == sorted(start for start in starts if start is not None)
