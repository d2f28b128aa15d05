"""The data of the pictures as arrays. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jobs.model.job import ProgressPoint, Validation
from orchestrator.report.analysis.bootstrap import NORMAL
from orchestrator.report.analysis.curves import Floats
from orchestrator.report.facts import Facts, Happening


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """The curves of a run, by iteration."""

    x: Floats  # of the reports
    train: Floats
    validated: Floats  # iterations
    losses: Floats  # of the validations
    half: Floats  # half of their 95 % intervals; 0 where not measured

    @classmethod
    def of(cls, points: Sequence[ProgressPoint], validations: Sequence[Validation]) -> Curves:
        """Return the curves of these records."""
        return cls(
            x=np.array([point.iteration for point in points], dtype=float),
            train=np.array([point.train_loss for point in points], dtype=float),
            validated=np.array([found.iteration for found in validations], dtype=float),
            losses=np.array([found.loss for found in validations], dtype=float),
            half=np.array([NORMAL * (found.standard_error or 0.0) for found in validations], dtype=float),
        )

    @property
    def every_x(self) -> Floats:
        """Iterations of reports and validations."""
        return np.concatenate((self.x, self.validated))

    @property
    def every_loss(self) -> Floats:
        """Losses of reports and validations."""
        return np.concatenate((self.train, self.losses))

    @property
    def bars(self) -> Floats:
        """Both ends of all intervals."""
        return np.concatenate((self.losses - self.half, self.losses + self.half))


def column(points: Sequence[ProgressPoint], value: Callable[[ProgressPoint], float | None]) -> Floats:
    """Return one number of each report, NaN if it was not measured."""
    return np.array([np.nan if (found := value(point)) is None else found for point in points], dtype=float)


def rollbacks(facts: Facts) -> list[tuple[int, int, Happening]]:
    """Return each rollback: its iteration, the one it went back to, and its timeline entry."""
    return [
        (entry.iteration, entry.numbers["back_to"], entry)
        for entry in facts.findings.happenings
        if entry.iteration is not None and isinstance(entry.numbers.get("back_to"), int) and entry.cost_iterations
    ]


def given_up(
    facts: Facts, points: Sequence[ProgressPoint], every: Sequence[ProgressPoint]
) -> list[tuple[Floats, Floats]]:
    """Return iterations and train losses of each stretch that a rollback gave up."""
    kept = {(point.attempt, point.iteration) for point in points}
    lost = [point for point in every if (point.attempt, point.iteration) not in kept]
    stretches = []
    for _, back, entry in rollbacks(facts):
        of_attempt = [point for point in lost if point.attempt == entry.attempt and point.iteration > back]
        given = [point for point in of_attempt if entry.time is None or point.time <= entry.time]
        if given:
            stretches.append(
                (column(given, lambda point: point.iteration), column(given, lambda point: point.train_loss))
            )
    return stretches
