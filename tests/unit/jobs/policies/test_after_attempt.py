"""What becomes of a job when an attempt has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from jobs.model.states import LEGAL, Status
from jobs.policies.after_attempt import DISK_LOOK_S, GPU_REST_S, decide
from jobs.policies.decision import STOP_REQUESTS, Decision, History, StopRequest, stop_request_from
from jobs.policies.exits import TOO_LARGE_BUFFER
from jobs.policies.retry import Crash

ENDINGS = {
    Outcome.DONE: Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="trained to its last iteration"),
    Outcome.STOPPED: Ending(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail="stopped on request"),
    Outcome.CRASHED: Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="ended by SIGKILL"),
    Outcome.REFUSED: Ending(outcome=Outcome.REFUSED, reason=Reason.DATA_INVALID, detail="train.jsonl: changed"),
}
STAGE = Stage(first_example=0, batch_size=4, grad_accumulation_steps=2, grad_checkpoint=False, max_seq_length=2048)
NOW = 1000.0


def decision(
    outcome: Outcome,
    stop_request: StopRequest | None,
    *,
    progress: Sequence[int],
    max_restarts: int = 5,
    crash_loop: int = 100,
) -> Decision:
    crashes = [Crash(gained=gained, reason="killed") for gained in progress]
    spec = JobSpec.model_validate({"lq": {"retry": {"max_restarts": max_restarts, "crash_loop": crash_loop}}})
    return decide(
        ENDINGS[outcome], spec=spec, history=History(stop_request=stop_request, crashes=crashes), now=NOW, jitter=0.0
    )


def crash(reason: Reason, detail: str = "why", *, lq: dict[str, Any] | None = None, **history: Any) -> Decision:
    """Decide about a death for a reason, the first one unless the history says otherwise."""
    seen: dict[str, Any] = {"crashes": [Crash(gained=0, reason=reason)], "stage": STAGE} | history
    ending = Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)
    spec = JobSpec.model_validate({"lq": lq or {}})
    return decide(ending, spec=spec, history=History(**seen), now=NOW, jitter=0.0)


def times(count: int, reason: Reason) -> list[Crash]:
    return [Crash(gained=0, reason=reason)] * count


@pytest.mark.parametrize(
    ("outcome", "stop_request", "status", "reason"),
    [
        # done is done, whatever was asked meanwhile
        (Outcome.DONE, None, Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "cancel", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "pause", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "worker_stop", Status.SUCCEEDED, Reason.COMPLETED),
        # a cancelled job never comes back by itself
        (Outcome.STOPPED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.REFUSED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        # what would happen again is not tried again
        (Outcome.REFUSED, None, Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "pause", Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "worker_stop", Status.FAILED, Reason.DATA_INVALID),
        # who asks for a pause gets one, even if the trainer died on the way
        (Outcome.STOPPED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.STOPPED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        # nobody of ours asked: go on
        (Outcome.STOPPED, None, Status.WAITING, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, None, Status.WAITING, Reason.KILLED),
    ],
)
def test_what_becomes_of_a_job(
    outcome: Outcome, stop_request: StopRequest | None, status: Status, reason: Reason
) -> None:
    found = decision(outcome, stop_request, progress=[0] if outcome is Outcome.CRASHED else [])
    assert (found.status, found.reason) == (status, reason)
    assert found.status in LEGAL[Status.RUNNING]
    assert (found.not_before is not None) == (found.status is Status.WAITING)
    assert found.detail
    assert "\n" not in found.detail


def test_the_first_crash_is_answered_at_once_and_the_second_after_ten_seconds() -> None:
    assert decision(Outcome.CRASHED, None, progress=[30]).not_before == 1000.0
    assert decision(Outcome.CRASHED, None, progress=[30, 5]).not_before == 1010.0


def test_a_term_from_outside_costs_no_restart() -> None:
    found = decision(Outcome.STOPPED, None, progress=[0] * 50, max_restarts=0)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)


def test_a_job_that_keeps_dying_is_given_up_with_the_numbers() -> None:
    found = decision(Outcome.CRASHED, None, progress=[0, 3, 0], max_restarts=2)
    assert (found.status, found.reason, found.not_before) == (Status.FAILED, Reason.KILLED, None)
    assert found.detail == "ended by SIGKILL; died 3 times in a row without new progress (retry.max_restarts: 2)"
    assert found.evidence == {
        "reason": "killed",
        "consecutive_crashes": 3,
        "max_restarts": 2,
        "new_iterations": 0,
        "delay_s": 20.0,
    }


def test_a_job_that_dies_at_the_same_place_for_ever_is_a_crash_loop() -> None:
    assert decision(Outcome.CRASHED, None, progress=[0] * 3, crash_loop=3).status is Status.WAITING
    found = decision(Outcome.CRASHED, None, progress=[0] * 4, crash_loop=3)
    assert (found.status, found.reason, found.not_before) == (Status.FAILED, Reason.CRASH_LOOP, None)
    assert found.detail == "ended by SIGKILL; died 4 times in a row without new progress (retry.crash_loop: 3)"
    assert found.evidence["reason"] == "killed"


def test_three_restarts_are_the_most_unless_the_job_says_otherwise() -> None:
    assert crash(Reason.CRASHED, crashes=times(3, Reason.CRASHED)).status is Status.WAITING
    assert crash(Reason.CRASHED, crashes=times(4, Reason.CRASHED)).reason is Reason.CRASH_LOOP


def test_a_crash_after_a_good_stretch_is_no_reason_to_give_up() -> None:
    found = decision(Outcome.CRASHED, None, progress=[0, 3, 500], max_restarts=2)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)
    assert found.evidence["consecutive_crashes"] == 1


def test_the_detail_says_who_paused_it() -> None:
    assert "user" in decision(Outcome.STOPPED, "pause", progress=[]).detail
    assert "worker" in decision(Outcome.STOPPED, "worker_stop", progress=[]).detail


def test_a_wish_is_read_as_the_store_keeps_it() -> None:
    assert [stop_request_from(stop_request) for stop_request in STOP_REQUESTS] == list(STOP_REQUESTS)
    assert stop_request_from(None) is None
    assert stop_request_from("a good night") is None


# --- what the reason asks for ---


@pytest.mark.parametrize("reason", [Reason.GPU_TIMEOUT, Reason.GPU_WATCHDOG])
def test_a_gpu_that_was_taken_away_gets_a_minute(reason: Reason) -> None:
    found = crash(reason)
    assert (found.status, found.not_before, found.stage) == (Status.WAITING, NOW + GPU_REST_S, None)
    assert found.evidence["delay_s"] == GPU_REST_S
    assert "resumed" in found.answer


def test_a_rest_for_the_gpu_does_not_shorten_a_longer_wait() -> None:
    crashes = times(6, Reason.GPU_TIMEOUT)
    found = crash(Reason.GPU_TIMEOUT, crashes=crashes, lq={"retry": {"max_restarts": 9, "crash_loop": 9}})
    assert found.not_before == NOW + 160


def test_the_display_is_named_the_first_time_and_segments_are_shortened_the_second() -> None:
    assert "display" in crash(Reason.GPU_WATCHDOG).answer
    crashes = times(2, Reason.GPU_WATCHDOG)
    found = crash(Reason.GPU_WATCHDOG, crashes=crashes, survived=1200, next_example=4000)
    assert found.stage == dataclasses.replace(
        STAGE, first_example=4000, segment=600, because="segments of 600 iterations"
    )
    other = [*times(1, Reason.GPU_WATCHDOG), *times(1, Reason.KILLED), *times(1, Reason.GPU_WATCHDOG)]
    assert crash(Reason.GPU_WATCHDOG, crashes=other, survived=1200).stage is None, "not twice in a row"


def test_leaked_handles_are_answered_by_segments_of_half_of_what_was_survived() -> None:
    found = crash(Reason.DESCRIPTOR_LEAK, survived=2001, next_example=8000)
    assert (found.status, found.not_before) == (Status.WAITING, NOW)
    assert found.stage == dataclasses.replace(
        STAGE, first_example=8000, segment=1000, because="segments of 1000 iterations"
    )
    assert "every 1000 iterations" in found.answer


@pytest.mark.parametrize("survived", [0, 1])
def test_a_segment_is_at_least_one_iteration(survived: int) -> None:
    stage = crash(Reason.DESCRIPTOR_LEAK, survived=survived).stage
    assert stage is not None
    assert stage.segment == 1


def test_a_restart_of_the_machine_is_answered_by_a_resume_and_twice_a_day_by_a_hold() -> None:
    first = crash(Reason.HOST_REBOOTED, "another boot id", reboots=1)
    assert (first.status, first.reason, first.not_before) == (Status.WAITING, Reason.HOST_REBOOTED, NOW)
    second = crash(Reason.HOST_REBOOTED, "another boot id", reboots=2)
    assert (second.status, second.reason, second.not_before) == (Status.HELD, Reason.HOST_REBOOTED, None)
    assert second.status in LEGAL[Status.RUNNING]
    assert second.detail == "the machine was restarted 2 times within a day while this job ran"
    assert second.evidence["reboots_in_24_h"] == 2
    assert "lq resume" in second.answer


def test_other_crashes_on_a_day_of_restarts_hold_nothing() -> None:
    assert crash(Reason.KILLED, reboots=5).status is Status.WAITING


def test_a_full_disk_is_waited_for_and_never_given_up() -> None:
    crashes = times(50, Reason.DISK_FULL)
    found = crash(Reason.DISK_FULL, crashes=crashes, lq={"retry": {"max_restarts": 0, "crash_loop": 1}})
    assert (found.status, found.reason, found.not_before) == (Status.WAITING, Reason.DISK_FULL, NOW + DISK_LOOK_S)
    assert "space" in found.answer


def test_too_little_memory_climbs_the_ladder_without_a_pause() -> None:
    found = crash(Reason.OUT_OF_MEMORY, next_example=80)
    assert (found.status, found.reason, found.not_before) == (Status.WAITING, Reason.OUT_OF_MEMORY, NOW)
    assert found.stage is not None
    assert (found.stage.grad_checkpoint, found.stage.first_example) == (True, 80)
    assert found.answer == "gradient checkpointing on"


def test_the_ladder_is_climbed_to_its_top_however_often_the_job_died() -> None:
    """Each rung is another run; the breaker is for those that try the same again."""
    found = crash(
        Reason.OUT_OF_MEMORY,
        crashes=times(9, Reason.OUT_OF_MEMORY),
        lq={"retry": {"max_restarts": 0, "crash_loop": 1}},
    )
    assert found.stage is not None


def test_once_more_as_it_was_appends_no_stage() -> None:
    found = crash(Reason.OUT_OF_MEMORY, peak_bytes=4_000_000_000, free_bytes=9_000_000_000)
    assert (found.status, found.stage) == (Status.WAITING, None)
    assert found.answer == "same settings again: 9.00 GB are free now, the peak was 4.00 GB"
    assert (found.evidence["peak_bytes"], found.evidence["free_bytes"]) == (4_000_000_000, 9_000_000_000)


def test_a_buffer_larger_than_the_device_allows_is_never_tried_as_it_was() -> None:
    detail = f"{TOO_LARGE_BUFFER}: [metal::malloc] Attempting to allocate"
    found = crash(Reason.OUT_OF_MEMORY, detail, peak_bytes=4_000_000_000, free_bytes=9_000_000_000)
    assert found.stage is not None
    assert found.stage.grad_checkpoint


def test_at_the_top_of_the_ladder_it_fails_and_says_what_would_fit() -> None:
    top = dataclasses.replace(STAGE, batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True)
    found = crash(Reason.OUT_OF_MEMORY, "the GPU ran out of memory: x", stage=top)
    assert (found.status, found.reason, found.stage) == (Status.FAILED, Reason.OUT_OF_MEMORY, None)
    assert found.detail.startswith("the GPU ran out of memory: x; no smaller settings are left; lower max_seq_length")


def test_rows_are_cut_only_where_the_job_allows_it() -> None:
    top = dataclasses.replace(STAGE, batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True)
    assert crash(Reason.OUT_OF_MEMORY, stage=top, lengths=(900, 500)).status is Status.FAILED
    allowed = crash(Reason.OUT_OF_MEMORY, stage=top, lengths=(900, 500), lq={"memory": {"allow_truncation": True}})
    assert allowed.stage is not None
    assert allowed.stage.max_seq_length == 900


def test_the_line_that_decided_is_kept_as_evidence() -> None:
    ending = Ending(outcome=Outcome.CRASHED, reason=Reason.GPU_TIMEOUT, detail="the GPU hung", sign="kIOGPU…Timeout")
    history = History(crashes=times(1, Reason.GPU_TIMEOUT), stage=STAGE)
    found = decide(ending, spec=JobSpec(), history=history, now=NOW, jitter=0.0)
    assert found.evidence["sign"] == "kIOGPU…Timeout"
