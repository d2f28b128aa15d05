"""The sections of a report about the course of the run: incidents, attempts, changes, phases, trajectory."""

from __future__ import annotations

from datetime import tzinfo

from jobs.model.outcomes import Outcome, Quality
from orchestrator.formatting.markdown import code, escaped, folded, table
from orchestrator.formatting.text import counted, duration, figure, loss, percent, short_time, timestamp, whole
from orchestrator.report.facts import AttemptFacts, Facts, Happening, SelfTest

MOST_HAPPENINGS, MOST_GUILTY = 60, 10
"""Lines of a section; report.json has all."""

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
_PHASE_RULES = (
    "Phases are found in the running median of the train loss. Initial learning: the first nine tenths of the fall. "
    "Spike: more than half and 0.15 above the lowest level so far, until its peak. Recovery: until the loss is within "
    "a tenth of that level. Convergence: the last stretch within a tenth of the final level, or within its noise."
)


def incidents(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the section with the incidents, and the spikes that the losses show."""
    happenings = facts.findings.happenings
    lines = [line for one in happenings[:MOST_HAPPENINGS] for line in _incident(one, facts.times.reported_at, zone)]
    if (more := len(happenings) - MOST_HAPPENINGS) > 0:
        lines.append(f"- {more:,} more in report.json")
    return ["## Incidents", "", *lines, *_guilty(facts)] if lines else []


def _incident(happening: Happening, now: float, zone: tzinfo | None) -> list[str]:
    parts = (happening.what, happening.cost)
    summary = f"{short_time(happening.time, now, zone)}: {escaped(': '.join(part for part in parts if part))}"
    details = (("Evidence", happening.evidence), ("Action", happening.action))
    named = [f"{name}: {escaped(text)}" for name, text in details if text]
    return folded(summary, [*named, f"{timestamp(happening.time, zone)}, code {code(happening.code)}"])


def _guilty(facts: Facts) -> list[str]:
    rows = [(code(row.place), loss(row.loss)) for row in facts.findings.guilty[:MOST_GUILTY]]
    note = "Autopsy: the rows around the first flag, with their loss under the weights of the rollback point."
    return ["", note, "", *table(("Row", "Loss"), rows, right="lr")] if rows else []


def restarts(facts: Facts) -> str:
    """Return how many restarts there were and what they cost; empty without a restart."""
    count = len(facts.restarts)
    if not count:
        return ""
    planned = sum(before.outcome == Outcome.STOPPED for before in facts.attempts[:-1])
    repeated = sum(attempt.repeated_iterations or 0 for attempt in facts.attempts)
    given_up = sum(attempt.given_up_iterations for attempt in facts.attempts)
    which = "" if count == 1 else "all " if count == planned else f"{planned:,} "
    stops = f" ({which}after a planned stop)" if planned else ""
    return f"{counted(count, 'restart')}{stops}, {_repeated(repeated)}{f', {given_up:,} given up' if given_up else ''}"


def _repeated(iterations: int) -> str:
    return f"{counted(iterations, 'iteration')} trained twice" if iterations else "no iteration trained twice"


def attempts(facts: Facts, zone: tzinfo | None) -> list[str]:
    """Return the section about the attempts, with the cost and the self-test of each restart; empty without one."""
    if not facts.restarts:
        return []
    lines = [line for attempt in facts.attempts for line in _attempt(attempt, facts.times.reported_at, zone)]
    return ["## Attempts", "", *lines]


def _attempt(attempt: AttemptFacts, now: float, zone: tzinfo | None) -> list[str]:
    ended = "has not ended" if attempt.outcome is None else _ENDED.get(attempt.outcome, attempt.outcome)  # type: ignore[call-overload]
    reason = f" ({attempt.reason})" if attempt.outcome in (Outcome.STOPPED, Outcome.CRASHED) else ""
    when = f"attempt {attempt.number} of {short_time(attempt.started_at, now, zone)}"
    span = f", iterations {whole(attempt.first_iteration)} to {whole(attempt.last_iteration)}"
    trained = "" if attempt.first_iteration is None else span
    details = [f"Ran for {duration(attempt.seconds)}"]
    if attempt.number > 1:
        details = [f"{details[0]}, started {duration(attempt.idle_seconds)} after the end of the attempt before it"]
        details += [_resume(attempt), _cost(attempt), _proof(attempt.self_test)]
    return folded(f"{when}{trained}: {ended}{reason}", details)


def _resume(attempt: AttemptFacts) -> str:
    if attempt.quality is None:
        return ""
    source = f" from {code(attempt.resumed_from)}" if attempt.resumed_from else ""
    return f"Resumed{source}, quality {code(attempt.quality)}: {_QUALITY[Quality(attempt.quality)]}"


def _cost(attempt: AttemptFacts) -> str:
    if attempt.repeated_iterations is None:
        return ""
    if attempt.given_up_iterations:
        return f"Cost: {counted(attempt.given_up_iterations, 'iteration')} given up"
    cost = f"Cost: {_repeated(attempt.repeated_iterations)}"
    if attempt.catch_up_seconds is not None:
        after = duration(attempt.catch_up_seconds)
        return f"{cost}; {after} after its start it reached iteration {whole(attempt.came_to)} again"
    again = f"; it ended before it reached iteration {whole(attempt.came_to)} again"
    return f"{cost}{again if attempt.repeated_iterations else ''}"


def _proof(test: SelfTest | None) -> str:
    if test is None or test.measured is None or test.recorded is None:
        return ""
    # repr, because rounding could make unequal numbers look equal
    losses = f"validation loss {test.measured!r} measured after the resume, {test.recorded!r} recorded"
    result = "not compared" if test.equal is None else "equal" if test.equal else "not equal"
    return f"Self-test: {losses}: {result}"


def requested_and_run(facts: Facts) -> list[str]:
    """Return the section about where the run departed from the requested settings; empty if it did not."""
    if not facts.findings.changes:
        return []
    rows = [
        (whole(change.first_iteration), escaped(change.changes).replace("-\\>", "→"), escaped(change.because))
        for change in facts.findings.changes
    ]
    return ["## Requested and run", "", *table(("From iteration", "Requested → run", "Because"), rows, right="r")]


def phases(facts: Facts) -> list[str]:
    """Return the section about the phases of the run."""
    rows = [
        (
            f"{phase.name}{', not back by the end' if phase.back is False else ''}",
            f"{whole(phase.first)} → {whole(phase.last)}",
            f"{loss(phase.loss_first)} → {loss(phase.loss_last)}",
            duration(phase.seconds),
        )
        for phase in facts.findings.phases
    ]
    lines = table(("Phase", "Iterations", "Train loss", "Time"), rows, right="lrrr")
    return ["## Phases", "", *lines, "", _PHASE_RULES] if rows else []


def trajectory(facts: Facts) -> list[str]:
    """Return the section with a few rows from the first to the last iteration."""
    header: tuple[str, ...] = ("Iteration", "Train loss", "Validation loss", "Tokens")
    rows: list[tuple[str, ...]] = [
        (whole(row.iteration), loss(row.train_loss), loss(row.val_loss), whole(row.tokens)) for row in facts.trajectory
    ]
    if any(row.accuracy is not None for row in facts.trajectory):
        header = (*header, "Validation accuracy", "Validation margin")
        more = [(percent(row.accuracy), figure(row.margin)) for row in facts.trajectory]
        rows = [(*row, *added) for row, added in zip(rows, more, strict=True)]
    note = "The train loss is that of the last report at or before the iteration."
    lines = table(header, rows, right="r" * len(header))
    return ["## Trajectory", "", *lines, "", note] if rows else []
