"""The Decision after the end of an attempt (docs/explanation/policies.md, sections 2 to 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.loss.alarms import LossFinding
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.states import Status
from jobs.model.text import counted
from jobs.policies import after_loss_alarm, disk, oom
from jobs.policies.decision import Decision, History
from jobs.policies.early_stop import Stop
from jobs.policies.exits import TOO_LARGE_BUFFER
from jobs.policies.quarantine import Quarantine
from jobs.policies.retry import Backoff, backoff

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec


REBOOTS_PER_DAY = 2
"""Reboots within 24 hours after which the job is held."""

GPU_REST_S = 60.0
NETWORK_RETRY_S, NETWORK_LONGEST_S = 60.0, 900.0


def decide(ending: Ending, *, spec: JobSpec, history: History, now: float, jitter: float) -> Decision:
    """Decide what happens to a job whose attempt has ended; `jitter` is a random number from 0 to 1."""
    if ending.outcome is Outcome.DONE:
        return Decision.after(ending, Status.SUCCEEDED)
    if history.stop_request == "cancel":
        return Decision(status=Status.CANCELLED, reason=Reason.STOPPED_BY_USER, detail="cancelled by the user")
    if ending.outcome is Outcome.REFUSED:
        return Decision.after(ending, Status.FAILED)
    if history.stop_request is not None:
        by = "by the user" if history.stop_request == "pause" else "with the worker; resumes when a worker starts"
        return Decision(status=Status.PAUSED, reason=Reason.STOPPED_BY_USER, detail=f"paused {by}")
    if isinstance(history.conclusion, Quarantine):
        return after_loss_alarm.leave_rows_out(ending, spec, history, history.conclusion, now)
    if isinstance(history.conclusion, Stop):
        return after_loss_alarm.end_early(ending, spec, history, history.conclusion, now)
    if ending.reason is Reason.NETWORK:
        return _wait_for_network(ending, history, now=now, jitter=jitter)
    if ending.outcome is Outcome.STOPPED and (obstacle := history.obstacle) is not None:
        next_check = now + obstacle.rest_s
        return Decision(
            status=Status.WAITING,
            reason=Reason(obstacle.why.value),
            detail=obstacle.text,
            not_before=obstacle.until if obstacle.until is not None else next_check,
            evidence={"why": obstacle.why.value, "until": obstacle.until, "rest_s": round(obstacle.rest_s, 1)},
        )
    if ending.outcome is Outcome.STOPPED:
        # the end of a segment, or a TERM from outside: there is a checkpoint and no problem
        return Decision.after(ending, Status.WAITING, not_before=now)
    return _after_crash(ending, spec, history, now=now, jitter=jitter)


def _wait_for_network(ending: Ending, history: History, *, now: float, jitter: float) -> Decision:
    """Try again in 1 min, 2 min, up to 15 min, for as long as it takes; this is not a crash."""
    delay = min(NETWORK_RETRY_S * 2.0 ** min(history.waits - 1, 10), NETWORK_LONGEST_S) * (1 + 0.1 * jitter)
    return Decision.after(
        ending,
        Status.WAITING,
        not_before=now + delay,
        answer="tries again until the network or the hub answers",
        evidence={"why": ending.reason.value, "waits": history.waits, "delay_s": round(delay, 3)},
    )


def _after_crash(ending: Ending, spec: JobSpec, history: History, *, now: float, jitter: float) -> Decision:
    retry = spec.lq.retry
    answer = backoff(
        history.crashes,
        max_restarts=retry.max_restarts,
        crash_loop=retry.crash_loop,
        iters=spec.iters,
        jitter=jitter,
    )
    evidence: dict[str, object] = {
        "reason": ending.reason.value,
        "consecutive_crashes": answer.consecutive_crashes,
        "max_restarts": retry.max_restarts,
        "new_iterations": history.crashes[-1].gained if history.crashes else 0,
        "delay_s": round(answer.delay_s, 3),
    }
    if ending.sign is not None:
        evidence["sign"] = ending.sign
    if isinstance(history.conclusion, LossFinding):
        return after_loss_alarm.roll_back_or_fail(ending, spec, history, history.conclusion, answer, evidence, now)
    if ending.reason is Reason.DISK_FULL:
        return disk.wait_for_space(ending.detail, evidence, now=now)
    if ending.reason is Reason.HOST_REBOOTED and history.reboots >= REBOOTS_PER_DAY:
        return Decision.after(
            ending,
            Status.HELD,
            detail=f"the machine rebooted {history.reboots} times within 24 hours while this job ran",
            answer="held; if the job is not the cause, continue it with lq resume",
            evidence=evidence | {"reboots_in_24_h": history.reboots},
        )
    if ending.reason is Reason.OUT_OF_MEMORY and history.stage is not None:
        return _out_of_memory(ending, spec, history, evidence, now)
    if history.machine is not None:
        limit = min(retry.max_restarts, retry.crash_loop)
        evidence |= {"machine": history.machine.value, "asks_user": answer.consecutive_crashes == limit + 1}
    elif not answer.may_retry:
        return _fail(ending, answer, spec, evidence)
    return _restart(ending, answer, history, evidence, now)


def _restart(ending: Ending, answer: Backoff, history: History, evidence: dict[str, object], now: float) -> Decision:
    """Restart after a delay; some reasons need a longer delay or another stage."""
    delay, stage, action = answer.delay_s, None, ""
    if ending.reason in (Reason.GPU_TIMEOUT, Reason.GPU_WATCHDOG):
        delay = max(delay, GPU_REST_S)
    if ending.reason is Reason.GPU_WATCHDOG:
        action = "let the display sleep at night, because an active display takes the GPU away; "
    watchdog_again = ending.reason is Reason.GPU_WATCHDOG and answer.consecutive_same_reason > 1
    if history.stage is not None and (ending.reason is Reason.DESCRIPTOR_LEAK or watchdog_again):
        segment = max(1, history.survived // 2)
        because = f"segments of {counted(segment, 'iteration')}"
        stage = history.stage.continued(history.next_example, segment=segment, because=because)
        action = f"from now on a new trainer every {segment:,} iterations; "
    start = "resumed from its last checkpoint" if history.next_example else "started again, without a checkpoint"
    return Decision.after(
        ending,
        Status.WAITING,
        not_before=now + delay,
        stage=stage,
        answer=f"{action}{start}",
        evidence=evidence | {"delay_s": round(delay, 3)},
    )


def _out_of_memory(
    ending: Ending, spec: JobSpec, history: History, evidence: dict[str, object], now: float
) -> Decision:
    assert history.stage is not None
    may_repeat = not (history.repeated_stage or history.at_its_own_limit) and TOO_LARGE_BUFFER not in ending.detail
    allow_truncation = spec.lq.memory.allow_truncation
    step = oom.next_step(history.stage, history, may_repeat=may_repeat, allow_truncation=allow_truncation)
    evidence |= {"peak_bytes": history.peak_bytes, "free_bytes": history.free_bytes, "delay_s": 0.0}
    if step.stage is None:
        return Decision.after(ending, Status.FAILED, detail=f"{ending.detail}; {step.text}", evidence=evidence)
    stage = None if step.again else step.stage
    return Decision.after(ending, Status.WAITING, not_before=now, stage=stage, answer=step.text, evidence=evidence)


def _fail(ending: Ending, answer: Backoff, spec: JobSpec, evidence: dict[str, object]) -> Decision:
    retry = spec.lq.retry
    if answer.looping and answer.consecutive_crashes <= retry.max_restarts:
        reason, rule = Reason.CRASH_LOOP, f"lq.retry.crash_loop: {retry.crash_loop}"
    else:
        reason, rule = ending.reason, f"lq.retry.max_restarts: {retry.max_restarts}"
    detail = f"{ending.detail}; consecutive crash {answer.consecutive_crashes} without new progress ({rule})"
    return Decision.after(ending, Status.FAILED, reason=reason, detail=detail, evidence=evidence)
