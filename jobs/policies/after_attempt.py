"""What to do after an attempt has ended: a Decision with its evidence. Does nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.loss.alarms import LossFinding
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies import after_loss_alarm, oom
from jobs.policies.decision import Decision, History
from jobs.policies.early_stop import Stop
from jobs.policies.exits import TOO_LARGE_BUFFER
from jobs.policies.quarantine import Quarantine
from jobs.policies.retry import Backoff, backoff
from jobs.scheduling.obstacles import Obstacle

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec


REBOOTS_A_DAY = 2
DISK_LOOK_S = 60.0
GPU_REST_S = 60.0


def decide(ending: Ending, *, spec: JobSpec, history: History, now: float, jitter: float) -> Decision:
    """Say what becomes of a job whose attempt has ended.

    Args:
        ending: how it ended.
        spec: what was asked for.
        history: what led there.
        now: unix seconds.
        jitter: 0..1.
    """
    if ending.outcome is Outcome.DONE:
        return Decision(status=Status.SUCCEEDED, reason=ending.reason, detail=ending.detail)
    if history.stop_request == "cancel":
        return Decision(status=Status.CANCELLED, reason=Reason.STOPPED_BY_USER, detail="cancelled by the user")
    if ending.outcome is Outcome.REFUSED:
        return Decision(status=Status.FAILED, reason=ending.reason, detail=ending.detail)
    if history.stop_request is not None:
        who = "by the user" if history.stop_request == "pause" else "with the worker; goes on when a worker starts"
        return Decision(status=Status.PAUSED, reason=Reason.STOPPED_BY_USER, detail=f"paused {who}")
    if isinstance(history.conclusion, Quarantine):
        return after_loss_alarm.without_rows(ending, spec, history, history.conclusion, now)
    if isinstance(history.conclusion, Stop):
        return after_loss_alarm.ended_early(ending, spec, history, history.conclusion, now)
    if ending.outcome is Outcome.STOPPED and history.obstacle is not None:
        return _until_it_may(history.obstacle, now)
    if ending.outcome is Outcome.STOPPED:
        # A segment is over, or somebody else sent TERM: a checkpoint was written and nothing is wrong. Go on.
        return Decision(status=Status.WAITING, reason=ending.reason, detail=ending.detail, not_before=now)
    return _after_crash(ending, spec, history, now=now, jitter=jitter)


def _until_it_may(obstacle: Obstacle, now: float) -> Decision:
    """Wait until what lq stopped a job for is over, as far as that is known; then the schedule looks again."""
    return Decision(
        status=Status.WAITING,
        reason=Reason(obstacle.why.value),
        detail=obstacle.text,
        not_before=obstacle.until if obstacle.until is not None else now + obstacle.rest_s,
        evidence={"why": obstacle.why.value, "until": obstacle.until, "rest_s": round(obstacle.rest_s, 1)},
    )


def _after_crash(ending: Ending, spec: JobSpec, history: History, *, now: float, jitter: float) -> Decision:
    answer = backoff(
        history.crashes,
        max_restarts=spec.lq.retry.max_restarts,
        crash_loop=spec.lq.retry.crash_loop,
        iters=spec.iters,
        jitter=jitter,
    )
    evidence: dict[str, object] = {
        "reason": ending.reason.value,
        "consecutive_crashes": answer.consecutive_crashes,
        "max_restarts": spec.lq.retry.max_restarts,
        "new_iterations": history.crashes[-1].gained if history.crashes else 0,
        "delay_s": round(answer.delay_s, 3),
    }
    if ending.sign is not None:
        evidence["sign"] = ending.sign
    if isinstance(history.conclusion, LossFinding):
        return after_loss_alarm.gone_back(ending, spec, history, history.conclusion, answer, evidence, now)
    if ending.reason is Reason.DISK_FULL:
        return _disk_full(ending, evidence, now)
    if ending.reason is Reason.HOST_REBOOTED and history.reboots >= REBOOTS_A_DAY:
        return _held(ending, evidence | {"reboots_in_24_h": history.reboots})
    if ending.reason is Reason.OUT_OF_MEMORY and history.stage is not None:
        return _out_of_memory(ending, spec, history, evidence, now)
    if not answer.may_retry:
        return _given_up(ending, answer, spec, evidence)
    return _again(ending, answer, history, evidence, now)


def _again(ending: Ending, answer: Backoff, history: History, evidence: dict[str, object], now: float) -> Decision:
    """Resume, after the pause and under the stage that the reason asks for."""
    delay, stage = answer.delay_s, None
    words = "resumed from its last checkpoint" if history.next_example else "begun again: it had no checkpoint yet"
    if ending.reason is Reason.GPU_TIMEOUT:
        delay, words = max(delay, GPU_REST_S), f"resumed after {GPU_REST_S:.0f} s of rest for the GPU"
    if ending.reason is Reason.GPU_WATCHDOG:
        delay, words = max(delay, GPU_REST_S), "resumed; let the display sleep at night: a lit one takes the GPU away"
    again_by_watchdog = ending.reason is Reason.GPU_WATCHDOG and answer.consecutive_same_reason > 1
    if history.stage is not None and (ending.reason is Reason.DESCRIPTOR_LEAK or again_by_watchdog):
        stage = _shorter_segments(history)
        words = f"resumed in a fresh process, and from now on in one every {stage.segment} iterations"
    return Decision(
        status=Status.WAITING,
        reason=ending.reason,
        detail=ending.detail,
        not_before=now + delay,
        stage=stage,
        answer=words,
        evidence=evidence | {"delay_s": round(delay, 3)},
    )


def _shorter_segments(history: History) -> Stage:
    assert history.stage is not None
    segment = max(1, history.survived // 2)
    because = f"segments of {segment} iterations"
    return history.stage.continued(history.next_example, segment=segment, because=because)


def _out_of_memory(
    ending: Ending, spec: JobSpec, history: History, evidence: dict[str, object], now: float
) -> Decision:
    assert history.stage is not None
    rung = oom.next_rung(
        history.stage,
        first_example=history.next_example,
        may_repeat=not (history.repeated_stage or history.at_its_own_limit) and TOO_LARGE_BUFFER not in ending.detail,
        peak_bytes=history.peak_bytes,
        free_bytes=history.free_bytes,
        allow_truncation=spec.lq.memory.allow_truncation,
        lengths=history.lengths,
    )
    seen = evidence | {"peak_bytes": history.peak_bytes, "free_bytes": history.free_bytes, "delay_s": 0.0}
    if rung.stage is None:
        detail = f"{ending.detail}; {rung.text}"
        return Decision(status=Status.FAILED, reason=ending.reason, detail=detail, evidence=seen)
    return Decision(
        status=Status.WAITING,
        reason=ending.reason,
        detail=ending.detail,
        not_before=now,
        stage=None if rung.again else rung.stage,
        answer=rung.text,
        evidence=seen,
    )


def _disk_full(ending: Ending, evidence: dict[str, object], now: float) -> Decision:
    return Decision(
        status=Status.WAITING,
        reason=ending.reason,
        detail=ending.detail,
        not_before=now + DISK_LOOK_S,
        answer="waits until there is space again",
        evidence=evidence,
    )


def _held(ending: Ending, evidence: dict[str, object]) -> Decision:
    return Decision(
        status=Status.HELD,
        reason=ending.reason,
        detail=f"the machine was restarted {evidence['reboots_in_24_h']} times within a day while this job ran",
        answer="held; if the job is not the cause, let it go on with lq resume",
        evidence=evidence,
    )


def _given_up(ending: Ending, answer: Backoff, spec: JobSpec, evidence: dict[str, object]) -> Decision:
    if answer.looping and answer.consecutive_crashes <= spec.lq.retry.max_restarts:
        reason, rule = Reason.CRASH_LOOP, f"retry.crash_loop: {spec.lq.retry.crash_loop}"
    else:
        reason, rule = ending.reason, f"retry.max_restarts: {spec.lq.retry.max_restarts}"
    return Decision(
        status=Status.FAILED,
        reason=reason,
        detail=f"{ending.detail}; died {answer.consecutive_crashes} times in a row without new progress ({rule})",
        evidence=evidence,
    )
