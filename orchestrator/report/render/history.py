"""The sections of a report about the course of the run: incidents, attempts and restarts, changes of settings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import tzinfo

from jobs.model.outcomes import Outcome, Quality
from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import NONE, NOT_MEASURED, counted, duration, loss, timestamp, whole
from orchestrator.report.facts import AttemptFacts, Facts, SelfTest

MOST_HAPPENINGS, MOST_GUILTY = 60, 10
"""Rows of the tables; report.json has all."""

_QUALITY = {
    Quality.EXACT: "bit-identical to an uninterrupted run",
    Quality.STATE: "weights, optimizer state and position restored, with other versions or on another device",
    Quality.WEIGHTS: "only the weights were restored",
    Quality.FRESH: "from the beginning",
}
_ENDED = {
    Outcome.DONE: "reached its end",
    Outcome.STOPPED: "stopped on request",
    Outcome.CRASHED: "crashed",
    Outcome.REFUSED: "refused to continue",
}


def timeline(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the section with the incidents, and the spikes that the losses show."""
    title, happenings = ["## Timeline", ""], facts.findings.happenings
    if not happenings:
        return [*title, "No incident was recorded, and the losses show no spike."]
    rows = [
        (
            timestamp(happening.time, zone),
            whole(happening.iteration),
            code(happening.code),
            escaped(happening.what),
            escaped(happening.evidence),
            escaped(happening.action),
            escaped(happening.cost),
        )
        for happening in happenings[:MOST_HAPPENINGS]
    ]
    lines = table(("When", "Iteration", "Code", "What", "Evidence", "Action", "Cost"), rows, right="lr")
    more = len(happenings) - MOST_HAPPENINGS
    return [*title, *lines, *(["", f"{more:,} more; report.json has all."] if more > 0 else []), *_guilty(facts)]


def _guilty(facts: Facts) -> list[str]:
    rows = [(code(row.place), loss(row.loss)) for row in facts.findings.guilty[:MOST_GUILTY]]
    if not rows:
        return []
    note = "Autopsy: the rows around the first flag, with their loss under the weights of the rollback point."
    return ["", note, "", *table(("Row", "Loss"), rows, right="lr")]


def restarts(facts: Facts) -> str:
    """Return how many restarts there were and what they cost."""
    count = len(facts.restarts)
    if not count:
        return "no restart"
    planned = planned_of(count, facts.planned_restarts)
    given_up = f", {whole(facts.given_up_iterations)} given up" if facts.given_up_iterations else ""
    return f"{counted(count, 'restart')}{planned}, {_repeated(facts.repeated_iterations)}{given_up}"


def planned_of(count: int, planned: int) -> str:
    """Return how many of the restarts follow a requested stop, as " (2 after a planned stop)"; "" if none does."""
    if not planned:
        return ""
    which = "" if count == 1 else "all " if count == planned else f"{planned:,} "
    return f" ({which}after a planned stop)"


def _repeated(iterations: int) -> str:
    return f"{counted(iterations, 'iteration')} trained twice" if iterations else "no iteration trained twice"


def attempts(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the section about the attempts, with the cost and the self-test of each restart."""
    title = ["## Attempts", ""]
    if not facts.attempts:
        return [*title, "No attempt was started."]
    if not facts.restarts:
        return [*title, f"One attempt, no restart. It {_end_of(facts.attempts[0])}."]
    pairs = enumerate(itertools.pairwise(facts.attempts), start=1)
    last = facts.attempts[-1]
    return [
        *title,
        f"{restarts(facts)}.",
        "",
        *(f"{number}. {_restart(before, attempt)}" for number, (before, attempt) in pairs),
        "",
        f"Attempt {last.number} {_end_of(last)}.",
        "",
        *_attempt_table(facts.attempts, zone),
    ]


def _restart(before: AttemptFacts, attempt: AttemptFacts) -> str:
    after = "" if attempt.idle_seconds is None else f" {duration(attempt.idle_seconds)} later"
    place = "" if attempt.first_iteration is None else f" from iteration {whole(attempt.first_iteration)}"
    checkpoint = f" ({code(attempt.resumed_from)})" if attempt.resumed_from else ""
    start = f"Attempt {attempt.number} started{after}{place}{checkpoint}, resume quality {_quality(attempt.quality)}."
    return f"Attempt {before.number} {_end_of(before)}. {start} {_cost(attempt)} {_proof(attempt.self_test)}"


def _quality(quality: str | None) -> str:
    return f"`{quality}` ({_QUALITY[Quality(quality)]})" if quality in set(Quality) else NOT_MEASURED


def _cost(attempt: AttemptFacts) -> str:
    if attempt.repeated_iterations is None:
        return f"Cost: {NOT_MEASURED}."
    if attempt.given_up_iterations:
        return f"Cost: {counted(attempt.given_up_iterations, 'iteration')} given up."
    cost = f"Cost: {_repeated(attempt.repeated_iterations)}"
    if attempt.catch_up_seconds is not None:
        after = duration(attempt.catch_up_seconds)
        return f"{cost}; {after} after its start it reached iteration {whole(attempt.came_to)} again."
    if attempt.repeated_iterations:
        return f"{cost}; it ended before it reached iteration {whole(attempt.came_to)} again."
    return f"{cost}."


def _proof(test: SelfTest | None) -> str:
    if test is None or test.measured is None or test.recorded is None:
        return f"Self-test: {NOT_MEASURED}."
    # repr, because rounding could make unequal numbers look equal
    losses = f"validation loss {test.measured!r} measured after the resume, {test.recorded!r} recorded"
    result = "not compared" if test.equal is None else "equal" if test.equal else "not equal"
    return f"Self-test: {losses}: {result}."


def _end_of(attempt: AttemptFacts) -> str:
    place = "" if attempt.last_iteration is None else f" at iteration {whole(attempt.last_iteration)}"
    if attempt.outcome is None:
        return f"has not ended{place}"
    known = attempt.outcome in set(Outcome)
    verb = _ENDED[Outcome(attempt.outcome)] if known else f"ended ({escaped(attempt.outcome)})"
    detail = f": {escaped(attempt.detail).rstrip('.')}" if attempt.detail else ""
    return f"{verb}{place}{detail}"


def _attempt_table(attempts: Sequence[AttemptFacts], zone: tzinfo | None) -> list[str]:
    header = ("Attempt", "Started", "Ran for", "Iterations", "Resume", "Ended", "Idle before", "Repeated", "Back after")
    rows = [
        (
            f"{attempt.number}",
            timestamp(attempt.started_at, zone),
            duration(attempt.seconds),
            f"{whole(attempt.first_iteration)} → {whole(attempt.last_iteration)}",
            attempt.quality or NONE,
            f"{attempt.outcome or 'not yet'}{f' ({attempt.reason})' if attempt.reason else ''}",
            duration(attempt.idle_seconds),
            whole(attempt.repeated_iterations) if attempt.number > 1 else NONE,
            duration(attempt.catch_up_seconds),
        )
        for attempt in attempts
    ]
    return table(header, rows, right="rlrlllrrr")


def requested_and_run(facts: Facts) -> list[str]:
    """Return the section about where the run departed from the requested settings."""
    title = ["## Requested and run", ""]
    if not facts.stages:
        return [*title, "run_plan.json could not be read."]
    if not facts.findings.changes:
        return [*title, "The run used the requested settings."]
    rows = [
        (whole(change.first_iteration), _with_arrows(change.changes), _with_arrows(change.because))
        for change in facts.findings.changes
    ]
    return [*title, *table(("From iteration", "Requested → run", "Because"), rows, right="r")]


def _with_arrows(text: str) -> str:
    return escaped(text.replace("->", "→"))
