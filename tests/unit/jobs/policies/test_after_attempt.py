"""The decision after an attempt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.loss.alarms import Alarm, LossFinding
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from jobs.model.states import LEGAL, Status
from jobs.policies.after_attempt import GPU_REST_S, decide
from jobs.policies.decision import STOP_REQUESTS, Decision, History, StopRequest, stop_request_from
from jobs.policies.disk import RETRY_EVERY_S
from jobs.policies.early_stop import Stop
from jobs.policies.exits import TOO_LARGE_BUFFER
from jobs.policies.machine import MachineCause
from jobs.policies.quarantine import Quarantine
from jobs.policies.retry import Crash
from jobs.policies.rollback import RollbackCandidate
from tests.golden import assert_golden

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
    """Decide about a crash, by default the first one."""
    fields: dict[str, Any] = {"crashes": [Crash(gained=0, reason=reason)], "stage": STAGE} | history
    ending = Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)
    spec = JobSpec.model_validate({"lq": lq or {}})
    return decide(ending, spec=spec, history=History(**fields), now=NOW, jitter=0.0)


def times(count: int, reason: Reason) -> list[Crash]:
    return [Crash(gained=0, reason=reason)] * count


@pytest.mark.parametrize(
    ("outcome", "stop_request", "status", "reason"),
    [
        # a stop request does not change a completed run
        (Outcome.DONE, None, Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "cancel", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "pause", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "worker_stop", Status.SUCCEEDED, Reason.COMPLETED),
        # a cancelled job is not restarted
        (Outcome.STOPPED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.REFUSED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        # a failure that would repeat is not retried
        (Outcome.REFUSED, None, Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "pause", Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "worker_stop", Status.FAILED, Reason.DATA_INVALID),
        # a requested pause also applies after a crash
        (Outcome.STOPPED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.STOPPED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        # without a request, the job continues
        (Outcome.STOPPED, None, Status.WAITING, Reason.STOPPED_BY_USER),
        (Outcome.CRASHED, None, Status.WAITING, Reason.KILLED),
    ],
)
def test_outcome_and_request_decide(
    outcome: Outcome, stop_request: StopRequest | None, status: Status, reason: Reason
) -> None:
    found = decision(outcome, stop_request, progress=[0] if outcome is Outcome.CRASHED else [])
    assert (found.status, found.reason) == (status, reason)
    assert found.status in LEGAL[Status.RUNNING]
    assert (found.not_before is not None) == (found.status is Status.WAITING)
    assert found.detail


def test_second_crash_waits_ten_seconds() -> None:
    assert decision(Outcome.CRASHED, None, progress=[30]).not_before == 1000.0
    assert decision(Outcome.CRASHED, None, progress=[30, 5]).not_before == 1010.0


def test_external_term_costs_no_restart() -> None:
    found = decision(Outcome.STOPPED, None, progress=[0] * 50, max_restarts=0)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)


def test_max_restarts_fails_the_job() -> None:
    found = decision(Outcome.CRASHED, None, progress=[0, 3, 0], max_restarts=2)
    assert (found.status, found.reason, found.not_before) == (Status.FAILED, Reason.KILLED, None)
    assert found.evidence == {
        "reason": "killed",
        "consecutive_crashes": 3,
        "max_restarts": 2,
        "new_iterations": 0,
        "delay_s": 20.0,
    }


def test_crash_loop_fails_the_job() -> None:
    assert decision(Outcome.CRASHED, None, progress=[0] * 3, crash_loop=3).status is Status.WAITING
    found = decision(Outcome.CRASHED, None, progress=[0] * 4, crash_loop=3)
    assert (found.status, found.reason, found.not_before) == (Status.FAILED, Reason.CRASH_LOOP, None)
    assert found.evidence["reason"] == "killed"


def test_default_crash_loop_is_three() -> None:
    assert crash(Reason.CRASHED, crashes=times(3, Reason.CRASHED)).status is Status.WAITING
    assert crash(Reason.CRASHED, crashes=times(4, Reason.CRASHED)).reason is Reason.CRASH_LOOP


def test_new_progress_allows_a_restart() -> None:
    found = decision(Outcome.CRASHED, None, progress=[0, 3, 500], max_restarts=2)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)
    assert found.evidence["consecutive_crashes"] == 1


def test_detail_names_the_pause_request() -> None:
    assert "user" in decision(Outcome.STOPPED, "pause", progress=[]).detail
    assert "worker" in decision(Outcome.STOPPED, "worker_stop", progress=[]).detail


def test_stop_request_is_read_from_text() -> None:
    assert [stop_request_from(stop_request) for stop_request in STOP_REQUESTS] == list(STOP_REQUESTS)
    assert stop_request_from(None) is None
    assert stop_request_from("another") is None


# --- reasons ---


@pytest.mark.parametrize("reason", [Reason.GPU_TIMEOUT, Reason.GPU_WATCHDOG])
def test_gpu_reasons_wait_a_minute(reason: Reason) -> None:
    found = crash(reason)
    assert (found.status, found.not_before, found.stage) == (Status.WAITING, NOW + GPU_REST_S, None)
    assert found.evidence["delay_s"] == GPU_REST_S


def test_gpu_rest_keeps_a_longer_delay() -> None:
    crashes = times(6, Reason.GPU_TIMEOUT)
    found = crash(Reason.GPU_TIMEOUT, crashes=crashes, lq={"retry": {"max_restarts": 9, "crash_loop": 9}})
    assert found.not_before == NOW + 160


def test_second_watchdog_shortens_segments() -> None:
    assert crash(Reason.GPU_WATCHDOG).stage is None
    crashes = times(2, Reason.GPU_WATCHDOG)
    found = crash(Reason.GPU_WATCHDOG, crashes=crashes, survived=1200, next_example=4000)
    assert found.stage == dataclasses.replace(
        STAGE, first_example=4000, segment=600, because="segments of 600 iterations"
    )
    other = [*times(1, Reason.GPU_WATCHDOG), *times(1, Reason.KILLED), *times(1, Reason.GPU_WATCHDOG)]
    assert crash(Reason.GPU_WATCHDOG, crashes=other, survived=1200).stage is None, "not consecutive"


def test_leak_shortens_segments_to_half() -> None:
    found = crash(Reason.DESCRIPTOR_LEAK, survived=2001, next_example=8000)
    assert (found.status, found.not_before) == (Status.WAITING, NOW)
    assert found.stage == dataclasses.replace(
        STAGE, first_example=8000, segment=1000, because="segments of 1,000 iterations"
    )
    assert "every 1,000 iterations" in found.answer


@pytest.mark.parametrize("survived", [0, 1])
def test_segment_is_at_least_one_iteration(survived: int) -> None:
    stage = crash(Reason.DESCRIPTOR_LEAK, survived=survived).stage
    assert stage is not None
    assert stage.segment == 1


def test_second_reboot_holds_the_job() -> None:
    first = crash(Reason.HOST_REBOOTED, "another boot id", reboots=1)
    assert (first.status, first.reason, first.not_before) == (Status.WAITING, Reason.HOST_REBOOTED, NOW)
    second = crash(Reason.HOST_REBOOTED, "another boot id", reboots=2)
    assert (second.status, second.reason, second.not_before) == (Status.HELD, Reason.HOST_REBOOTED, None)
    assert second.status in LEGAL[Status.RUNNING]
    assert second.evidence["reboots_in_24_h"] == 2
    assert "lq resume" in second.answer


def test_reboots_hold_only_after_reboot() -> None:
    assert crash(Reason.KILLED, reboots=5).status is Status.WAITING


def test_full_disk_waits_without_limit() -> None:
    crashes = times(50, Reason.DISK_FULL)
    found = crash(Reason.DISK_FULL, crashes=crashes, lq={"retry": {"max_restarts": 0, "crash_loop": 1}})
    assert (found.status, found.reason, found.not_before) == (Status.WAITING, Reason.DISK_FULL, NOW + RETRY_EVERY_S)
    assert "space" in found.answer


def test_out_of_memory_appends_a_stage() -> None:
    found = crash(Reason.OUT_OF_MEMORY, next_example=80)
    assert (found.status, found.reason, found.not_before) == (Status.WAITING, Reason.OUT_OF_MEMORY, NOW)
    assert found.stage is not None
    assert (found.stage.grad_checkpoint, found.stage.first_example) == (True, 80)


def test_memory_ladder_ignores_crash_limits() -> None:
    """Each step changes the settings; the crash limits are for restarts with the same settings."""
    found = crash(
        Reason.OUT_OF_MEMORY,
        crashes=times(9, Reason.OUT_OF_MEMORY),
        lq={"retry": {"max_restarts": 0, "crash_loop": 1}},
    )
    assert found.stage is not None


def test_repetition_appends_no_stage() -> None:
    found = crash(Reason.OUT_OF_MEMORY, peak_bytes=4_000_000_000, free_bytes=9_000_000_000)
    assert (found.status, found.stage) == (Status.WAITING, None)
    assert (found.evidence["peak_bytes"], found.evidence["free_bytes"]) == (4_000_000_000, 9_000_000_000)


def test_too_large_buffer_is_not_repeated() -> None:
    detail = f"{TOO_LARGE_BUFFER}: [metal::malloc] Attempting to allocate"
    found = crash(Reason.OUT_OF_MEMORY, detail, peak_bytes=4_000_000_000, free_bytes=9_000_000_000)
    assert found.stage is not None
    assert found.stage.grad_checkpoint


def test_end_of_memory_ladder_fails() -> None:
    top = dataclasses.replace(STAGE, batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True)
    found = crash(Reason.OUT_OF_MEMORY, "the GPU ran out of memory: x", stage=top)
    assert (found.status, found.reason, found.stage) == (Status.FAILED, Reason.OUT_OF_MEMORY, None)
    assert "max_seq_length" in found.detail


def test_truncation_needs_permission() -> None:
    top = dataclasses.replace(STAGE, batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True)
    assert crash(Reason.OUT_OF_MEMORY, stage=top, lengths=(900, 500)).status is Status.FAILED
    allowed = crash(Reason.OUT_OF_MEMORY, stage=top, lengths=(900, 500), lq={"memory": {"allow_truncation": True}})
    assert allowed.stage is not None
    assert allowed.stage.max_seq_length == 900


def test_matched_text_is_kept_as_evidence() -> None:
    ending = Ending(outcome=Outcome.CRASHED, reason=Reason.GPU_TIMEOUT, detail="the GPU hung", sign="kIOGPU…Timeout")
    history = History(crashes=times(1, Reason.GPU_TIMEOUT), stage=STAGE)
    found = decide(ending, spec=JobSpec(), history=history, now=NOW, jitter=0.0)
    assert found.evidence["sign"] == "kIOGPU…Timeout"


# --- texts ---


def test_decision_texts_golden() -> None:
    top = dataclasses.replace(STAGE, batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True)
    spike = LossFinding(alarm=Alarm.SPIKE, iteration=1000, first_flag=980, text="loss 7.4", evidence={})
    rows = Quarantine(rows=(16,), lines=("train.jsonl:17",), iteration=250, too_many=False)
    run: dict[str, Any] = {
        "stages": (STAGE,),
        "batches_per_epoch": 105,
        "candidates": [RollbackCandidate(iteration=500, updates=250, best=True, healthy=True)],
    }
    rolled_back = [Crash(gained=500, reason=Reason.SPIKE)] * 4
    watchdogs: dict[str, Any] = {"crashes": times(2, Reason.GPU_WATCHDOG), "survived": 1200, "next_example": 4000}
    decisions = {
        "done": decision(Outcome.DONE, None, progress=[]),
        "cancelled": decision(Outcome.STOPPED, "cancel", progress=[]),
        "paused": decision(Outcome.STOPPED, "pause", progress=[]),
        "worker stopped": decision(Outcome.STOPPED, "worker_stop", progress=[]),
        "refused": decision(Outcome.REFUSED, None, progress=[]),
        "first crash": crash(Reason.KILLED, "ended by SIGKILL"),
        "second crash": crash(Reason.KILLED, "ended by SIGKILL", crashes=times(2, Reason.KILLED), next_example=80),
        "too many crashes": decision(Outcome.CRASHED, None, progress=[0, 3, 0], max_restarts=2),
        "crash loop": decision(Outcome.CRASHED, None, progress=[0] * 4, crash_loop=3),
        "watchdog": crash(Reason.GPU_WATCHDOG, next_example=80),
        "second watchdog": crash(Reason.GPU_WATCHDOG, **watchdogs),
        "leak": crash(Reason.DESCRIPTOR_LEAK, survived=2001, next_example=8000),
        "second reboot": crash(Reason.HOST_REBOOTED, "another boot id", reboots=2),
        "disk full": crash(Reason.DISK_FULL, "the disk is full"),
        "out of memory": crash(Reason.OUT_OF_MEMORY, "the GPU ran out of memory"),
        "memory was short": crash(Reason.OUT_OF_MEMORY, peak_bytes=4_000_000_000, free_bytes=9_000_000_000),
        "end of the ladder": crash(Reason.OUT_OF_MEMORY, "the GPU ran out of memory", stage=top),
        "spike": crash(Reason.SPIKE, "loss 7.4", conclusion=spike, **run),
        "spike after three rollbacks": crash(Reason.SPIKE, "loss 7.4", conclusion=spike, crashes=rolled_back, **run),
        "quarantine": crash(Reason.NOT_FINITE, "loss nan twice", conclusion=rows, **run),
        "too many rows": crash(
            Reason.NOT_FINITE, "loss nan twice", conclusion=dataclasses.replace(rows, too_many=True), **run
        ),
        "early stop": crash(
            Reason.EARLY_STOPPED, "no improvement", conclusion=Stop(iteration=500, best=200, text="text"), **run
        ),
    }
    lines = []
    for name, found in decisions.items():
        assert "\n" not in found.detail + found.answer
        lines += [f"{name}: {found.status}, {found.reason}", f"  detail: {found.detail}"]
        lines += [f"  answer: {found.answer}"] if found.answer else []
    assert_golden("\n".join([*lines, ""]), Path(__file__).parent / "golden" / "decisions.txt")


def test_network_is_waited_for_without_end() -> None:
    """Each wait is longer, up to 15 min; none is a crash, and only a stop by the user ends them."""
    ending = Ending(outcome=Outcome.STOPPED, reason=Reason.NETWORK, detail="no answer")
    delays = []
    for waits in range(1, 200):
        answer = decide(ending, spec=JobSpec(), history=History(waits=waits), now=NOW, jitter=0.0)
        assert (answer.status, answer.reason, answer.evidence["waits"]) == (Status.WAITING, Reason.NETWORK, waits)
        assert answer.not_before is not None
        delays.append(answer.not_before - NOW)
    assert delays[:5] == [60.0, 120.0, 240.0, 480.0, 900.0]
    assert set(delays[5:]) == {900.0}
    cancelled = decide(ending, spec=JobSpec(), history=History(stop_request="cancel"), now=NOW, jitter=0.0)
    assert cancelled.status is Status.CANCELLED


@pytest.mark.parametrize("count", [1, 4, 5, 40])
def test_machine_cause_never_ends_a_job(count: int) -> None:
    """The job waits for the machine; lq asks the user once, at the crash that would have ended the job."""
    answer = crash(Reason.CRASHED, crashes=times(count, Reason.CRASHED), machine=MachineCause.MLX)
    assert answer.status is Status.WAITING
    assert answer.evidence["asks_user"] is (count == 4)
    without = crash(Reason.CRASHED, crashes=times(count, Reason.CRASHED))
    assert without.status is (Status.WAITING if count < 4 else Status.FAILED)
