"""A job's weights on test rows: the loss with its interval, beside what the run itself measured, for `lq test`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.model.job import Job, Validation
from jobs.policies import early_stop
from orchestrator.artifacts import mlx_cli
from orchestrator.artifacts.weights import Weights
from orchestrator.report.analysis.verdict import Comparison
from orchestrator.report.sources import supervised_tokens
from workers.data.loss_measurement import LossMeasurement

if TYPE_CHECKING:
    from orchestrator.core.app import App

NOW = "now"
"""The kind of what was measured just now, beside the store's `test` and `validation`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tested:
    """One measurement."""

    kind: str  # now; or, of the run itself, test or validation
    iteration: int | None  # of the weights
    loss: float  # nats per token
    standard_error: float | None  # by row
    low: float | None  # of its 95 % interval; None where neither rows nor an error are known
    high: float | None
    rows: int

    @property
    def perplexity(self) -> tuple[float, float | None, float | None]:
        """Perplexity, and its 95 % interval: that of the loss, raised."""
        low, high = (_exp(one) if one is not None else None for one in (self.low, self.high))
        return _exp(self.loss), low, high


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def measure(job: Job, weights: Weights, data: Path | None) -> tuple[Tested, LossMeasurement]:
    """Measure weights on the whole test set, in a process of its own.

    Args:
        job: whose model.
        weights: of it.
        data: a folder with other test rows; None for the job's own.

    Raises:
        InvalidInput: model, data or weights cannot be used.
        LqError: it failed otherwise.
    """
    arguments = [job.job_dir]
    arguments += ["--weights", str(weights.path)] if weights.path is not None else []
    arguments += ["--data", str(data)] if data is not None else []
    said = mlx_cli.answer("workers.mlx.measure", arguments, name="the measuring")
    told = json.loads(said.splitlines()[-1])
    measured = LossMeasurement(sums=tuple(told["sums"]), tokens=tuple(told["tokens"]), seconds=told["seconds"])
    as_record = Validation(
        attempt=0,
        kind=NOW,
        iteration=weights.iteration or 0,
        time=0.0,
        loss=measured.loss,
        standard_error=measured.standard_error,
        examples=measured.examples,
        seconds=measured.seconds,
        row_losses=tuple(measured.row_losses),
    )
    found = _tested(as_record, Comparison([as_record], measured.tokens))
    return dataclasses.replace(found, iteration=weights.iteration), measured


def by_the_run(app: App, job: Job, iteration: int | None) -> list[Tested]:
    """Return what the run itself measured: its tests and validation of these weights, else its best validation.

    Args:
        app: the store.
        job: whose run.
        iteration: of the weights.
    """
    tests, validations = app.store.metrics.validations(job.id, kind="test"), app.store.metrics.validations(job.id)
    told = app.store.metrics.facts(job.id)
    compared, tested = (
        Comparison(validations, supervised_tokens(told, "valid")),
        Comparison(tests, supervised_tokens(told, "test")),
    )
    same, best = [one for one in validations if one.iteration == iteration], early_stop.best(validations)
    shown = same[-1:] or ([best] if best is not None else [])
    return [*(_tested(one, tested) for one in tests), *(_tested(one, compared) for one in shown)]


def _tested(one: Validation, comparison: Comparison) -> Tested:
    low, high = comparison.interval(one) or (None, None)
    return Tested(
        kind=one.kind,
        iteration=one.iteration,
        loss=one.loss,
        standard_error=one.standard_error,
        low=low,
        high=high,
        rows=one.examples,
    )
