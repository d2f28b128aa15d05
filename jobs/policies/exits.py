"""From the evidence a dead child leaves to an Ending (policies.md 3). Pure; the table is the law.

The child's own `ended` event comes first where it says that everything was done, then what lq itself did (a stall, a
restart of the machine), then the messages of Metal, the allocators and the system, then signals, then exit codes.
"""

from __future__ import annotations

import dataclasses
import re
import signal

from jobs.model.outcomes import Ending, ExitReport, Outcome, Reason

DONE, RESUMABLE, NEVER_RETRY, DISK_FULL = 0, 75, 78, 74
"""The child's exit codes: at the end; stopped on request; the same would happen again; no space to say anything."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sign:
    """A message that tells why a process died."""

    pattern: re.Pattern[str]
    reason: Reason
    means: str  # in words a tired person understands


def _sign(pattern: str, reason: Reason, means: str) -> Sign:
    return Sign(pattern=re.compile(pattern), reason=reason, means=means)


TOO_LARGE_BUFFER = "one buffer would be larger than the device allows"

SIGNS: tuple[Sign, ...] = (
    _sign(r"greater than the maximum allowed buffer size", Reason.OUT_OF_MEMORY, TOO_LARGE_BUFFER),
    _sign(r"Insufficient Memory|kIOGPU\w*OutOfMemory", Reason.OUT_OF_MEMORY, "the GPU ran out of memory"),
    _sign(
        r"Unable to allocate|std::bad_alloc|\bMemoryError\b|[Cc]annot allocate memory|CUDA out of memory",
        Reason.OUT_OF_MEMORY,
        "the machine ran out of memory",
    ),
    _sign(r"ImpactingInteractivity", Reason.GPU_WATCHDOG, "macOS took the GPU away because the display needed it"),
    _sign(r"kIOGPU\w*(?:Timeout|ErrorHang|PageFault)", Reason.GPU_TIMEOUT, "the GPU hung"),
    _sign(
        r"kIOGPU\w*(?:SubmissionsIgnored|InnocentVictim)", Reason.GPU_TIMEOUT, "the GPU was reset under this program"
    ),
    _sign(r"Resource limit \(\d+\) exceeded", Reason.DESCRIPTOR_LEAK, "MLX ran out of handles"),
    _sign(
        r"No space left on device|\[Errno 28\]|Disk quota exceeded|database or disk is full|\[write\] Unable to write",
        Reason.DISK_FULL,
        "the disk is full",
    ),
    _sign(
        r"RepositoryNotFoundError|GatedRepoError|RevisionNotFoundError|HfHubHTTPError: 40[13]\b",
        Reason.MODEL_MISSING,
        "the hub has no such model, or does not let this user have it",
    ),
)
"""The first that is found in the last lines of a dead child decides."""

_OFTEN_MEMORY = frozenset({signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS})
"""How a process dies that is refused memory: the kernel's KILL, or a native crash on the pointer it did not get."""

_NATIVE = _OFTEN_MEMORY - {signal.SIGKILL}

NEAR_THE_LIMIT = 0.8
"""A native crash of a process that had taken this share of its limit is taken for a refusal of more."""

_FROM_SOMEBODY = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""What a person, a shell or a shutdown sends; no program ends itself by them. TERM and INT only work on a trainer that
does not listen yet, in its first instants."""

_PERMANENT = frozenset({Reason.MODEL_MISSING})


def classify(exit_report: ExitReport) -> Ending:
    """Judge how an attempt ended.

    Args:
        exit_report: what the supervisor found.

    Returns:
        The first row of the table that fits. An `ended` event that says done, stopped or refused counts more than the
        exit code: it is the child's last line, and an adopted child leaves no code behind.
    """
    said = _said(exit_report)
    if said is not None:
        return said
    for judge in (_by_lq, _by_message, _by_memory, _by_signal):
        ending = judge(exit_report)
        if ending is not None:
            return ending
    return _by_code(exit_report)


def _said(exit_report: ExitReport) -> Ending | None:
    """Judge by the child's own last words, or by the exit code that stands for them."""
    reason, detail = _reason_said(exit_report), str((exit_report.ended or {}).get("detail") or "")
    outcome = (exit_report.ended or {}).get("outcome")
    code = exit_report.exit_code if exit_report.ended is None else None
    if outcome == Outcome.DONE and reason is not None:
        return Ending(outcome=Outcome.DONE, reason=reason, detail=detail or "trained to its last iteration")
    if outcome == Outcome.STOPPED or code == RESUMABLE:
        return _stopped(exit_report, reason, detail)
    if outcome == Outcome.REFUSED or code == NEVER_RETRY:
        return Ending(
            outcome=Outcome.REFUSED, reason=reason or Reason.CONFIG_INVALID, detail=detail or _last_line(exit_report)
        )
    return None


def _stopped(exit_report: ExitReport, reason: Reason | None, detail: str) -> Ending:
    """A stop that lq itself asked for, for want of memory, progress or space, is a death with a checkpoint."""
    if exit_report.guarded is not None:
        return _crashed(Reason.OUT_OF_MEMORY, exit_report.guarded)
    if exit_report.stall is not None:
        return _crashed(Reason.STALLED, exit_report.stall)
    if exit_report.disk_low is not None:
        return _crashed(Reason.DISK_FULL, exit_report.disk_low)
    return Ending(
        outcome=Outcome.STOPPED,
        reason=reason or Reason.STOPPED_BY_USER,
        detail=detail or "stopped on request after a checkpoint",
    )


def _by_lq(exit_report: ExitReport) -> Ending | None:
    if not exit_report.same_boot:
        return _crashed(Reason.HOST_REBOOTED, "the machine was restarted (another boot id)")
    if exit_report.guarded is not None:
        return _crashed(Reason.OUT_OF_MEMORY, exit_report.guarded)
    if exit_report.stall is not None:
        return _crashed(Reason.STALLED, exit_report.stall)
    if exit_report.disk_low is not None:
        return _crashed(Reason.DISK_FULL, exit_report.disk_low)
    return None


def _by_message(exit_report: ExitReport) -> Ending | None:
    text = "\n".join((exit_report.stderr_tail, str((exit_report.ended or {}).get("detail") or "")))
    for sign in SIGNS:
        found = sign.pattern.search(text)
        if found is None:
            continue
        line = _line_with(text, found.start())
        outcome = Outcome.REFUSED if sign.reason in _PERMANENT else Outcome.CRASHED
        return Ending(outcome=outcome, reason=sign.reason, detail=f"{sign.means}: {line}", sign=found[0])
    if _reason_said(exit_report) is Reason.OUT_OF_MEMORY:
        return _crashed(Reason.OUT_OF_MEMORY, "the machine ran out of memory")
    return None


def _by_memory(exit_report: ExitReport) -> Ending | None:
    """Judge a silent death by the memory around it: a process that is refused memory often leaves no message."""
    if exit_report.killed_by_lq or exit_report.signal not in _OFTEN_MEMORY:
        return None
    name = _signal_name(exit_report.signal or 0)
    if exit_report.signal == signal.SIGKILL and exit_report.kernel_oom_kills:
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} while the kernel was ending processes for memory")
    if exit_report.pressure_high:
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} while the machine was short of memory")
    share = exit_report.memory_share
    if exit_report.signal in _NATIVE and share is not None and share >= NEAR_THE_LIMIT:
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} after it had taken {share:.0%} of what it may")
    if exit_report.phase == "probe":
        return _crashed(Reason.OUT_OF_MEMORY, f"ended by {name} in the probe: the longest batch does not fit")
    return None


def _by_signal(exit_report: ExitReport) -> Ending | None:
    if exit_report.signal is None:
        return None
    if exit_report.stop_asked and exit_report.signal == signal.SIGTERM:
        detail = "stopped on request before it could listen"  # its first half second; nothing was trained
        return Ending(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail=detail)
    by = "lq" if exit_report.killed_by_lq else "something other than lq"
    reason = Reason.KILLED if exit_report.signal in _FROM_SOMEBODY else Reason.CRASHED
    return _crashed(reason, f"ended by {_signal_name(exit_report.signal)}, sent by {by}")


def _by_code(exit_report: ExitReport) -> Ending:
    said, detail = _reason_said(exit_report), str((exit_report.ended or {}).get("detail") or "")
    if exit_report.exit_code is None and exit_report.ended is None:
        return _crashed(Reason.LOST, "the process is gone; it was adopted, so its exit code is unknown")
    line = _last_line(exit_report)
    if exit_report.exit_code == DISK_FULL:
        return _crashed(Reason.DISK_FULL, detail or "the disk is full")
    code = f"exit code {exit_report.exit_code}" + (f": {line}" if line else "")
    reason = Reason.CRASHED if said is None or said is Reason.COMPLETED else said
    return _crashed(reason, detail or code)


def _crashed(reason: Reason, detail: str) -> Ending:
    return Ending(outcome=Outcome.CRASHED, reason=reason, detail=detail)


def _reason_said(exit_report: ExitReport) -> Reason | None:
    said = (exit_report.ended or {}).get("reason")
    return Reason(said) if isinstance(said, str) and said in set(Reason) else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _line_with(text: str, place: int) -> str:
    start = text.rfind("\n", 0, place) + 1
    end = text.find("\n", place)
    return text[start : end if end >= 0 else None].strip()[:300]


def _last_line(exit_report: ExitReport) -> str:
    lines = [line.strip() for line in exit_report.stderr_tail.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
