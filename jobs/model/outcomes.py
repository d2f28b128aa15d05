"""How an attempt ended, and why: two closed lists."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.model.events import EndedEvent


class Reason(StrEnum):
    """The closed list of reason codes (docs/reference/failures.md#reasons)."""

    COMPLETED = "completed"
    EARLY_STOPPED = "early_stopped"
    STOPPED_BY_USER = "stopped_by_user"
    WINDOW_CLOSED = "window_closed"
    ON_BATTERY = "on_battery"
    TOO_HOT = "too_hot"
    IN_USE = "in_use"  # a user works on the machine
    OUT_OF_MEMORY = "out_of_memory"
    GPU_WATCHDOG = "gpu_watchdog"
    GPU_TIMEOUT = "gpu_timeout"
    DESCRIPTOR_LEAK = "descriptor_leak"
    KILLED = "killed"
    CRASHED = "crashed"
    STALLED = "stalled"
    LOST = "lost"
    HOST_REBOOTED = "host_rebooted"
    DIVERGED = "diverged"
    NOT_FINITE = "not_finite"
    SPIKE = "spike"
    DRIFT = "drift"
    NO_GRADIENT = "no_gradient"
    DISK_FULL = "disk_full"
    NETWORK = "network"  # the hub or the network does not answer
    DATA_INVALID = "data_invalid"
    CONFIG_INVALID = "config_invalid"
    MODEL_MISSING = "model_missing"
    DEPENDENCY_FAILED = "dependency_failed"
    CRASH_LOOP = "crash_loop"
    DEADLINE = "deadline"


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"  # the run is complete
    STOPPED = "stopped"  # on request, with a checkpoint
    CRASHED = "crashed"  # a new attempt can succeed
    REFUSED = "refused"  # a new attempt would fail in the same way


class Quality(StrEnum):
    """How exact a resume is."""

    EXACT = "exact"  # bit for bit as without an interruption
    STATE = "state"  # weights, moments and position, but with other versions or on another device
    WEIGHTS = "weights"  # weights only
    FRESH = "fresh"  # from the beginning


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitReport:
    """The evidence about a trainer process that is gone."""

    exit_code: int | None  # None after a signal, or if another worker started the process
    signal: int | None  # the signal that ended it; None if there is none or it is unknown
    ended: EndedEvent | None  # its last event, if it wrote one
    stop_asked: bool  # lq requested a stop
    killed_by_lq: bool  # lq sent KILL
    same_boot: bool  # the machine has not rebooted since
    stderr_tail: str = ""  # the last lines of its output
    phase: str | None = None  # its last reported phase
    pressure_high: bool = False  # memory pressure at the last sample
    memory_share: float | None = None  # reported peak memory as a share of the limit
    kernel_oom_kills: int = 0  # processes that the kernel killed for memory while this one ran (Linux)
    stall: str | None = None  # why lq stopped it as stalled
    guarded: str | None = None  # why the memory guard stopped it
    disk_low: str | None = None  # why the disk watch stopped it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """The classified end of an attempt."""

    outcome: Outcome
    reason: Reason
    detail: str  # one line for the user, with the evidence
    sign: str | None = None  # the matched text that decided, if any
