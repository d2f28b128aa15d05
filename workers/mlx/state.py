"""Checkpoints of a run: when one is due, what it holds, and how a resume restores it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from jobs.model.events import CheckpointEvent, PhaseEvent
from jobs.model.outcomes import Quality
from workers.checkpoints import storage
from workers.checkpoints.state import CheckpointState
from workers.checkpoints.storage import Checkpoint
from workers.mlx import arrays
from workers.mlx.context import RunContext
from workers.mlx.data import TrainingData
from workers.mlx.evaluate import Evaluator
from workers.mlx.guarded_optimizer import GuardedOptimizer
from workers.mlx.machine import machine, versions
from workers.mlx.model import TrainedModel


class CheckpointWriter:
    """Writes the checkpoints of a run."""

    def __init__(
        self,
        context: RunContext,
        model: TrainedModel,
        data: TrainingData,
        optimizer: GuardedOptimizer,
        evaluator: Evaluator,
    ) -> None:
        self._context, self._model, self._data = context, model, data
        self._optimizer, self._evaluator = optimizer, evaluator
        self._last_iteration = 0  # of the last checkpoint
        self._last_time = time.monotonic()
        self.validation_pending = False  # the present validation is in no checkpoint yet

    def restore(self, checkpoint: Checkpoint, quality: Quality) -> None:
        """Restore weights, moments, random key and position in place, and test that they give the recorded loss."""
        state = checkpoint.state()
        self._model.load_weights(checkpoint.adapters)
        if quality is not Quality.WEIGHTS:
            self._optimizer.set_moments(arrays.load(checkpoint.optimizer, self._optimizer.moments()))
        set_random_key(state.random_key)
        self._context.reporter.restore(checkpoint.iteration, state.progress)
        self._last_iteration = checkpoint.iteration
        self._evaluator.validation = state.validation
        plan = self._context.run_plan
        same_length = plan.stages[state.stage].max_seq_length == self._context.stage.max_seq_length
        if same_length:  # rows that are cut at another length prove nothing
            self._evaluator.self_test(state.self_test)

    def is_due(self, iteration: int) -> bool:
        """Return whether a checkpoint of this iteration is due."""
        spec, requests = self._context.spec, self._context.requests
        if self.validation_pending:
            return True  # the best adapter is chosen among checkpoints, so a stop must not change the candidates
        if iteration == self._last_iteration:
            return False
        passed = iteration // spec.save_every > self._last_iteration // spec.save_every
        late = time.monotonic() - self._last_time >= spec.lq.checkpoint.every
        return iteration == self._context.last_iteration or passed or late or requests.stop or requests.snapshot

    def write(self) -> None:
        """Write a checkpoint of the present iteration."""
        context, iteration = self._context, self._context.iteration
        context.events.append(PhaseEvent(phase="save"))
        if iteration % context.spec.steps_per_report == 0:
            context.reporter.flush()
        began = time.monotonic()
        checkpoint, size = storage.write(context.job_dir.checkpoints, iteration, self._fill)
        self._last_iteration, self._last_time, self.validation_pending = iteration, time.monotonic(), False
        context.requests.snapshot = False
        context.events.append(
            CheckpointEvent(
                iteration=iteration,
                path=str(checkpoint.path.relative_to(context.job_dir.path)),
                bytes=size,
                seconds=round(self._last_time - began, 3),
            )
        )
        if not (context.requests.stop or iteration == context.last_iteration):
            context.events.append(PhaseEvent(phase="train"))

    def _fill(self, folder: Path) -> CheckpointState:
        weights, moments = self._model.weights(), self._optimizer.moments()
        arrays.save(folder / storage.ADAPTERS, weights)
        arrays.save(folder / storage.OPTIMIZER, moments)
        examples = self._context.run_plan.example_of(self._context.iteration)
        return CheckpointState(
            iteration=self._context.iteration,
            examples_seen=examples,
            stage=self._context.run_plan.at(max(0, examples - 1)),
            updates=self._optimizer.updates,
            finite=arrays.all_finite(weights) and arrays.all_finite(moments),
            random_key=random_key(),
            progress=self._context.reporter.pending(),
            validation=self._evaluator.validation,
            self_test=self._evaluator.self_test_record(),
            versions=versions(),
            machine=machine(),
            data=self._data.hashes,
        )


def random_key() -> tuple[int, int]:
    """Return MLX's random key, high half first."""
    high, low = cast("Any", mx.random.state)[0].tolist()
    return high, low


def set_random_key(key: tuple[int, int]) -> None:
    """Restore MLX's random key."""
    mx.random.seed((key[0] << 32) | key[1])
