"""`lq test`: the loss of weights on the test set, with its interval, next to the measurements of the run."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.model.events import MeasuredRewards, finite
from jobs.model.job import Job, Validation
from jobs.policies import early_stop
from orchestrator.artifacts import mlx_cli
from orchestrator.artifacts.weights import Weights
from orchestrator.report.analysis.verdict import Comparison
from orchestrator.report.facts import Evaluation
from orchestrator.report.sources import EVALUATIONS, evaluations, supervised_tokens
from workers.checkpoints import publishing
from workers.data.loss_measurement import LossMeasurement
from workers.files.atomic import write_json

if TYPE_CHECKING:
    from orchestrator.core.app import App

NOW = "now"  # the kind of a new measurement; the store has `test` and `validation`


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsMeasurement:
    """The loss of weights on one set."""

    kind: str  # now; test or validation if the run measured it
    iteration: int | None  # of the weights
    loss: float  # nats per token
    standard_error: float | None  # by row
    low: float | None  # of its 95 % interval; None if neither rows nor an error are known
    high: float | None
    rows: int
    rewards: MeasuredRewards | None = None  # of a preference objective, whose losses are nats per row

    @property
    def perplexity(self) -> tuple[float | None, float | None, float | None]:
        """Perplexity and its 95 % interval, exp of those of the loss; None for a preference objective."""
        if self.rewards is not None:
            return None, None, None
        low, high = (_exp(one) if one is not None else None for one in (self.low, self.high))
        return _exp(self.loss), low, high


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def measure(job: Job, weights: Weights, data: Path | None) -> tuple[WeightsMeasurement, LossMeasurement]:
    """Measure weights on the whole test set, or on the test rows in the folder `data`, in a separate process.

    Raises:
        InvalidInput: model, data or weights cannot be used.
        LqError: the process failed.
    """
    arguments = [job.job_dir]
    arguments += ["--weights", str(weights.path)] if weights.path is not None else []
    arguments += ["--data", str(data)] if data is not None else []
    output = mlx_cli.answer("workers.mlx.measure", arguments, name="the measuring")
    result = json.loads(output.splitlines()[-1])
    measured = LossMeasurement(
        sums=tuple(result["sums"]),
        tokens=tuple(result["tokens"]),
        rewards=tuple((chosen, rejected) for chosen, rejected in result["rewards"]),
        seconds=result["seconds"],
    )
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
        rewards=measured.measured_rewards,
    )
    measurement = _measurement(as_record, Comparison([as_record], measured.tokens))
    return dataclasses.replace(measurement, iteration=weights.iteration), measured


def keep(job: Job, weights: Weights, file: Path | None, tested: WeightsMeasurement) -> None:
    """Add a measurement to the ones that the report and `lq compare` show."""
    evaluation = Evaluation(
        time=time.time(),
        weights=weights.words,
        iteration=tested.iteration,
        data=str(file) if file is not None else None,
        sha256=publishing.sha256_of(file) if file is not None else None,
        loss=tested.loss,
        low=tested.low,
        high=tested.high,
        rows=tested.rows,
    )
    job.dir.report.mkdir(mode=0o700, exist_ok=True)
    kept = [dataclasses.asdict(one) for one in (*evaluations(job.dir, []), evaluation)]
    write_json(job.dir.report / EVALUATIONS, finite({"version": 1, "evaluations": kept}))


def measured_by_run(app: App, job: Job, iteration: int | None) -> list[WeightsMeasurement]:
    """Return the measurements of the run: its tests, and its validation of these weights or its best one."""
    metrics, reported = app.store.metrics, app.store.metrics.facts(job.id)
    tests, validations = metrics.validations(job.id, kind="test"), metrics.validations(job.id)
    tested = Comparison(tests, supervised_tokens(reported, "test"))
    validated = Comparison(validations, supervised_tokens(reported, "valid"))
    same, best = [item for item in validations if item.iteration == iteration], early_stop.best(validations)
    shown = same[-1:] or ([best] if best is not None else [])
    return [*(_measurement(test, tested) for test in tests), *(_measurement(item, validated) for item in shown)]


def _measurement(validation: Validation, comparison: Comparison) -> WeightsMeasurement:
    low, high = comparison.interval(validation) or (None, None)
    return WeightsMeasurement(
        kind=validation.kind,
        iteration=validation.iteration,
        loss=validation.loss,
        standard_error=validation.standard_error,
        low=low,
        high=high,
        rows=validation.examples,
        rewards=validation.rewards,
    )
