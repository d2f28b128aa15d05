"""What happened while nobody watched, in plain words: attempts, restarts with cost and proof, incidents. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import tzinfo

from jobs.outcomes import Outcome, Quality
from orchestrator.report.facts import AttemptFacts, Facts, IncidentFacts, SelfTest
from orchestrator.report.wording import NOT_MEASURED, code, duration, escaped, moment, or_unknown, table, times, whole

_QUALITY = {
    Quality.EXACT: "every bit as if never interrupted",
    Quality.STATE: "weights, moments and position restored, under other versions or on another device",
    Quality.WEIGHTS: "only the weights were restored",
    Quality.FRESH: "from the beginning",
}
_ENDED = {
    Outcome.DONE: "reached its end",
    Outcome.STOPPED: "stopped on request",
    Outcome.DIED: "died",
    Outcome.REFUSED: "refused to go on",
}


def what_happened(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the lines of the section about attempts and restarts; times in `zone`."""
    title = ["## What happened", ""]
    if not facts.attempts:
        return [*title, "No attempt was started."]
    if not facts.restarts:
        return [*title, f"One attempt, no restart. It {_end_of(facts.attempts[0])}."]
    stories = [
        f"{count}. {_restart(before, attempt)}"
        for count, (before, attempt) in enumerate(itertools.pairwise(facts.attempts), start=1)
    ]
    last = facts.attempts[-1]
    return [
        *title,
        f"{times(len(facts.restarts), 'restart')}; {times(facts.repeated_iterations, 'iteration')} trained twice.",
        "",
        *stories,
        "",
        f"Attempt {last.number} {_end_of(last)}.",
        "",
        *_attempt_table(facts.attempts, zone),
    ]


def _restart(before: AttemptFacts, attempt: AttemptFacts) -> str:
    place = f"from iteration {whole(attempt.first_iteration)}" if attempt.first_iteration is not None else ""
    named = f" ({code(attempt.resumed_from)})" if attempt.resumed_from else ""
    start = f"Attempt {attempt.number} began {_later(attempt.idle_seconds)} {place}{named}".rstrip()
    return " ".join(
        (
            f"Attempt {before.number} {_end_of(before)}.",
            f"{start}, resume quality {_quality(attempt.quality)}.",
            _price(attempt),
            _proof(attempt.self_test),
        )
    )


def _later(idle_seconds: float | None) -> str:
    return "after a time that was not measured," if idle_seconds is None else f"{duration(idle_seconds)} later"


def _quality(quality: str | None) -> str:
    if quality not in set(Quality):
        return NOT_MEASURED
    return f"`{quality}` ({_QUALITY[Quality(quality)]})"


def _price(attempt: AttemptFacts) -> str:
    if attempt.repeated_iterations is None:
        return f"Cost in iterations: {NOT_MEASURED}."
    repeated = attempt.repeated_iterations
    cost = f"Cost: {times(repeated, 'iteration')} trained a second time" if repeated else "Cost: no iteration repeated"
    if attempt.catch_up_seconds is None:
        return f"{cost}; it ended before it was back at iteration {whole(attempt.came_to)}." if repeated else f"{cost}."
    return f"{cost}; {duration(attempt.catch_up_seconds)} after its start it was at iteration {whole(attempt.came_to)}."


def _proof(test: SelfTest | None) -> str:
    if test is None or test.measured is None or test.recorded is None:
        return f"Self-test: {NOT_MEASURED}."
    # Every digit: the claim is equality, and rounding would make unequal numbers look equal.
    found = f"Self-test: validation loss {test.measured!r} measured after the resume, {test.recorded!r} recorded"
    return f"{found}: {_equal(test)}."


def _equal(test: SelfTest) -> str:
    if test.equal is None:
        return "not compared"
    return "equal" if test.equal else "not equal"


def _end_of(attempt: AttemptFacts) -> str:
    place = "" if attempt.last_iteration is None else f" at iteration {whole(attempt.last_iteration)}"
    if attempt.outcome is None:
        return f"had not ended{place}"
    known = attempt.outcome in set(Outcome)
    verb = _ENDED[Outcome(attempt.outcome)] if known else f"ended ({escaped(attempt.outcome)})"
    detail = f": {escaped(attempt.detail).rstrip('.')}" if attempt.detail else ""
    return f"{verb}{place}{detail}"


def _attempt_table(attempts: Sequence[AttemptFacts], zone: tzinfo | None) -> list[str]:
    header = ("Attempt", "Started", "Life", "Iterations", "Resume", "Ended", "Idle before", "Repeated", "Back after")
    rows = [
        (
            f"{attempt.number}",
            moment(attempt.started_at, zone),
            duration(attempt.seconds),
            f"{or_unknown(attempt.first_iteration)} → {or_unknown(attempt.last_iteration)}",
            attempt.quality or NOT_MEASURED,
            f"{attempt.outcome or 'not yet'}{f' ({attempt.reason})' if attempt.reason else ''}",
            "" if attempt.number == 1 else duration(attempt.idle_seconds),
            "" if attempt.number == 1 else whole(attempt.repeated_iterations),
            "" if attempt.number == 1 else duration(attempt.catch_up_seconds),
        )
        for attempt in attempts
    ]
    return table(header, rows, right="rlrlllrrr")


def incident_table(incidents: Sequence[IncidentFacts], zone: tzinfo | None) -> list[str]:
    """Return the lines of the section about incidents; times in `zone`."""
    if not incidents:
        return ["## Incidents", "", "None recorded."]
    rows = [
        (moment(found.time, zone), code(found.code), escaped(found.text), _evidence(found.evidence))
        for found in incidents
    ]
    return ["## Incidents", "", *table(("Time", "Code", "What", "Evidence"), rows)]


def _evidence(evidence: Mapping[str, object]) -> str:
    def said(value: object) -> str:
        return value if isinstance(value, str) else json.dumps(value, default=str)

    return ", ".join(f"{escaped(key)} {escaped(said(value))}" for key, value in evidence.items())
