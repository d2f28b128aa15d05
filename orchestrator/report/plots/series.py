"""What the pictures draw, as arrays. NumPy only."""

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
    """A run's curves, by iteration."""

    x: Floats  # of the reports
    train: Floats
    validated: Floats  # iterations
    losses: Floats  # of the validations
    half: Floats  # half of their 95 % intervals; 0 where not measured

    @classmethod
    def of(cls, points: Sequence[ProgressPoint], validations: Sequence[Validation]) -> Curves:
        """Take the arrays out of the rows."""
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
        """Both ends of every interval."""
        return np.concatenate((self.losses - self.half, self.losses + self.half))


def column(points: Sequence[ProgressPoint], value: Callable[[ProgressPoint], float | None]) -> Floats:
    """Return one number of each report; NaN where it was not measured."""
    return np.array([np.nan if (found := value(point)) is None else found for point in points], dtype=float)


def rollbacks(facts: Facts) -> list[tuple[int, int, Happening]]:
    """Return where the run went back, and to where."""
    return [
        (one.iteration, one.numbers["back_to"], one)
        for one in facts.findings.happenings
        if one.iteration is not None and isinstance(one.numbers.get("back_to"), int) and one.cost_iterations
    ]


def given_up(
    facts: Facts, points: Sequence[ProgressPoint], every: Sequence[ProgressPoint]
) -> list[tuple[Floats, Floats]]:
    """Return the stretches that were trained and given up at a rollback: iterations and train losses of each."""
    kept = {(point.attempt, point.iteration) for point in points}
    lost = [point for point in every if (point.attempt, point.iteration) not in kept]
    stretches = []
    for _, back, one in rollbacks(facts):
        mine = [p for p in lost if p.attempt == one.attempt and p.iteration > back and p.time <= (one.time or p.time)]
        if mine:
            stretches.append((column(mine, lambda p: p.iteration), column(mine, lambda p: p.train_loss)))
    return stretches
