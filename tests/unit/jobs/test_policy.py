"""What becomes of a job when an attempt has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Leg
from jobs.model.spec import JobSpec
from jobs.model.states import LEGAL, Status
from jobs.policies.after_attempt import DISK_LOOK_S, GPU_REST_S, WISHES, Decision, History, Wish, decide, wish_from
from jobs.policies.exits import TOO_LARGE_BUFFER
from jobs.policies.retry import Death

ENDINGS = {
    Outcome.DONE: Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="trained to its last iteration"),
    Outcome.STOPPED: Ending(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail="stopped on request"),
    Outcome.DIED: Ending(outcome=Outcome.DIED, reason=Reason.KILLED, detail="ended by SIGKILL"),
    Outcome.REFUSED: Ending(outcome=Outcome.REFUSED, reason=Reason.DATA_INVALID, detail="train.jsonl: changed"),
}
LEG = Leg(first_example=0, batch_size=4, grad_accumulation_steps=2, grad_checkpoint=False, max_seq_length=2048)
NOW = 1000.0


def decision(
    outcome: Outcome, wish: Wish | None, *, progress: Sequence[int], max_restarts: int = 5, crash_loop: int = 100
) -> Decision:
    deaths = [Death(gained=gained, reason="killed") for gained in progress]
    spec = JobSpec.model_validate({"lq": {"retry": {"max_restarts": max_restarts, "crash_loop": crash_loop}}})
    return decide(ENDINGS[outcome], spec=spec, history=History(wish=wish, deaths=deaths), now=NOW, jitter=0.0)


def death(reason: Reason, detail: str = "why", *, lq: dict[str, Any] | None = None, **history: Any) -> Decision:
    """Decide about a death for a reason, the first one unless the history says otherwise."""
    seen: dict[str, Any] = {"deaths": [Death(gained=0, reason=reason)], "leg": LEG} | history
    ending = Ending(outcome=Outcome.DIED, reason=reason, detail=detail)
    spec = JobSpec.model_validate({"lq": lq or {}})
    return decide(ending, spec=spec, history=History(**seen), now=NOW, jitter=0.0)


def times(count: int, reason: Reason) -> list[Death]:
    return [Death(gained=0, reason=reason)] * count


@pytest.mark.parametrize(
    ("outcome", "wish", "status", "reason"),
    [
        # done is done, whatever was asked meanwhile
        (Outcome.DONE, None, Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "cancel", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "pause", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "worker_stop", Status.SUCCEEDED, Reason.COMPLETED),
        # a cancelled job never comes back by itself
        (Outcome.STOPPED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.DIED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.REFUSED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        # what would happen again is not tried again
        (Outcome.REFUSED, None, Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "pause", Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "worker_stop", Status.FAILED, Reason.DATA_INVALID),
        # who asks for a pause gets one, even if the trainer died on the way
        (Outcome.STOPPED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.STOPPED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.DIED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.DIED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        # nobody of ours asked: go on
        (Outcome.STOPPED, None, Status.WAITING, Reason.STOPPED_BY_USER),
        (Outcome.DIED, None, Status.WAITING, Reason.KILLED),
    ],
)
def test_what_becomes_of_a_job(outcome: Outcome, wish: Wish | None, status: Status, reason: Reason) -> None:
    found = decision(outcome, wish, progress=[0] if outcome is Outcome.DIED else [])
    assert (found.status, found.reason) == (status, reason)
    assert found.status in LEGAL[Status.RUNNING]
    assert (found.not_before is not None) == (found.status is Status.WAITING)
    assert found.detail
    assert "\n" not in found.detail


def test_the_first_death_is_answered_at_once_and_the_second_after_ten_seconds() -> None:
    assert decision(Outcome.DIED, None, progress=[30]).not_before == 1000.0
    assert decision(Outcome.DIED, None, progress=[30, 5]).not_before == 1010.0


def test_a_term_from_outside_costs_no_restart() -> None:
    found = decision(Outcome.STOPPED, None, progress=[0] * 50, max_restarts=0)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)


def test_a_job_that_keeps_dying_is_given_up_with_the_numbers() -> None:
    found = decision(Outcome.DIED, None, progress=[0, 3, 0], max_restarts=2)
    assert (found.status, found.reason, found.not_before) == (Status.FAILED, Reason.KILLED, None)
    assert found.detail == "ended by SIGKILL; died 3 times in a row without new progress (retry.max_restarts: 2)"
    assert found.evidence == {
        "reason": "killed",
        "deaths_in_a_row": 3,
        "max_restarts": 2,
        "new_iterations": 0,
        "delay_s": 20.0,
    }


def test_a_job_that_dies_at_the_same_place_for_ever_is_a_crash_loop() -> None:
    assert decision(Outcome.DIED, None, progress=[0] * 3, crash_loop=3).status is Status.WAITING
    found = decision(Outcome.DIED, None, progress=[0] * 4, crash_loop=3)
    assert (found.status, found.reason, found.not_before) == (Status.FAILED, Reason.CRASH_LOOP, None)
    assert found.detail == "ended by SIGKILL; died 4 times in a row without new progress (retry.crash_loop: 3)"
    assert found.evidence["reason"] == "killed"


def test_three_restarts_are_the_most_unless_the_job_says_otherwise() -> None:
    assert death(Reason.CRASHED, deaths=times(3, Reason.CRASHED)).status is Status.WAITING
    assert death(Reason.CRASHED, deaths=times(4, Reason.CRASHED)).reason is Reason.CRASH_LOOP


def test_a_death_after_a_good_stretch_is_no_reason_to_give_up() -> None:
    found = decision(Outcome.DIED, None, progress=[0, 3, 500], max_restarts=2)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)
    assert found.evidence["deaths_in_a_row"] == 1


def test_the_detail_says_who_paused_it() -> None:
    assert "user" in decision(Outcome.STOPPED, "pause", progress=[]).detail
    assert "worker" in decision(Outcome.STOPPED, "worker_stop", progress=[]).detail


def test_a_wish_is_read_as_the_store_keeps_it() -> None:
    assert [wish_from(wish) for wish in WISHES] == list(WISHES)
    assert wish_from(None) is None
    assert wish_from("a good night") is None


# --- what the reason asks for ---


@pytest.mark.parametrize("reason", [Reason.GPU_TIMEOUT, Reason.GPU_WATCHDOG])
def test_a_gpu_that_was_taken_away_gets_a_minute(reason: Reason) -> None:
    found = death(reason)
    assert (found.status, found.not_before, found.leg) == (Status.WAITING, NOW + GPU_REST_S, None)
    assert found.evidence["delay_s"] == GPU_REST_S
    assert "resumed" in found.answer


def test_a_rest_for_the_gpu_does_not_shorten_a_longer_wait() -> None:
    deaths = times(6, Reason.GPU_TIMEOUT)
    found = death(Reason.GPU_TIMEOUT, deaths=deaths, lq={"retry": {"max_restarts": 9, "crash_loop": 9}})
    assert found.not_before == NOW + 160


def test_the_display_is_named_the_first_time_and_segments_are_shortened_the_second() -> None:
    assert "display" in death(Reason.GPU_WATCHDOG).answer
    deaths = times(2, Reason.GPU_WATCHDOG)
    found = death(Reason.GPU_WATCHDOG, deaths=deaths, survived=1200, next_example=4000)
    assert found.leg == dataclasses.replace(LEG, first_example=4000, segment=600, because="segments of 600 iterations")
    other = [*times(1, Reason.GPU_WATCHDOG), *times(1, Reason.KILLED), *times(1, Reason.GPU_WATCHDOG)]
    assert death(Reason.GPU_WATCHDOG, deaths=other, survived=1200).leg is None, "not twice in a row"


def test_leaked_handles_are_answered_by_segments_of_half_of_what_was_survived() -> None:
    found = death(Reason.DESCRIPTOR_LEAK, survived=2001, next_example=8000)
    assert (found.status, found.not_before) == (Status.WAITING, NOW)
    assert found.leg == dataclasses.replace(
        LEG, first_example=8000, segment=1000, because="segments of 1000 iterations"
    )
    assert "every 1000 iterations" in found.answer


@pytest.mark.parametrize("survived", [0, 1])
def test_a_segment_is_at_least_one_iteration(survived: int) -> None:
    leg = death(Reason.DESCRIPTOR_LEAK, survived=survived).leg
    assert leg is not None
    assert leg.segment == 1


def test_a_restart_of_the_machine_is_answered_by_a_resume_and_twice_a_day_by_a_hold() -> None:
    first = death(Reason.HOST_REBOOTED, "another boot id", reboots=1)
    assert (first.status, first.reason, first.not_before) == (Status.WAITING, Reason.HOST_REBOOTED, NOW)
    second = death(Reason.HOST_REBOOTED, "another boot id", reboots=2)
    assert (second.status, second.reason, second.not_before) == (Status.HELD, Reason.HOST_REBOOTED, None)
    assert second.status in LEGAL[Status.RUNNING]
    assert second.detail == "the machine was restarted 2 times within a day while this job ran"
    assert second.evidence["reboots_in_24_h"] == 2
    assert "lq release" in second.answer


def test_other_deaths_on_a_day_of_restarts_hold_nothing() -> None:
    assert death(Reason.KILLED, reboots=5).status is Status.WAITING


def test_a_full_disk_is_waited_for_and_never_given_up() -> None:
    deaths = times(50, Reason.DISK_FULL)
    found = death(Reason.DISK_FULL, deaths=deaths, lq={"retry": {"max_restarts": 0, "crash_loop": 1}})
    assert (found.status, found.reason, found.not_before) == (Status.WAITING, Reason.DISK_FULL, NOW + DISK_LOOK_S)
    assert "space" in found.answer


def test_too_little_memory_climbs_the_ladder_without_a_pause() -> None:
    found = death(Reason.OUT_OF_MEMORY, next_example=80)
    assert (found.status, found.reason, found.not_before) == (Status.WAITING, Reason.OUT_OF_MEMORY, NOW)
    assert found.leg is not None
    assert (found.leg.grad_checkpoint, found.leg.first_example) == (True, 80)
    assert found.answer == "gradient checkpointing on"


def test_the_ladder_is_climbed_to_its_top_however_often_the_job_died() -> None:
    """Each rung is another run; the breaker is for those that try the same again."""
    found = death(
        Reason.OUT_OF_MEMORY,
        deaths=times(9, Reason.OUT_OF_MEMORY),
        lq={"retry": {"max_restarts": 0, "crash_loop": 1}},
    )
    assert found.leg is not None


def test_once_more_as_it_was_appends_no_leg() -> None:
    found = death(Reason.OUT_OF_MEMORY, peak_bytes=4_000_000_000, free_bytes=9_000_000_000)
    assert (found.status, found.leg) == (Status.WAITING, None)
    assert found.answer == "once more as it was: 9.00 GB are free now, its peak was 4.00 GB"
    assert (found.evidence["peak_bytes"], found.evidence["free_bytes"]) == (4_000_000_000, 9_000_000_000)


def test_a_buffer_larger_than_the_device_allows_is_never_tried_as_it_was() -> None:
    detail = f"{TOO_LARGE_BUFFER}: [metal::malloc] Attempting to allocate"
    found = death(Reason.OUT_OF_MEMORY, detail, peak_bytes=4_000_000_000, free_bytes=9_000_000_000)
    assert found.leg is not None
    assert found.leg.grad_checkpoint


def test_at_the_top_of_the_ladder_it_fails_and_says_what_would_fit() -> None:
    top = dataclasses.replace(LEG, batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True)
    found = death(Reason.OUT_OF_MEMORY, "the GPU ran out of memory: x", leg=top)
    assert (found.status, found.reason, found.leg) == (Status.FAILED, Reason.OUT_OF_MEMORY, None)
    assert found.detail.startswith("the GPU ran out of memory: x; nothing smaller is left to try; lower max_seq_length")


def test_rows_are_cut_only_where_the_job_allows_it() -> None:
    top = dataclasses.replace(LEG, batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True)
    assert death(Reason.OUT_OF_MEMORY, leg=top, lengths=(900, 500)).status is Status.FAILED
    allowed = death(Reason.OUT_OF_MEMORY, leg=top, lengths=(900, 500), lq={"memory": {"allow_truncation": True}})
    assert allowed.leg is not None
    assert allowed.leg.max_seq_length == 900


def test_the_line_that_decided_is_kept_as_evidence() -> None:
    ending = Ending(outcome=Outcome.DIED, reason=Reason.GPU_TIMEOUT, detail="the GPU hung", sign="kIOGPU…Timeout")
    history = History(deaths=times(1, Reason.GPU_TIMEOUT), leg=LEG)
    found = decide(ending, spec=JobSpec(), history=history, now=NOW, jitter=0.0)
    assert found.evidence["sign"] == "kIOGPU…Timeout"
