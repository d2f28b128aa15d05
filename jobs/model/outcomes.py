"""How an attempt ended, and why: two closed lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """The closed list of reason codes (design.md, "Job states")."""

    COMPLETED = "completed"
    EARLY_STOPPED = "early_stopped"
    STOPPED_BY_USER = "stopped_by_user"
    WINDOW_CLOSED = "window_closed"
    ON_BATTERY = "on_battery"
    TOO_HOT = "too_hot"
    IN_USE = "in_use"  # somebody works on the machine
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
    DISK_FULL = "disk_full"
    DATA_INVALID = "data_invalid"
    CONFIG_INVALID = "config_invalid"
    MODEL_MISSING = "model_missing"
    DEPENDENCY_FAILED = "dependency_failed"
    CRASH_LOOP = "crash_loop"
    DEADLINE = "deadline"


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"  # the run is at its end
    STOPPED = "stopped"  # on request, with a checkpoint
    CRASHED = "crashed"  # anything a new attempt may cure
    REFUSED = "refused"  # the same would happen again


class Quality(StrEnum):
    """How faithful a resume is."""

    EXACT = "exact"  # every bit as if never interrupted
    STATE = "state"  # weights, moments, position; but other versions or another device
    WEIGHTS = "weights"  # weights only
    FRESH = "fresh"  # from the beginning


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitReport:
    """What the supervisor knows about a child that is gone; evidence, not yet a judgement."""

    exit_code: int | None  # None where the child was adopted, or died by a signal
    signal: int | None  # the signal that ended it, None where none or unknown
    ended: Mapping[str, object] | None  # what its `ended` event carries, None where it wrote none
    stop_asked: bool  # lq had asked it to stop
    killed_by_lq: bool  # lq itself sent the KILL
    same_boot: bool  # the machine has not been restarted since
    stderr_tail: str = ""  # the last lines of its own output
    phase: str | None = None  # what it was doing, as far as it said
    pressure_high: bool = False  # the machine was short of memory at the last sample
    memory_share: float | None = None  # the most it took, in parts of its limit, as far as it said
    kernel_oom_kills: int = 0  # processes the kernel ended for memory while this one lived (Linux)
    stall: str | None = None  # why lq ended it as stalled; None where it did not
    guarded: str | None = None  # why the memory guard had it stop; None where it did not
    disk_low: str | None = None  # why lq had it stop for want of space; None where it did not


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """An attempt's end as lq judges it."""

    outcome: Outcome
    reason: Reason
    detail: str  # one line for a person, with the evidence
    sign: str | None = None  # the very line or number that decided, where there is one
