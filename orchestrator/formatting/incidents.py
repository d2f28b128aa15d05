"""The text of an incident: what happened, the evidence, what lq did, and what it cost.

An incident is stored as fields. `describe` is the only place that makes text from them, for `lq show`, `lq logs`,
notifications and the report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.model.job import Attempt, Incident, ProgressPoint, crash_evidence
from jobs.model.outcomes import Reason
from orchestrator.formatting.text import counted, duration, short_time, size

CRASHES: Mapping[str, str] = {
    Reason.KILLED: "The trainer was killed",
    Reason.CRASHED: "The trainer crashed",
    Reason.OUT_OF_MEMORY: "The trainer ran out of memory",
    Reason.GPU_WATCHDOG: "macOS stopped the trainer's work on the GPU",
    Reason.GPU_TIMEOUT: "The GPU stopped responding",
    Reason.DESCRIPTOR_LEAK: "MLX ran out of handles",
    Reason.STALLED: "The trainer stalled",
    Reason.LOST: "The trainer disappeared while no worker ran",
    Reason.HOST_REBOOTED: "The machine restarted",
    Reason.DISK_FULL: "The disk was full",
}
_ROLLBACKS: Mapping[str, str] = {
    Reason.SPIKE: "The loss spiked",
    Reason.DRIFT: "The loss drifted upwards",
    Reason.NOT_FINITE: "The loss was not finite",
    Reason.NO_GRADIENT: "The model stopped learning",
    Reason.DIVERGED: "The loss guard gave up",
    Reason.EARLY_STOPPED: "The validation loss stopped improving",
    "quarantined": "Rows were excluded from training",
}
_RESTARTED = CRASHES.keys() - {Reason.DISK_FULL, Reason.HOST_REBOOTED}
_PAUSES: Mapping[str, str] = {
    Reason.WINDOW_CLOSED: "The time window closed",
    Reason.ON_BATTERY: "The machine ran on battery",
    Reason.TOO_HOT: "The machine was too hot",
    Reason.IN_USE: "The machine was in use",
    Reason.NETWORK: "The network or the hub did not answer",
}
_TITLES: Mapping[str, str] = {
    **CRASHES,
    **_ROLLBACKS,
    **_PAUSES,
    "suspect": "A loss was unusually high",
    "not_applied": "An update was not applied",
    "overfitting": "The validation loss rose while the train loss did not",
    "regressed": "The validation loss rose, and the train loss did not fall",
    "autopsy": "The rows around the spike were measured again",
    "slept": "The machine slept",
    "deadline": "The deadline will be missed",
    "self_test": "A resume did not reproduce the recorded validation loss",
    "checkpoint_invalid": "A checkpoint was damaged",
    "torn_kernel": "A compiled MLX kernel was damaged",
    "truncated": "Long rows were truncated",
    "not_published": "The adapter could not be published",
    "no_report": "The report could not be written",
    "user_went_back": "The job was rewound",
    "extended": "The job was extended",
    "adapter_set_aside": "An adapter of another run was moved",
    "events_unreadable": "Lines of events.jsonl could not be read",
    "events_lost": "events.jsonl was deleted or truncated",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class IncidentText:
    """The text of an incident, in phrases without a full stop. A phrase may be empty."""

    what: str
    evidence: str
    action: str
    cost: str

    @property
    def detail(self) -> str:
        """Evidence and action in one line."""
        return "; ".join(part for part in (self.evidence, self.action) if part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What an incident cost."""

    iterations: int | None = None  # trained twice or given up; None if unknown or not applicable
    seconds: float | None = None  # until the run was where it had been; None if it is not yet, or not applicable


def describe(
    incident: Incident, attempts: Sequence[Attempt] = (), points: Sequence[ProgressPoint] = ()
) -> IncidentText:
    """Return the text of an incident; without the attempts of the job and all its points the cost is unknown."""
    return IncidentText(
        what=f"{title_of(incident.code)}{_place(incident)}",
        evidence=_evidence(incident),
        action=_action(incident, attempts),
        cost=_cost(incident, cost_of(incident, attempts, points)) if attempts else "",
    )


def title_of(code: str) -> str:
    """Return what happened in a few words, by the code of an incident."""
    return _TITLES.get(code, code.replace("_", " ").capitalize())


def crash_of(attempt: Attempt) -> Incident:
    """Return a crash as an incident. None is stored for a crash after which the job failed."""
    return Incident(
        job_id=attempt.job_id,
        attempt=attempt.number,
        time=attempt.ended_at or attempt.started_at,
        code=attempt.reason or Reason.LOST,
        text=attempt.detail or "",
        evidence=crash_evidence(attempt),
    )


def iteration_of(incident: Incident) -> int | None:
    """Return the iteration at which an incident happened; None if it has none."""
    iteration = incident.evidence.get("iteration", incident.evidence.get("first_flag"))
    return iteration if isinstance(iteration, int) else None


def _place(incident: Incident) -> str:
    iteration = iteration_of(incident)
    words = [f"attempt {incident.attempt}"] if incident.attempt is not None else []
    if iteration is not None:
        words.append(f"iteration {iteration:,}")
    elif incident.code in CRASHES:
        words.append("before its first iteration")
    return f" ({', '.join(words)})" if words else ""


def _evidence(incident: Incident) -> str:
    evidence = incident.evidence
    slept, due = _number(evidence, "slept_s"), _number(evidence, "due")
    if incident.code == "slept" and slept is not None:
        return f"a clock that includes sleep advanced {duration(slept)} more than one that does not"
    if incident.code == "deadline" and due is not None:
        return _lateness(due, _number(evidence, "expected"))
    parts = [incident.text] if incident.text else []
    if evidence.get("exit_code") is not None and "exit code" not in incident.text:
        parts.append(f"exit code {evidence['exit_code']}")
    if evidence.get("phase"):
        parts.append(f"last reported phase: {evidence['phase']}")
    if evidence.get("sign") and str(evidence["sign"]) not in incident.text:
        parts.append(f"deciding line: {evidence['sign']}")
    for name, label in (("peak_bytes", "peak memory"), ("free_bytes", "free memory afterwards")):
        if value := _number(evidence, name):
            parts.append(f"{label} {size(value)}")
    return "; ".join(parts)


def _lateness(due: float, expected: float | None) -> str:
    if expected is None:
        return f"deadline {short_time(due)}, not done"
    return f"deadline {short_time(due)}, ETA {short_time(expected)} ({duration(expected - due)} late)"


def _action(incident: Incident, attempts: Sequence[Attempt]) -> str:
    evidence = incident.evidence
    if incident.code == Reason.NETWORK:
        return "waits, and tries again until it does"
    if incident.code in _PAUSES:
        iteration = iteration_of(incident)
        at = f" at iteration {iteration:,}" if iteration is not None else ""
        return f"stopped with a checkpoint{at}, to resume from it exactly"
    if incident.code == "slept":
        return "none; stall detection, speed and ETA exclude sleep"
    action = str(evidence.get("action") or "")
    if action and (incident.code in CRASHES or incident.code in _ROLLBACKS):
        action += _restart(incident)
        after = next((one for one in attempts if one.number > (incident.attempt or 0) and one.quality), None)
        action += f"; resume quality {after.quality}" if after is not None else ""
    return action


def _restart(incident: Incident) -> str:
    """Return how long lq waited before the restart, and the number of consecutive crashes."""
    delay = _number(incident.evidence, "delay_s")
    if delay is None or incident.code not in _RESTARTED:
        return ""
    row, most = incident.evidence.get("consecutive_crashes"), incident.evidence.get("max_restarts")
    when = f", restarted after {duration(delay)}" if delay else ", restarted immediately"
    return when + (f" (consecutive crash {row} of at most {most})" if row else "")


def cost_of(incident: Incident, attempts: Sequence[Attempt], points: Sequence[ProgressPoint]) -> Cost:
    """Return what an incident cost. Takes the arguments of `describe`."""
    slept = _number(incident.evidence, "slept_s")
    if incident.code == "slept" and slept is not None:
        return Cost(iterations=0, seconds=slept)
    attempt = next((one for one in attempts if one.number == incident.attempt), None)
    if incident.code in _ROLLBACKS:
        return _cost_of_rollback(incident, attempt, points)
    return _cost_of_crash(attempt, attempts, points) if attempt and incident.code in CRASHES else Cost()


def _cost_of_rollback(incident: Incident, attempt: Attempt | None, points: Sequence[ProgressPoint]) -> Cost:
    """Return the iterations given up, and the time since the run first reached the iteration it went back to."""
    back, place = incident.evidence.get("back_to"), incident.evidence.get("iteration")
    if not isinstance(back, int) or not isinstance(place, int):
        return Cost()
    earlier = [point for point in points if point.time <= incident.time]
    beyond = any(point.iteration > back for point in earlier)
    since = next((point.time for point in reversed(earlier) if point.iteration <= back), None)
    seconds = incident.time - since if beyond and since is not None else None
    reached = max(place, (attempt.last_iteration or 0) if attempt is not None else 0)  # a little beyond the alarm
    return Cost(iterations=max(0, reached - back), seconds=seconds)


def _cost_of_crash(attempt: Attempt, attempts: Sequence[Attempt], points: Sequence[ProgressPoint]) -> Cost:
    """Return the iterations trained twice, and the time from the crash until the run was there again."""
    reached = attempt.last_iteration if attempt.last_iteration is not None else attempt.first_iteration or 0
    later = (one for one in attempts if one.number > attempt.number)
    # an attempt that crashed before its first iteration repeated nothing
    first = next((one.first_iteration for one in later if one.first_iteration is not None), None)
    if first is None:
        return Cost()
    repeated = max(0, reached - first)
    again = next((p for p in points if p.attempt > attempt.number and p.iteration >= max(reached, 1)), None)
    if again is None or attempt.ended_at is None:
        return Cost(iterations=repeated)
    beyond = (again.iteration - reached) / again.it_s if again.it_s else 0.0
    return Cost(iterations=repeated, seconds=max(0.0, again.time - beyond - attempt.ended_at))


def _cost(incident: Incident, cost: Cost) -> str:
    if incident.code in _PAUSES:
        return "no iteration"
    if incident.code == "slept" and cost.seconds is not None:
        return f"{duration(cost.seconds)} without training, no iteration"
    if cost.iterations is None:
        return "unknown until the job resumes" if incident.code in CRASHES else ""
    if incident.code in _ROLLBACKS:
        time = f", {duration(cost.seconds)}" if cost.seconds is not None else ""
        return f"{counted(cost.iterations, 'iteration')} given up{time}"
    repeated = f"{counted(cost.iterations, 'iteration')} trained twice" if cost.iterations else "no iteration repeated"
    if cost.seconds is None:
        return f"{repeated}; the run is not back at that iteration yet"
    return f"{repeated}; {duration(cost.seconds)} until the run was back at that iteration"


def _number(evidence: Mapping[str, Any], name: str) -> float | None:
    value = evidence.get(name)
    return float(value) if isinstance(value, int | float) else None
