"""Classifies the end of an attempt (docs/explanation/policies.md, section 3).

The order of the evidence: the trainer's own `ended` event, what lq itself did, messages of Metal, the allocators and
the system, the memory, signals, exit codes.
"""

from __future__ import annotations

import re
import signal

from jobs.model.events import EndedEvent
from jobs.model.outcomes import Ending, ExitReport, Outcome, Reason

DONE, RESUMABLE, NEVER_RETRY, DISK_FULL = 0, 75, 78, 74
"""Exit codes of the trainer: finished; stopped on request; would fail again; no disk space even for an event."""


TOO_LARGE_BUFFER = "a buffer would exceed the maximum of the device"

ERROR_PATTERNS = (
    (r"greater than the maximum allowed buffer size", Reason.OUT_OF_MEMORY, TOO_LARGE_BUFFER),
    (r"Insufficient Memory|kIOGPU\w*OutOfMemory", Reason.OUT_OF_MEMORY, "the GPU ran out of memory"),
    (
        r"Unable to allocate|std::bad_alloc|\bMemoryError\b|[Cc]annot allocate memory|CUDA out of memory",
        Reason.OUT_OF_MEMORY,
        "the machine ran out of memory",
    ),
    (r"ImpactingInteractivity", Reason.GPU_WATCHDOG, "macOS took the GPU away because the display needed it"),
    (r"kIOGPU\w*(?:Timeout|ErrorHang|PageFault)", Reason.GPU_TIMEOUT, "the GPU hung"),
    (r"kIOGPU\w*(?:SubmissionsIgnored|InnocentVictim)", Reason.GPU_TIMEOUT, "the GPU was reset by another program"),
    (r"Resource limit \(\d+\) exceeded", Reason.DESCRIPTOR_LEAK, "MLX ran out of handles"),
    (
        r"No space left on device|\[Errno 28\]|Disk quota exceeded|database or disk is full|\[write\] Unable to write",
        Reason.DISK_FULL,
        "the disk is full",
    ),
    (
        r"RepositoryNotFoundError|GatedRepoError|RevisionNotFoundError|HfHubHTTPError: 40[13]\b",
        Reason.MODEL_MISSING,
        "the hub does not have this model, or your account has no access to it",
    ),
)
"""Error messages in the output of a trainer, their reason and their meaning; the first that occurs decides."""

_OFTEN_MEMORY = frozenset({signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS})
"""Signals after a refused allocation: KILL from the kernel, or a native crash on a null pointer."""

_NATIVE = _OFTEN_MEMORY - {signal.SIGKILL}

_NO_END = EndedEvent(outcome=None, reason=None)
"""Replaces the `ended` event of a trainer that wrote none."""

NEAR_THE_LIMIT = 0.8
"""Above this share of the memory limit, a native crash counts as a refused allocation."""

_EXTERNAL = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that a user, a shell or a shutdown sends. TERM and INT end a trainer only before it installs its handlers."""


def classify(exit_report: ExitReport) -> Ending:
    """Classify the end of an attempt by the first row of the table that matches.

    An `ended` event has priority over the exit code, because lq does not see the exit code of an adopted trainer.
    """
    for classifier in (_by_event, _by_lq, _by_message, _by_memory, _by_signal):
        ending = classifier(exit_report)
        if ending is not None:
            return ending
    return _by_code(exit_report)


def _by_event(exit_report: ExitReport) -> Ending | None:
    """Classify by the `ended` event, or by the exit code that replaces it."""
    ended = exit_report.ended or _NO_END
    outcome, reason, detail = ended.outcome, ended.reason, ended.detail
    code = exit_report.exit_code if exit_report.ended is None else None
    if outcome == Outcome.DONE and reason is not None:
        return Ending(outcome=Outcome.DONE, reason=reason, detail=detail or "trained to its last iteration")
    if outcome == Outcome.STOPPED or code == RESUMABLE:
        # a stop that lq requested for lack of memory, progress or space counts as a crash
        return _stopped_by_lq(exit_report) or Ending(
            outcome=Outcome.STOPPED,
            reason=reason or Reason.STOPPED_BY_USER,
            detail=detail or "stopped on request after a checkpoint",
        )
    if outcome == Outcome.REFUSED or code == NEVER_RETRY:
        return Ending(
            outcome=Outcome.REFUSED, reason=reason or Reason.CONFIG_INVALID, detail=detail or _last_line(exit_report)
        )
    return None


def _by_lq(exit_report: ExitReport) -> Ending | None:
    if not exit_report.same_boot:
        return _crashed(Reason.HOST_REBOOTED, "the machine rebooted (another boot id)")
    return _stopped_by_lq(exit_report)


def _stopped_by_lq(exit_report: ExitReport) -> Ending | None:
    stops = (
        (Reason.OUT_OF_MEMORY, exit_report.guarded),
        (Reason.STALLED, exit_report.stall),
        (Reason.DISK_FULL, exit_report.disk_low),
    )
    return next((_crashed(reason, why) for reason, why in stops if why is not None), None)


def _by_message(exit_report: ExitReport) -> Ending | None:
    ended = exit_report.ended or _NO_END
    lines = [line.strip() for line in f"{exit_report.stderr_tail}\n{ended.detail}".split("\n")]
    for pattern, reason, meaning in ERROR_PATTERNS:
        line, match = next(((line, match) for line in lines if (match := re.search(pattern, line))), ("", None))
        if match is not None:
            outcome = Outcome.REFUSED if reason is Reason.MODEL_MISSING else Outcome.CRASHED
            return Ending(outcome=outcome, reason=reason, detail=f"{meaning}: {line[:300]}", sign=match[0])
    if ended.reason is Reason.OUT_OF_MEMORY:
        return _crashed(Reason.OUT_OF_MEMORY, "the machine ran out of memory")
    return None


def _by_memory(exit_report: ExitReport) -> Ending | None:
    """Classify a crash without a message by the memory: after a refused allocation there often is no message."""
    if exit_report.killed_by_lq or exit_report.signal not in _OFTEN_MEMORY:
        return None
    name = _signal_name(exit_report.signal or 0)
    if exit_report.signal == signal.SIGKILL and exit_report.kernel_oom_kills:
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} while the kernel killed processes for memory")
    if exit_report.pressure_high:
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} under memory pressure")
    share = exit_report.memory_share
    if exit_report.signal in _NATIVE and share is not None and share >= NEAR_THE_LIMIT:
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} at {share:.0%} of its memory limit")
    if exit_report.phase == "probe":
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} in the probe: the longest batch does not fit")
    return None


def _by_signal(exit_report: ExitReport) -> Ending | None:
    if exit_report.signal is None:
        return None
    if exit_report.stop_asked and exit_report.signal == signal.SIGTERM:
        detail = "stopped on request before it installed its signal handler"  # in its first half second
        return Ending(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail=detail)
    by = "lq" if exit_report.killed_by_lq else "something other than lq"
    reason = Reason.KILLED if exit_report.signal in _EXTERNAL else Reason.CRASHED
    return _crashed(reason, f"ended by {_signal_name(exit_report.signal)}, sent by {by}")


def _by_code(exit_report: ExitReport) -> Ending:
    ended = exit_report.ended or _NO_END
    reason, detail = ended.reason, ended.detail
    if exit_report.exit_code is None and exit_report.ended is None:
        return _crashed(Reason.LOST, "the process is gone; its exit code is unknown, because another worker started it")
    line = _last_line(exit_report)
    if exit_report.exit_code == DISK_FULL:
        return _crashed(Reason.DISK_FULL, detail or "the disk is full")
    code = f"exit code {exit_report.exit_code}" + (f": {line}" if line else "")
    if reason is None or reason is Reason.COMPLETED:
        reason = Reason.CRASHED
    return _crashed(reason, detail or code)


def _crashed(reason: Reason, detail: str) -> Ending:
    return Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(exit_report: ExitReport) -> str:
    lines = [line.strip() for line in exit_report.stderr_tail.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
