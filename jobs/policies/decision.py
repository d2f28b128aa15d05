"""A Decision, and the history that the rules in after_attempt.py and after_loss_alarm.py use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from jobs.loss.alarms import LossFinding
from jobs.model.outcomes import Ending, Reason
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.early_stop import Stop
from jobs.policies.machine import MachineCause
from jobs.policies.quarantine import Quarantine
from jobs.policies.retry import Crash
from jobs.policies.rollback import RollbackCandidate
from jobs.scheduling.obstacles import Obstacle

StopRequest = Literal["cancel", "pause", "worker_stop"]
"""A request to stop a running job: by `lq cancel`, by `lq pause`, by the worker that shuts down."""

STOP_REQUESTS: tuple[StopRequest, ...] = get_args(StopRequest)


def stop_request_from(text: str | None) -> StopRequest | None:
    """Read a stop request from the store; None for other text."""
    return next((stop_request for stop_request in STOP_REQUESTS if stop_request == text), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to a job after an attempt, and the numbers that the rule used."""

    status: Status
    reason: Reason | None
    detail: str  # one line for the user
    not_before: float | None = None  # unix seconds; set if the status is waiting
    stage: Stage | None = None  # to append to the run plan
    back_to: int | None = None  # iteration of a rollback; later reports are discarded
    publish_until: int | None = None  # lq publishes a checkpoint at or before this iteration; None: no limit
    answer: str = ""  # what lq does, in words
    evidence: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @classmethod
    def after(cls, ending: Ending, status: Status, **fields: Any) -> Decision:
        """Return the decision after an end, whose reason and detail it takes over unless `fields` has others."""
        return cls(status=status, **{"reason": ending.reason, "detail": ending.detail} | fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """What led to the end of an attempt."""

    stop_request: StopRequest | None = None  # made while the job ran
    crashes: Sequence[Crash] = ()  # since the last submit or retry, oldest first, including this one
    reboots: int = 0  # attempts ended by a reboot in the last 24 hours, including this one
    stage: Stage | None = None  # the stage of the attempt
    next_example: int = 0  # examples seen at the start of the next attempt
    survived: int = 0  # iterations trained in the attempt
    repeated_stage: bool = False  # an attempt on this stage was already repeated without change
    at_its_own_limit: bool = False  # it came close to its own memory limit, so that no other program was the cause
    peak_bytes: int | None = None  # peak memory of the attempt
    free_bytes: int | None = None  # memory free now
    lengths: tuple[int, int] | None = None  # 99th and 95th percentile of the tokens of a row
    obstacle: Obstacle | None = None  # why lq stopped it for now: window, power, heat, use of the machine
    waits: int = 0  # attempts that ended for the network, one after the other, including this one
    machine: MachineCause | None = None  # the crash is caused by the machine, not by the job
    conclusion: LossFinding | Quarantine | Stop | None = None  # of the loss guard
    stages: Sequence[Stage] = ()  # of the run plan
    candidates: Sequence[RollbackCandidate] = ()  # set if the conclusion needs a rollback
    batches_per_epoch: int = 0  # with the batch size of the job file
