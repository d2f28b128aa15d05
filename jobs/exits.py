"""From the evidence a dead child leaves to an Ending (policies.md 3). Pure; the table is the law.

This storey knows exit codes, signals and the `ended` event. The messages of Metal and of the
allocators, memory pressure and stalls are the next issue's rows of the same table.
"""

from __future__ import annotations

import signal

from jobs.outcomes import Ending, ExitReport, Outcome, Reason

DONE, RESUMABLE, NEVER_RETRY = 0, 75, 78
"""The child's exit codes: at the end; stopped on request; the same would happen again."""


def classify(exit_report: ExitReport) -> Ending:
    """Judge how an attempt ended.

    Args:
        exit_report: what the supervisor found.

    Returns:
        The first row of the table that fits. An `ended` event that says done, stopped or refused counts more than the
        exit code: it is the child's last line, and an adopted child leaves no code behind.
    """
    reason = _reason_said(exit_report)
    detail = str((exit_report.ended or {}).get("detail") or "")
    said = _code_said(exit_report)
    code = exit_report.exit_code if said is None else said
    if said == DONE and reason is not None:  # exit code 0 alone proves nothing
        return Ending(outcome=Outcome.DONE, reason=reason, detail=detail or "trained to its last iteration")
    if code == RESUMABLE:
        return Ending(
            outcome=Outcome.STOPPED,
            reason=reason or Reason.STOPPED_BY_USER,
            detail=detail or "stopped on request after a checkpoint",
        )
    if code == NEVER_RETRY:
        return Ending(
            outcome=Outcome.REFUSED,
            reason=reason or Reason.CONFIG_INVALID,
            detail=detail or _tail(exit_report),
        )
    return Ending(outcome=Outcome.DIED, reason=_death(exit_report, reason), detail=_story(exit_report, detail))


def _reason_said(exit_report: ExitReport) -> Reason | None:
    said = (exit_report.ended or {}).get("reason")
    return Reason(said) if isinstance(said, str) and said in set(Reason) else None


def _code_said(exit_report: ExitReport) -> int | None:
    said = str((exit_report.ended or {}).get("outcome"))
    return {str(Outcome.DONE): DONE, str(Outcome.STOPPED): RESUMABLE, str(Outcome.REFUSED): NEVER_RETRY}.get(said)


def _death(exit_report: ExitReport, said: Reason | None) -> Reason:
    if not exit_report.same_boot:
        return Reason.HOST_REBOOTED
    if exit_report.signal == signal.SIGKILL:
        return Reason.KILLED
    if exit_report.signal is not None:
        return Reason.CRASHED
    if exit_report.exit_code is None and exit_report.ended is None:
        return Reason.LOST
    return Reason.CRASHED if said in (None, Reason.COMPLETED) else said


def _story(exit_report: ExitReport, detail: str) -> str:
    if not exit_report.same_boot:
        return "the machine was restarted (another boot id)"
    if exit_report.signal is not None:
        by = "lq" if exit_report.killed_by_lq else "something other than lq"
        return f"ended by {_signal_name(exit_report.signal)}, sent by {by}"
    if exit_report.exit_code is None:
        return detail or "the process is gone; it was adopted, so its exit code is unknown"
    tail = _tail(exit_report)
    return detail or f"exit code {exit_report.exit_code}" + (f": {tail}" if tail else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(exit_report: ExitReport) -> str:
    lines = [line.strip() for line in exit_report.stderr_tail.splitlines() if line.strip()]
    return lines[-1] if lines else ""
