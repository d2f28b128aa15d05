"""An incident in words a tired person understands: what happened, how lq knows, what it did, what it cost. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.model.job import Attempt, Incident, ProgressPoint
from jobs.model.outcomes import Outcome, Reason
from jobs.model.run_plan import Stage
from orchestrator.formatting.text import counted, duration

_HAPPENED = {
    Reason.KILLED: "The trainer was killed",
    Reason.CRASHED: "The trainer crashed",
    Reason.OUT_OF_MEMORY: "The trainer ran out of memory",
    Reason.GPU_WATCHDOG: "macOS took the GPU away from the trainer",
    Reason.GPU_TIMEOUT: "The GPU stopped answering",
    Reason.DESCRIPTOR_LEAK: "MLX ran out of handles",
    Reason.STALLED: "The trainer stood still",
    Reason.LOST: "The trainer was gone when the worker looked for it",
    Reason.HOST_REBOOTED: "The machine was restarted",
    Reason.DISK_FULL: "There was no space left on the disk",
}
_OF_THE_GUARD = {
    "suspect": "A loss was out of all proportion",
    "spike": "The loss spiked",
    "drift": "The loss drifted up",
    "not_finite": "The loss was not finite",
    "not_applied": "An update was not applied",
    "overfitting": "Validation rose while training did not",
    "quarantined": "Rows were left out for good",
    "autopsy": "The rows around the spike were measured again",
    "early_stopped": "Validation stopped getting better",
    "diverged": "The loss guard gave up",
}
_STOPPED_FOR_NOW = {
    Reason.WINDOW_CLOSED: "Its window closed",
    Reason.ON_BATTERY: "The machine ran on battery",
    Reason.TOO_HOT: "The machine was too hot",
    Reason.IN_USE: "Somebody used the machine",
}
_OTHER = {
    "slept": "The machine slept",
    "deadline": "Its deadline cannot be met",
    "self_test": "A resume did not measure what had been recorded",
    "checkpoint_invalid": "A checkpoint was damaged",
    "torn_kernel": "A kernel that MLX had compiled was torn",
    "truncated": "Long rows are cut",
    "not_published": "The adapter could not be laid out",
    "no_report": "The report could not be written",
    "user_went_back": "You went back",
    "adapter_set_aside": "Another run's adapter was in the way",
    "events_unreadable": "The trainer said something that cannot be read",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """An incident, told; an empty text where there is nothing to say."""

    happened: str
    known_by: str
    answer: str
    cost: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What it took to be again where an attempt had died."""

    repeated: int | None  # iterations trained twice; None where no attempt has begun since
    lost_s: float | None  # from the death until the run stood there again; None where it does not yet


def told(incident: Incident, attempts: Sequence[Attempt], points: Sequence[ProgressPoint]) -> Told:
    """Tell an incident.

    Args:
        incident: the incident.
        attempts: of its job, by number.
        points: of its job, superseded ones included.
    """
    attempt = next((one for one in attempts if one.number == incident.attempt), None)
    if incident.code in _OF_THE_GUARD:
        return _guarded(incident, attempt, points)
    if incident.code in _STOPPED_FOR_NOW:
        stopped, _, because = incident.text.partition(": ")
        return Told(
            happened=f"{_STOPPED_FOR_NOW[Reason(incident.code)]} (attempt {incident.attempt}).",
            known_by=_sentence(because),
            answer=_sentence(f"{stopped}, with a checkpoint, to go on exactly from there"),
            cost="no iteration; the time until it may train again.",
        )
    if attempt is None or attempt.outcome != Outcome.CRASHED or incident.code not in set(Reason):
        return _note(incident)
    return Told(
        happened=f"{_HAPPENED.get(Reason(incident.code), 'The trainer died')} ({_place(attempt)}).",
        known_by=_sentence(_evidence(attempt, incident.evidence)),
        answer=_sentence(_answer(incident, attempt)),
        cost=_sentence(_price(cost(attempt, attempts, points))),
    )


def title_of(code: str) -> str:
    """Return what happened in a few words, by the code of an incident."""
    if code in set(Reason) and (happened := {**_HAPPENED, **_STOPPED_FOR_NOW}.get(Reason(code))) is not None:
        return happened
    return (_OF_THE_GUARD | _OTHER).get(code, code.replace("_", " ").capitalize())


def end(attempt: Attempt) -> Told:
    """Tell a death after which the job was given up."""
    happened = _HAPPENED.get(Reason(attempt.reason or Reason.LOST), "The trainer died")
    return Told(
        happened=f"{happened} ({_place(attempt)}).", known_by=_sentence(_evidence(attempt, {})), answer="", cost=""
    )


def _guarded(incident: Incident, attempt: Attempt | None, points: Sequence[ProgressPoint]) -> Told:
    """Tell what the loss guard saw: its text is the evidence, and after that of the attempt's end the answer."""
    seen = incident.evidence
    place = seen.get("iteration", seen.get("first_flag"))
    words = [f"attempt {incident.attempt}"] * (incident.attempt is not None)
    words += [f"iteration {place:,}"] if isinstance(place, int) else []
    where = f" ({', '.join(words)})" if words else ""
    before, found, answer = incident.text.partition(f"{attempt.detail}; " if attempt and attempt.detail else "; went")
    known, answer = (attempt.detail or "", answer) if found and not before and attempt else (incident.text, "")
    back = seen.get("back_to")
    if not answer and isinstance(back, int):
        which = f", rollback {seen['rollback']}" if seen.get("rollback") else ""
        answer = f"went back to iteration {back:,}{which}"
    return Told(
        happened=f"{_OF_THE_GUARD[incident.code]}{where}.",
        known_by=_sentence(known),
        answer=_sentence(answer),
        cost=_sentence(_given_up(guard_cost(incident, attempt, points))),
    )


def guard_cost(incident: Incident, attempt: Attempt | None, points: Sequence[ProgressPoint]) -> Cost:
    """Return what going back gave up: iterations, and the time since the run had first been where it went back to.

    Args:
        incident: of the loss guard.
        attempt: whose losses it saw; it came a little further before it was stopped.
        points: of its job, superseded ones included.
    """
    back, place = incident.evidence.get("back_to"), incident.evidence.get("iteration")
    if not isinstance(back, int) or not isinstance(place, int):
        return Cost(repeated=None, lost_s=None)
    mine = [point for point in points if point.time <= incident.time]
    passed = [point for point in mine if point.iteration > back]
    since = next((point.time for point in reversed(mine) if point.iteration <= back), None)
    lost = incident.time - since if passed and since is not None else None
    reached = max(place, (attempt.last_iteration or 0) if attempt is not None else 0)
    return Cost(repeated=max(0, reached - back), lost_s=lost)


def _given_up(found: Cost) -> str:
    if found.repeated is None:
        return ""
    time = f", {duration(found.lost_s)}" if found.lost_s is not None else ""
    return f"{counted(found.repeated, 'iteration')} given up{time}"


def _note(incident: Incident) -> Told:
    """Tell what is no death: its text says what and how; a sleep has a price in time."""
    slept = incident.evidence.get("slept_s")
    if incident.code == "slept" and isinstance(slept, int | float):
        return Told(
            happened=f"{incident.text[:1].upper()}{incident.text[1:]}.",
            known_by="a clock that goes on in sleep moved ahead of one that stops in it.",
            answer="nothing; a sleep is not taken for a stall, and speed and ETA leave it out.",
            cost=f"{duration(float(slept))} of the night, no iteration.",
        )
    title = _OTHER.get(incident.code, incident.code.replace("_", " ").capitalize())
    where = f" (attempt {incident.attempt})" if incident.attempt is not None else ""
    return Told(happened=f"{title}{where}: {_sentence(incident.text)}", known_by="", answer="", cost="")


def cost(attempt: Attempt, attempts: Sequence[Attempt], points: Sequence[ProgressPoint]) -> Cost:
    """Return what a death cost.

    Args:
        attempt: the attempt that died.
        attempts: of its job, by number.
        points: of its job, superseded ones included.
    """
    came_to = _reached(attempt)
    after = next(
        (one for one in attempts if one.number > attempt.number and one.first_iteration is not None), None
    )  # those that died before they began have repeated nothing
    if after is None or after.first_iteration is None:
        return Cost(repeated=None, lost_s=None)
    back = next((p for p in points if p.attempt >= after.number and p.iteration >= max(came_to, 1)), None)
    died = attempt.ended_at
    if back is None or died is None:
        return Cost(repeated=max(0, came_to - after.first_iteration), lost_s=None)
    beyond = (back.iteration - came_to) / back.it_s if back.it_s else 0.0
    return Cost(repeated=max(0, came_to - after.first_iteration), lost_s=max(0.0, back.time - beyond - died))


def _reached(attempt: Attempt) -> int:
    return attempt.last_iteration if attempt.last_iteration is not None else attempt.first_iteration or 0


def _place(attempt: Attempt) -> str:
    if attempt.first_iteration is None:
        return f"attempt {attempt.number}, before it began"
    return f"attempt {attempt.number}, iteration {_reached(attempt):,}"


def _evidence(attempt: Attempt, seen: Mapping[str, Any]) -> str:
    parts = [attempt.detail or "it left nothing behind that tells"]
    if attempt.exit_code is not None and "exit code" not in parts[0]:
        parts.append(f"exit code {attempt.exit_code}")
    if attempt.phase is not None:
        parts.append(f"its last word was from phase {attempt.phase}")
    sign = seen.get("sign")
    if isinstance(sign, str) and sign not in parts[0]:
        parts.append(f"the line that decided: {sign}")
    for name, words in (("peak_bytes", "its memory had peaked at"), ("free_bytes", "free afterwards:")):
        value = seen.get(name)
        if isinstance(value, int | float) and value:
            parts.append(f"{words} {value / 1e9:.2f} GB")
    return "; ".join(parts)


def _answer(incident: Incident, attempt: Attempt) -> str:
    """Return the answer, which the incident's text has after the evidence, and how long it waited."""
    _, found, answer = incident.text.partition(f"{attempt.detail}; ")
    if not found:
        _, _, answer = incident.text.partition("; ")
    waited, row = incident.evidence.get("delay_s"), incident.evidence.get("consecutive_crashes")
    if not answer or not isinstance(waited, int | float) or incident.code in (Reason.DISK_FULL, Reason.HOST_REBOOTED):
        return answer
    when = f"after a pause of {duration(float(waited))}" if waited else "at once"
    most = incident.evidence.get("max_restarts")
    return f"{answer}, {when}" + (f" (death {row} in a row, of {most} that are answered)" if row else "")


def _price(found: Cost) -> str:
    if found.repeated is None:
        return "not known yet: it has not gone on"
    again = f"{counted(found.repeated, 'iteration')} trained twice" if found.repeated else "no iteration repeated"
    if found.lost_s is None:
        return f"{again}; it is not back where it was yet"
    return f"{again}; {duration(found.lost_s)} until it was back where it had been"


def _sentence(text: str) -> str:
    stripped = text.strip()
    return f"{stripped}." if stripped and stripped[-1] not in ".!?" else stripped


def differences(requested: Stage, stage: Stage) -> str:
    """Return what a stage changes of what was asked for, as "requested -> run"."""
    said = []
    for field in dataclasses.fields(Stage):
        asked, run = getattr(requested, field.name), getattr(stage, field.name)
        if field.name not in _NO_SETTING and asked != run:
            name = _SETTINGS.get(field.name, field.name.replace("_", " "))
            shown = (f"{run[0] + 1} to {run[1]}",) if field.name == "skipped" and run else run
            said.append(f"{name} {_setting(asked)} -> {_setting(shown)}")
    return ", ".join(said) or "as requested"


_NO_SETTING = {"first_example", "because", "rollback", "first_flag", "first_update"}
"""Fields of a stage that say where and why it begins."""

_SETTINGS = {
    "batch_size": "batch",
    "grad_accumulation_steps": "accumulation",
    "grad_checkpoint": "gradient checkpointing",
    "max_seq_length": "max_seq_length",
    "learning_rate_factor": "learning rate x",
    "salt": "salt of the data order",
    "grad_clip": "gradient norm clipped to",
    "warmup_updates": "warm-up updates",
    "quarantined": "rows left out for good",
    "skipped": "batches left out for an epoch",
    "reset_moments": "moments forgotten",
    "ends": "ends here",
}


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
