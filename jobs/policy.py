"""What to do after an attempt has ended: a Decision with its evidence. Does nothing itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jobs.outcomes import Ending, Outcome, Reason
from jobs.retry import backoff
from jobs.states import Status

Wish = Literal["cancel", "pause", "worker_stop"]
"""What was asked of a running job: by `lq cancel`, by `lq pause`, by the worker going home."""

WISHES: tuple[Wish, ...] = ("cancel", "pause", "worker_stop")


def wish_from(text: str | None) -> Wish | None:
    """Read a wish as the store keeps it."""
    return next((wish for wish in WISHES if wish == text), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to the job next, and the numbers the rule saw."""

    status: Status
    reason: Reason | None
    detail: str  # one line for a person
    not_before: float | None = None  # unix seconds; set where status is waiting
    evidence: Mapping[str, object] = dataclasses.field(default_factory=dict)


def decide(
    ending: Ending,
    *,
    wish: Wish | None,
    progress: list[int],
    max_restarts: int,
    now: float,
    jitter: float,
) -> Decision:
    """Say what becomes of a job whose attempt has ended.

    Args:
        ending: how it ended.
        wish: what had been asked of the running job, if anything.
        progress: new iterations per attempt that died, oldest first (see `retry.backoff`).
        max_restarts: from the job's spec.
        now: unix seconds.
        jitter: 0..1.
    """
    if ending.outcome is Outcome.DONE:
        return Decision(status=Status.SUCCEEDED, reason=ending.reason, detail=ending.detail)
    if wish == "cancel":
        return Decision(status=Status.CANCELLED, reason=Reason.STOPPED_BY_USER, detail="cancelled by the user")
    if ending.outcome is Outcome.REFUSED:
        return Decision(status=Status.FAILED, reason=ending.reason, detail=ending.detail)
    if wish in ("pause", "worker_stop"):
        who = "by the user" if wish == "pause" else "with the worker; goes on when a worker starts"
        return Decision(status=Status.PAUSED, reason=Reason.STOPPED_BY_USER, detail=f"paused {who}")
    if ending.outcome is Outcome.STOPPED:
        # Somebody else sent TERM: a checkpoint was written, nothing is wrong, nobody asked lq to stop. Go on.
        return Decision(
            status=Status.WAITING,
            reason=ending.reason,
            detail="stopped from outside; resuming",
            not_before=now,
        )
    return _after_death(ending, progress=progress, max_restarts=max_restarts, now=now, jitter=jitter)


def _after_death(ending: Ending, *, progress: list[int], max_restarts: int, now: float, jitter: float) -> Decision:
    answer = backoff(progress=progress, max_restarts=max_restarts, jitter=jitter)
    evidence = {
        "reason": ending.reason.value,
        "deaths_in_a_row": answer.deaths_in_a_row,
        "max_restarts": max_restarts,
        "new_iterations": progress[-1],
        "delay_s": round(answer.delay_s, 3),
    }
    if not answer.may_retry:
        return Decision(
            status=Status.FAILED,
            reason=ending.reason,
            detail=f"{ending.detail}; died {answer.deaths_in_a_row} times without 200 new iterations in between "
            f"(retry.max_restarts: {max_restarts})",
            evidence=evidence,
        )
    return Decision(
        status=Status.WAITING,
        reason=ending.reason,
        detail=ending.detail,
        not_before=now + answer.delay_s,
        evidence=evidence,
    )
