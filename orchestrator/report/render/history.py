"""What happened while nobody watched, in plain words: attempts, restarts with cost and proof, timeline. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import tzinfo

from jobs.model.outcomes import Outcome, Quality
from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import NOT_MEASURED, counted, duration, loss, timestamp, whole
from orchestrator.report.facts import AttemptFacts, Facts, SelfTest

MOST_HAPPENINGS, MOST_GUILTY = 60, 10
"""Rows that are shown."""

_QUALITY = {
    Quality.EXACT: "every bit as if never interrupted",
    Quality.STATE: "weights, moments and position restored, under other versions or on another device",
    Quality.WEIGHTS: "only the weights were restored",
    Quality.FRESH: "from the beginning",
}
_ENDED = {
    Outcome.DONE: "reached its end",
    Outcome.STOPPED: "stopped on request",
    Outcome.CRASHED: "crashed",
    Outcome.REFUSED: "refused to go on",
}


def planned_of(restarts: int, planned: int) -> str:
    """Return how many restarts follow a requested stop and not a crash, as " (2 after a planned stop)"; "" for none."""
    if not planned:
        return ""
    which = "" if restarts == 1 else "all " if restarts == planned else f"{planned:,} "
    return f" ({which}after a planned stop)"


def what_happened(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the lines of the section about attempts and restarts; times in `zone`."""
    title = ["## What happened", ""]
    if not facts.attempts:
        return [*title, "No attempt was started."]
    if not facts.restarts:
        return [*title, f"One attempt, no restart. It {_end_of(facts.attempts[0])}."]
    stories = [
        f"{place}. {_restart(before, attempt)}"
        for place, (before, attempt) in enumerate(itertools.pairwise(facts.attempts), start=1)
    ]
    last, count = facts.attempts[-1], len(facts.restarts)
    return [
        *title,
        f"{counted(count, 'restart')}{planned_of(count, facts.planned_restarts)}; "
        + f"{counted(facts.repeated_iterations, 'iteration')} trained twice"
        + (f", {whole(facts.given_up_iterations)} given up by the loss guard." if facts.given_up_iterations else "."),
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
    if attempt.given_up_iterations:
        return f"Cost: {counted(attempt.given_up_iterations, 'iteration')} given up."
    repeated = attempt.repeated_iterations
    cost = f"Cost: {counted(repeated, 'iteration')} trained twice" if repeated else "Cost: no iteration repeated"
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
            timestamp(attempt.started_at, zone),
            duration(attempt.seconds),
            f"{whole(attempt.first_iteration)} → {whole(attempt.last_iteration)}",
            attempt.quality or NOT_MEASURED,
            f"{attempt.outcome or 'not yet'}{f' ({attempt.reason})' if attempt.reason else ''}",
            "" if attempt.number == 1 else duration(attempt.idle_seconds),
            "" if attempt.number == 1 else whole(attempt.repeated_iterations),
            "" if attempt.number == 1 else duration(attempt.catch_up_seconds),
        )
        for attempt in attempts
    ]
    return table(header, rows, right="rlrlllrrr")


def timeline(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the lines of the section about what the run met on its way; times in `zone`."""
    title = ["## Timeline", ""]
    happenings = facts.findings.happenings
    if not happenings:
        return [*title, "No incident was recorded, and the losses show no spike."]
    shown = happenings[:MOST_HAPPENINGS]
    more = len(happenings) - len(shown)
    rows = [
        (
            timestamp(one.time, zone),
            whole(one.iteration) if one.iteration is not None else "",
            code(one.code),
            escaped(one.what),
            escaped(one.evidence) or numbers(one.numbers),
            escaped(one.action),
            escaped(one.cost),
        )
        for one in shown
    ]
    header = ("When", "Iteration", "Code", "What", "Evidence", "Action", "Cost")
    lines = [*title, *table(header, rows, right="lr")]
    if more:
        lines += ["", f"{more:,} more; report.json has all."]
    return [*lines, *_guilty(facts)]


def _guilty(facts: Facts) -> list[str]:
    rows = [(code(one.place), loss(one.loss)) for one in facts.findings.guilty[:MOST_GUILTY]]
    if not rows:
        return []
    why = "Autopsy: the rows around the first flag, by their own loss under the weights that were gone back to."
    return ["", why, "", *table(("Row", "Loss"), rows, right="lr")]


def numbers(seen: Mapping[str, object]) -> str:
    """Return what a rule saw, as it was recorded."""

    def said(value: object) -> str:
        return value if isinstance(value, str) else json.dumps(value, default=str)

    return ", ".join(f"{escaped(key)} {escaped(said(value))}" for key, value in seen.items())


def requested_and_run(facts: Facts) -> list[str]:
    """Return the lines of the section about where the run departed from what was asked for."""
    title = ["## Requested and run", ""]
    if not facts.stages:
        return [*title, "run_plan.json could not be read."]
    if not facts.findings.changes:
        return [*title, "The run kept to the settings that were requested."]
    rows = [
        (whole(one.first_iteration), escaped(one.changes.replace("->", "→")), escaped(one.because.replace("->", "→")))
        for one in facts.findings.changes
    ]
    header = ("From iteration", "Requested → run", "Because")
    return [*title, *table(header, rows, right="r")]
