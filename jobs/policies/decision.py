"""A Decision, and what the rules look at to make one: values only. The rules are in policy.py and going_back.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from jobs.loss.alarms import LossFinding
from jobs.model.outcomes import Reason
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.early_stop import Stop
from jobs.policies.quarantine import Quarantine
from jobs.policies.retry import Crash
from jobs.policies.rollback import RollbackCandidate
from jobs.scheduling.obstacles import Obstacle

StopRequest = Literal["cancel", "pause", "worker_stop"]
"""What was asked of a running job: by `lq cancel`, by `lq pause`, by the worker going home."""

STOP_REQUESTS: tuple[StopRequest, ...] = ("cancel", "pause", "worker_stop")


def stop_request_from(text: str | None) -> StopRequest | None:
    """Read a wish as the store keeps it."""
    return next((stop_request for stop_request in STOP_REQUESTS if stop_request == text), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to the job next, and the numbers the rule saw."""

    status: Status
    reason: Reason | None
    detail: str  # one line for a person
    not_before: float | None = None  # unix seconds; set where status is waiting
    stage: Stage | None = None  # appended to the run plan
    back_to: int | None = None  # iteration whose weights are gone back to; what was seen beyond it is let go
    publish_until: int | None = None  # what is published lies at or before this iteration; None for no limit
    answer: str = ""  # what is done about it, in words
    evidence: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """What led to this end; everything a rule may look at beside the end itself."""

    stop_request: StopRequest | None = None  # what had been asked of the running job
    crashes: Sequence[Crash] = ()  # since the user last asked for the job, oldest first, this one included
    reboots: int = 0  # attempts that ended by a restart of the machine in the last 24 hours, this one included
    stage: Stage | None = None  # the stage it ran under
    next_example: int = 0  # examples seen where the next attempt will begin
    survived: int = 0  # iterations the attempt trained
    repeated_stage: bool = False  # the stage was tried once more already
    at_its_own_limit: bool = False  # it had come near what it may take, so no other program was the cause
    peak_bytes: int | None = None  # the most it took
    free_bytes: int | None = None  # what is free now
    lengths: tuple[int, int] | None = None  # 99th and 95th percentile of the rows' tokens
    obstacle: Obstacle | None = None  # why lq had it stop for now: its window, power, heat, or its user
    conclusion: LossFinding | Quarantine | Stop | None = None  # of the loss guard
    stages: Sequence[Stage] = ()  # of the run plan
    candidates: Sequence[RollbackCandidate] = ()  # checkpoints to go back to, where the guard concluded so
    batches_per_epoch: int = 0  # of the job file
