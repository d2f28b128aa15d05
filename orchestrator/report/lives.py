"""The attempts of a run, and what the beginning of each cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.model.events import number
from jobs.model.job import Attempt, ProgressPoint
from jobs.model.outcomes import Reason
from orchestrator.report.facts import AttemptFacts, SelfTest

_ANSWERED_BY_GOING_BACK = {Reason.SPIKE, Reason.DRIFT, Reason.NOT_FINITE}


def lives(
    attempts: Sequence[Attempt], points: Sequence[ProgressPoint], self_tests: Mapping[int, SelfTest], end: float
) -> tuple[AttemptFacts, ...]:
    """Return the attempts as the report tells them.

    Args:
        attempts: by number.
        points: every progress report, in the order in which they came.
        self_tests: by number of the attempt.
        end: unix seconds; of an attempt that lives, or of the report.
    """
    facts: list[AttemptFacts] = []
    before: Attempt | None = None
    came_to: int | None = None
    for attempt in attempts:
        facts.append(
            AttemptFacts(
                number=attempt.number,
                started_at=attempt.started_at,
                ended_at=attempt.ended_at,
                seconds=max(0.0, (attempt.ended_at or end) - attempt.started_at),
                first_iteration=attempt.first_iteration,
                last_iteration=attempt.last_iteration,
                resumed_from=attempt.resumed_from,
                quality=attempt.quality,
                outcome=attempt.outcome,
                reason=attempt.reason,
                detail=attempt.detail,
                exit_code=attempt.exit_code,
                signal=attempt.signal,
                idle_seconds=_idle(before, attempt),
                came_to=came_to,
                repeated_iterations=0 if _went_back(before) else _repeated(came_to, attempt),
                given_up_iterations=(_repeated(came_to, attempt) or 0) if _went_back(before) else 0,
                catch_up_seconds=_catch_up(came_to, attempt, points),
                self_test=self_tests.get(attempt.number),
            )
        )
        before = attempt
        # An attempt that died while loading has no position of its own: the one before it still counts.
        came_to = attempt.last_iteration if attempt.last_iteration is not None else came_to
    return tuple(facts)


def self_test(said: Mapping[str, Any]) -> SelfTest:
    """Read what a self-test said."""
    iteration, equal = said.get("iteration"), said.get("equal")
    return SelfTest(
        iteration=iteration if isinstance(iteration, int) else None,
        measured=number(said.get("measured")),
        recorded=number(said.get("recorded")),
        equal=equal if isinstance(equal, bool) else None,
    )


def _idle(before: Attempt | None, attempt: Attempt) -> float | None:
    if before is None or before.ended_at is None:
        return None
    return max(0.0, attempt.started_at - before.ended_at)


def _went_back(before: Attempt | None) -> bool:
    """Say whether the loss guard ended the attempt before, so that the run goes another way from here."""
    return before is not None and before.reason in _ANSWERED_BY_GOING_BACK


def _repeated(came_to: int | None, attempt: Attempt) -> int | None:
    if attempt.number == 1:
        return 0
    if came_to is None or attempt.first_iteration is None:
        return None
    return max(0, came_to - attempt.first_iteration)


def _catch_up(came_to: int | None, attempt: Attempt, points: Sequence[ProgressPoint]) -> float | None:
    """Return the seconds from the attempt's start until it stood at `came_to` again, None if it never did."""
    if came_to is None:
        return None
    reached = (point for point in points if point.attempt == attempt.number and point.iteration >= came_to)
    point = next(reached, None)
    if point is None:
        return None
    beyond = (point.iteration - came_to) / point.it_s if point.it_s else 0.0
    return max(0.0, point.time - beyond - attempt.started_at)
