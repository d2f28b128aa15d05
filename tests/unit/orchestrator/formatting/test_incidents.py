"""The text of incidents, from their fields."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jobs.model.job import Attempt, Incident, ProgressPoint
from jobs.model.outcomes import Outcome, Reason
from orchestrator.formatting.events import incident_line
from orchestrator.formatting.incidents import Cost, cost_of, crash_of, describe, title_of
from tests.golden import assert_golden


def _incident(code: str, text: str, **evidence: Any) -> Incident:
    return Incident(job_id=1, attempt=1, time=1000.0, code=code, text=text, evidence=evidence)


CRASH = {"iteration": 337, "exit_code": None, "phase": "train", "action": "resumed from its last checkpoint"}
RESTART = {"delay_s": 40.0, "consecutive_crashes": 3, "max_restarts": 5}
INCIDENTS = (
    _incident(Reason.KILLED, "ended by SIGKILL", **CRASH, **RESTART),
    _incident(Reason.CRASHED, "boom", **CRASH | {"exit_code": 1, "iteration": None}, **RESTART | {"delay_s": 0.0}),
    _incident(Reason.OUT_OF_MEMORY, "no memory", **CRASH, **RESTART, sign="[METAL] x", peak_bytes=3.21e9),
    _incident(Reason.DISK_FULL, "no space left", **CRASH, **RESTART),
    _incident(Reason.SPIKE, "loss 9.1", iteration=1030, back_to=600, action="went back to iteration 600"),
    _incident("suspect", "loss 3.2", iteration=1030, first_flag=1000, action="requested a validation"),
    _incident(Reason.ON_BATTERY, "the machine runs on battery", iteration=400, why="on_battery"),
    _incident("slept", "the machine slept 3 h", slept_s=10_800.0),
    _incident("deadline", "late", due=200_000.0, expected=None),
    _incident("a_new_one", "text of a newer version"),
)  # fmt: skip


def test_incidents_match_golden_file() -> None:
    lines = []
    for incident in INCIDENTS:
        text = describe(incident, [_attempt(1, last=337, ended=1000.0)])
        fields = dataclasses.asdict(text).items()
        lines += [incident.code, *(f"  {name}: {phrase}" for name, phrase in fields if phrase)]
    assert_golden("\n".join(lines) + "\n", Path(__file__).parent / "golden" / "incidents.txt")


def _attempt(number: int, *, last: int, ended: float | None, first: int = 0, quality: str | None = None) -> Attempt:
    return Attempt(
        id=number,
        job_id=1,
        number=number,
        child=None,
        started_at=0.0,
        ended_at=ended,
        first_iteration=first,
        last_iteration=last,
        resumed_from=None,
        quality=quality,
        exit_code=1,
        signal=None,
        outcome=Outcome.CRASHED if ended else None,
        reason=Reason.CRASHED if ended else None,
        detail="boom" if ended else None,
        phase="train",
        stage=0,
        stderr_tail=None,
        settled=True,
    )


def _point(attempt: int, iteration: int, time: float) -> ProgressPoint:
    unknown: dict[str, Any] = dict.fromkeys(
        ("learning_rate", "tok_s", "tokens", "active_bytes", "cache_bytes", "peak_bytes", "footprint_bytes")
    )
    return ProgressPoint(attempt=attempt, iteration=iteration, time=time, train_loss=1.0, it_s=2.0, **unknown)


def test_crash_cost_needs_the_next_attempt() -> None:
    crash = INCIDENTS[0]
    first = _attempt(1, last=337, ended=1000.0)
    assert cost_of(crash, [first], []) == Cost()
    second = _attempt(2, first=300, last=340, ended=None, quality="exact")
    assert cost_of(crash, [first, second], [_point(2, 320, 1020.0)]) == Cost(iterations=37)
    again = [_point(2, 320, 1020.0), _point(2, 347, 1035.0)]
    assert cost_of(crash, [first, second], again) == Cost(iterations=37, seconds=30.0)
    assert describe(crash, [first, second], again).action.endswith("resume quality exact")


def test_rollback_cost_starts_at_its_target() -> None:
    points = [_point(1, 590, 500.0), _point(1, 600, 505.0), _point(1, 1030, 720.0)]
    assert cost_of(INCIDENTS[4], [_attempt(1, last=1040, ended=730.0)], points) == Cost(iterations=440, seconds=495.0)


def test_crash_description_uses_the_attempt() -> None:
    text = describe(crash_of(_attempt(2, last=50, ended=90.0)))
    assert text.what.endswith(" crashed (attempt 2, iteration 50)")
    assert text.evidence.split("; ") == ["boom", "exit code 1", "last reported phase: train"]
    assert (text.action, text.cost) == ("", "")


def test_line_joins_evidence_and_action() -> None:
    line = incident_line(INCIDENTS[5])
    assert line.endswith("1,030): loss 3.2; requested a validation")


def test_unknown_code_has_a_title() -> None:
    assert title_of("a_new_one") == "A new one"
