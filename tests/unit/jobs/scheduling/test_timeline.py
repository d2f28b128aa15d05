"""The night as it will go: order, slots, windows, dependencies, strict jobs, what is not known."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow
from jobs.scheduling.timeline import Ahead, Placed, timeline

EVENING = datetime(2026, 6, 1, 20, tzinfo=UTC).timestamp()
HOUR = 3600.0
NIGHT = time_windows.parse_window("22:00-07:00")


def played(*jobs: Ahead, slots: int = 1) -> dict[int, Placed]:
    """Play the queue from 20:00 on; hours are UTC's."""
    return {one.id: one for one in timeline(jobs, now=EVENING, slots=slots, zone=UTC)}


def job(number: int, hours_left: float | None = 1.0, **fields: object) -> Ahead:
    seconds = None if hours_left is None else hours_left * HOUR
    return Ahead(id=number, seconds=seconds, **fields)  # type: ignore[arg-type]


def at(one: Placed) -> tuple[float | None, float | None]:
    """Return start and end in hours from 20:00."""
    start, end = ((None if moment is None else (moment - EVENING) / HOUR) for moment in (one.start, one.end))
    return start, end


def test_jobs_run_one_after_another_in_their_order() -> None:
    context = played(job(7, 2), job(3, 1), job(5, 0.5))
    assert [at(context[number]) for number in (7, 3, 5)] == [(0, 2), (2, 3), (3, 3.5)]


def test_a_job_that_runs_keeps_its_slot_whatever_stands_before_it() -> None:
    context = played(job(1, 1), job(2, 3, running=True))
    assert at(context[2]) == (0, 3)
    assert at(context[1]) == (3, 4)


def test_a_second_slot_takes_the_next() -> None:
    context = played(job(1, 4), job(2, 1), job(3, 1), slots=2)
    assert [at(context[number]) for number in (1, 2, 3)] == [(0, 4), (0, 1), (1, 2)]


def test_a_window_is_waited_for_and_others_go_before() -> None:
    context = played(job(1, 1, window=NIGHT), job(2, 1))
    assert at(context[2]) == (0, 1)
    assert at(context[1]) == (2, 3)


def test_a_job_stops_where_its_window_closes_and_goes_on_the_next_night() -> None:
    context = played(job(1, 10, window=NIGHT), job(2, 20))
    # 20:00 job 2 starts, and is not pushed aside when the window opens; then two nights
    assert at(context[2]) == (0, 20)
    assert [((start - EVENING) / HOUR, ((end or 0) - EVENING) / HOUR) for start, end in context[1].stints] == [
        (26, 35),
        (50, 51),
    ]


def test_another_job_takes_the_slot_while_a_window_is_closed() -> None:
    context = played(job(1, 12, window=NIGHT, running=False), job(2, 1.5), job(3, 8))
    assert at(context[2]) == (0, 1.5)
    assert at(context[3]) == (1.5, 9.5)
    assert context[1].stints[0] == (EVENING + 9.5 * HOUR, EVENING + 11 * HOUR)


def test_a_job_waits_for_those_it_comes_after_and_blocks_nobody() -> None:
    context = played(job(1, 1, after=(3,)), job(2, 1), job(3, 1))
    assert [at(context[number]) for number in (2, 3, 1)] == [(0, 1), (1, 2), (2, 3)]


def test_what_has_ended_already_is_not_waited_for() -> None:
    assert at(played(job(2, 1, after=(1,)))[2]) == (0, 1)


def test_a_strict_job_keeps_those_behind_it_from_starting() -> None:
    context = played(job(1, 1, window=NIGHT, strict=True), job(2, 1))
    assert at(context[1]) == (2, 3)
    assert at(context[2]) == (3, 4)


def test_a_job_that_waits_starts_at_its_hour() -> None:
    context = played(job(1, 1, not_before=EVENING + HOUR / 2), job(2, 0.25))
    assert at(context[2]) == (0, 0.25)
    assert at(context[1]) == (0.5, 1.5)


def test_behind_an_unknown_length_nothing_is_known_and_it_says_after_whom() -> None:
    context = played(job(1, 1), job(2, None), job(3, 1), job(4, 1, after=(3,)))
    assert at(context[2]) == (1, None)
    assert context[2].behind is None
    assert (at(context[3]), context[3].behind) == ((None, None), 2)
    assert (at(context[4]), context[4].behind) == ((None, None), 2)


def test_a_second_slot_goes_on_beside_an_unknown_length() -> None:
    context = played(job(1, None), job(2, 1), job(3, 1), job(4, 1, after=(1,)), slots=2)
    assert at(context[3]) == (1, 2)
    assert context[4].behind == 1


def test_held_jobs_start_never_and_are_their_own_reason() -> None:
    context = played(job(1, 1, held=True), job(2, 1), job(3, 1, after=(1,)))
    assert at(context[2]) == (0, 1)
    assert (context[1].start, context[1].behind) == (None, 1)
    assert (context[3].start, context[3].behind) == (None, 1)


def test_jobs_that_wait_for_each_other_end_the_play() -> None:
    context = played(job(1, 1, after=(2,)), job(2, 1, after=(1,)), job(3, 1))
    assert at(context[3]) == (0, 1)
    assert context[1].start is None
    assert context[2].start is None


def test_a_strict_job_that_never_starts_is_the_reason_of_those_behind_it() -> None:
    context = played(job(1, 1, after=(9,), strict=True), job(2, 1), job(9, 1, held=True))
    assert context[2].behind == 9


@pytest.mark.parametrize(("due", "late"), [(3.0, -1.0), (1.5, 0.5)])
def test_a_deadline_is_met_or_missed_by_so_much(due: float, late: float) -> None:
    one = played(job(1, 2, deadline=EVENING + due * HOUR))[1]
    assert one.late_s == late * HOUR


def test_of_an_unknown_end_no_deadline_is_judged() -> None:
    assert played(job(1, None, deadline=EVENING))[1].late_s is None


def test_a_thousand_jobs_are_placed_at_once() -> None:
    jobs = [Ahead(id=number, seconds=600.0) for number in range(1000)]
    began = time.process_time()
    last = timeline(jobs, now=EVENING, zone=UTC)[-1]
    assert last.end == pytest.approx(EVENING + 600_000)
    assert time.process_time() - began < 1.0


MINUTES = st.integers(0, 24 * 60 - 1)
SPANS = (
    st.tuples(MINUTES, MINUTES).filter(lambda pair: pair[0] != pair[1]).map(lambda p: TimeWindow(start=p[0], end=p[1]))
)


@st.composite
def queues(draw: st.DrawFn) -> list[Ahead]:
    """Draw a queue; its jobs come after earlier or later ones."""
    count = draw(st.integers(1, 8))
    return [
        Ahead(
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
def test_no_rule_is_ever_broken(jobs: list[Ahead], slots: int) -> None:
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


def _require_slots(placed: list[Placed], slots: int) -> None:
    stints = [(start, end if end is not None else float("inf")) for one in placed for start, end in one.stints]
    for start, _ in stints:
        assert sum(first <= start < last for first, last in stints) <= slots


def _require_strict(jobs: list[Ahead], by_id: dict[int, Placed]) -> None:
    for place, asked in enumerate(jobs):
        if asked.strict and not asked.held:
            first = by_id[asked.id].start
            for behind in jobs[place + 1 :]:
                start = by_id[behind.id].start
                assert start is None or (first is not None and first <= start)


@given(queues())
def test_one_slot_keeps_to_the_order_of_those_that_may_start(jobs: list[Ahead]) -> None:
    plain = [Ahead(id=one.id, seconds=one.seconds or 60.0) for one in jobs]
    starts = [one.start for one in timeline(plain, now=EVENING, zone=UTC)]
    assert starts == sorted(start for start in starts if start is not None)
