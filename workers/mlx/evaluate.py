"""Losses by row: validation, test, and the self-test of a resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import mlx.core as mx

from jobs.model.errors import ModelMissing
from jobs.model.events import FinalTestEvent, PhaseEvent, SelfTestEvent, ValidationEvent
from jobs.model.run_plan import Stage
from workers.checkpoints import storage
from workers.checkpoints.state import SavedValidation, SelfTestRecord
from workers.data.batches import Rows
from workers.data.loss_measurement import LossMeasurement
from workers.mlx.context import RunContext
from workers.mlx.data import TrainingData
from workers.mlx.model import TrainedModel

SELF_TEST_S = 10.0
"""A resume measures again as much of the checkpoint's validation as took this long."""

SELF_TEST_BATCHES = 2
"""Validation batches of the self-test if the checkpoint's iteration was not validated."""

SELF_TEST_TOLERANCE = 0.05
"""Beyond this difference of the loss, as a share and in nats, it is another model: devices and versions differ less."""

OTHER_BATCHES_TOLERANCE = 1e-3
"""Difference allowed between losses of the same rows in batches of another size; padding moves the last bits."""


class ValidationInterrupted(Exception):
    """A stop was requested during a validation."""


class Evaluator:
    """Measures the loss of a run's rows and remembers the validation of the present iteration."""

    def __init__(self, context: RunContext, model: TrainedModel, data: TrainingData) -> None:
        self._context, self._model, self._data = context, model, data
        self.validation: SavedValidation | None = None  # of the present iteration
        self._measured: LossMeasurement | None = None  # the same, if this process measured it

    def measure(
        self, rows: Rows, chosen: Sequence[int], before_batch: Callable[[], None] = lambda: None
    ) -> LossMeasurement:
        """Measure the loss of the chosen rows, in this order; see the function `measure`."""
        stage, cache_limit = self._context.stage, self._context.spec.clear_cache_threshold
        return measure(self._model, rows, chosen, stage, cache_limit, before_batch)

    def is_due(self, iteration: int, *, requested: bool) -> bool:
        """Return whether to validate at an iteration that has no validation yet."""
        spec = self._context.spec
        if self.validation is not None or not len(self._data.valid) or spec.val_batches == 0:
            return False
        return iteration % spec.steps_per_eval == 0 or iteration == self._context.last_iteration or requested

    def validate(self) -> LossMeasurement | None:
        """Validate; return None if a stop is requested meanwhile, which leaves the validation to the next attempt."""
        context, spec = self._context, self._context.spec
        context.events.append(PhaseEvent(phase="validate"))
        rows = self._data.valid

        def raise_if_stopped() -> None:
            if context.requests.stop:
                raise ValidationInterrupted

        try:
            measured = self.measure(rows, range(self._data.examples(rows, spec.val_batches)), raise_if_stopped)
        except ValidationInterrupted:
            return None
        iteration = context.iteration
        # another run of this job has no validation here, so it must not compete for the best adapter
        asked = not (iteration % spec.steps_per_eval == 0 or iteration == spec.iters)
        self.validation = SavedValidation(
            loss=measured.loss,
            standard_error=measured.standard_error,
            examples=measured.examples,
            iteration=iteration,
            asked=asked,
        )
        self._measured = measured
        measures = _measures(measured, iteration)
        context.events.append(ValidationEvent(**measures, asked=True if asked else None))
        return measured

    def forget(self) -> None:
        """Forget the validation, because another iteration was trained."""
        self.validation = self._measured = None

    def test(self) -> None:
        """Measure the test set with the last weights, and with the best ones if they are others."""
        context = self._context
        context.events.append(PhaseEvent(phase="test"))
        self.test_at(context.last_iteration)
        best = storage.best_valid(context.job_dir.checkpoints, context.run_plan)[0]
        if best is not None and best.iteration != context.last_iteration:
            self._model.load_weights(best.adapters)
            self.test_at(best.iteration)

    def test_at(self, iteration: int) -> None:
        """Measure the test set with the present weights, which are those of `iteration`."""
        rows = self._data.test
        measured = self.measure(rows, range(self._data.examples(rows, self._context.spec.test_batches)))
        perplexity = None if measured.rewards else math.exp(measured.loss) if measured.loss < 700 else math.inf
        self._context.events.append(FinalTestEvent(**_measures(measured, iteration), perplexity=perplexity))

    def self_test_record(self) -> SelfTestRecord | None:
        """Return a loss that a resume can measure again: of the present validation, as far as the time allows, else
        of the first batches. None without a validation set.
        """
        if not len(self._data.valid):
            return None
        size, whole = self._context.stage.batch_size, self._context.spec.batch_size
        if self._measured is not None:
            measured = self._measured.first(self._measured.rows_within(SELF_TEST_S, multiple=whole))
        else:
            count = self._data.examples(self._data.valid, SELF_TEST_BATCHES)
            measured = self.measure(self._data.valid, range(count))
        return SelfTestRecord(loss=measured.loss, examples=measured.examples, batch_size=size)

    def self_test(self, recorded: SelfTestRecord | None) -> None:
        """Measure again what the checkpoint recorded, and report whether it is equal.

        Raises:
            ModelMissing: another model was loaded.
        """
        if recorded is None or not len(self._data.valid):
            return
        spec, size = self._context.spec, self._context.stage.batch_size
        measured = self.measure(self._data.valid, range(recorded.examples))
        close = math.isclose(measured.loss, recorded.loss, rel_tol=OTHER_BATCHES_TOLERANCE)
        self._context.events.append(
            SelfTestEvent(
                iteration=self._context.iteration,
                measured=measured.loss,
                recorded=recorded.loss,
                equal=measured.loss == recorded.loss or (size != recorded.batch_size and close),
                examples=measured.examples,
                batch_size=size,
                recorded_batch_size=recorded.batch_size,
            )
        )
        allowed = max(SELF_TEST_TOLERANCE * abs(recorded.loss), SELF_TEST_TOLERANCE)
        if math.isfinite(recorded.loss) and not abs(measured.loss - recorded.loss) <= allowed:
            raise ModelMissing(
                f"the validation loss of the checkpoint is {recorded.loss:.3f}, but {spec.model} now gives "
                f"{measured.loss:.3f} with its weights: the model or its tokenizer has changed since"
            )


def _measures(measured: LossMeasurement, iteration: int) -> dict[str, Any]:
    """Return the fields of an event that validation and test have in common."""
    return {
        "iteration": iteration,
        "loss": measured.loss,
        "standard_error": measured.standard_error,
        "examples": measured.examples,
        "seconds": round(measured.seconds, 3),
        "row_losses": tuple(measured.row_losses),
        "rewards": measured.measured_rewards,
    }


def measure(
    model: TrainedModel,
    rows: Rows,
    chosen: Sequence[int],
    stage: Stage,
    cache_limit: int,
    before_batch: Callable[[], None] = lambda: None,
) -> LossMeasurement:
    """Measure the loss of rows in the order given, without dropout and without changing the random key.

    Args:
        chosen: the indices of the rows to measure.
        stage: the batch size, and the length at which rows are cut.
        cache_limit: bytes of MLX's cache above which it is cleared.
        before_batch: called before each batch; its exception ends the measurement.
    """
    began = time.monotonic()
    sums: list[float] = []
    tokens: list[int] = []
    rewards: list[tuple[float, float]] = []
    objective = model.objective
    size = objective.measured_at_once(stage)
    model.network.eval()
    try:
        for start in range(0, len(chosen), size):
            before_batch()
            batch, _ = objective.batch(rows, chosen[start : start + size], stage)
            row_losses = objective.row_losses(model.network, *batch)
            mx.eval(row_losses.sums, row_losses.counts, row_losses.rewards)
            sums += cast("list[float]", row_losses.sums.tolist())
            tokens += cast("list[int]", row_losses.counts.tolist())
            if row_losses.rewards is not None:
                rewards += zip(*(cast("list[float]", side.tolist()) for side in row_losses.rewards), strict=True)
            if mx.get_cache_memory() > cache_limit:
                mx.clear_cache()
    finally:
        model.network.train()
    seconds = time.monotonic() - began
    return LossMeasurement(sums=tuple(sums), tokens=tuple(tokens), rewards=tuple(rewards), seconds=seconds)
