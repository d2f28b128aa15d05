"""Calls MLX-LM's train(), unmodified, with the batches of a run.

train() asks for each batch after it has evaluated the whole state of the batch before. Between two batches is the place
for reports, validation, checkpoints and stops. train() compiles its step once and captures weights and optimizer state
by identity, so both are only changed in place.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import mlx.core as mx
import mlx.nn.utils as mlx_utils
import numpy as np
from mlx_lm.tuner.trainer import TrainingArgs, train

from jobs.model.events import PhaseEvent, RowLengths
from workers.events.reporter import Trained
from workers.mlx.arrays import named
from workers.mlx.context import RunContext
from workers.mlx.data import TrainingData
from workers.mlx.guarded_optimizer import GuardedOptimizer
from workers.mlx.model import TrainedModel
from workers.mlx.objectives import Batch, mean_rewards
from workers.mlx.state import random_key, set_random_key

NEVER = sys.maxsize
"""An interval that MLX-LM never reaches: lq reports, validates and saves by itself, at absolute iterations."""


class Trainer:
    """Trains iterations; an iteration is one batch of the job file, cut into the micro-batches of the stage."""

    def __init__(
        self, context: RunContext, model: TrainedModel, data: TrainingData, optimizer: GuardedOptimizer
    ) -> None:
        self._context, self._model, self._data, self._optimizer = context, model, data, optimizer

    def enter_stage(self) -> None:
        """Apply the settings of the stage that trains the next iteration."""
        self._context.stage_index = self._context.run_plan.index_at(self._context.iteration)
        stage = self._context.stage
        self._optimizer.clip = stage.grad_clip
        if self._context.spec.lq.weighs_tokens:
            self._optimizer.expected_tokens = self._data.tokens_per_batch / self._context.micro_batches
        if stage.reset_moments and self._context.is_stage_start:
            self._optimizer.reset_moments()

    def probe(self) -> None:
        """Do one update on the longest trained rows, so that a run that does not fit fails in its first minute.

        Weights, moments and the random key are restored, so this changes no bit of the run.
        """
        stage, order = self._context.stage, self._data.order
        lengths = [order.lengths[row] for row in order.pool]
        p99, p95 = (math.ceil(float(np.percentile(lengths, share))) for share in (99, 95))
        row_lengths = RowLengths(p99=p99, p95=p95, max=max(lengths))
        self._context.events.append(PhaseEvent(phase="probe", lengths=row_lengths))
        self._turn_on_checkpointing()
        key, network = random_key(), self._model.network
        longest = sorted(order.pool, key=lambda row: order.lengths[row], reverse=True)[: stage.batch_size]
        network.train()
        objective = self._model.objective
        batch, _ = objective.batch(self._data.train, longest, stage)
        (loss, tokens, _), gradients = mlx_utils.value_and_grad(network, objective.loss)(network, *batch)
        mx.eval(loss, tokens, gradients)
        weights, state = self._model.weights(), named(self._optimizer.state)
        self._optimizer.update(network, gradients)
        mx.eval(network.trainable_parameters(), self._optimizer.state)
        self._model.set_weights(weights)
        self._optimizer.set_moments(state)
        del batch, loss, tokens, gradients
        self._context.reporter.beat()  # reports the memory, in case the process is killed next
        mx.clear_cache()
        set_random_key(key)

    def _turn_on_checkpointing(self) -> None:
        if self._context.stage.grad_checkpoint:
            self._model.turn_on_checkpointing()

    def train(self, batches: Iterator[Batch], *, iterations: int) -> None:
        """Call MLX-LM once, on micro-batches, which end after `iterations` iterations at the latest."""
        context, stage = self._context, self._context.stage
        self._turn_on_checkpointing()
        scratch = context.job_dir.path / ".written-by-train.safetensors"  # train() always saves; lq does not use it
        arguments = TrainingArgs(
            batch_size=stage.batch_size,
            iters=iterations * context.micro_batches + 1,  # so that `batches` is asked after the last one
            val_batches=0,
            steps_per_report=NEVER,
            steps_per_eval=NEVER,
            steps_per_save=NEVER,
            max_seq_length=stage.max_seq_length,
            adapter_file=str(scratch),
            grad_checkpoint=False,  # on already if the stage has it
            grad_accumulation_steps=stage.grad_accumulation_steps,
            clear_cache_threshold=context.spec.clear_cache_threshold,
        )
        per_epoch = self._data.order.batches_per_epoch
        context.events.append(PhaseEvent(phase="train", rows=len(self._data.train), batches_per_epoch=per_epoch))
        with Path(os.devnull).open("w") as devnull, contextlib.redirect_stdout(devnull):
            train(
                model=self._model.network,
                optimizer=self._optimizer,
                train_dataset=self._data.train,
                val_dataset=None,
                args=arguments,
                loss=self._optimizer.loss,
                iterate_batches=lambda **_: batches,
            )
        scratch.unlink(missing_ok=True)

    def iteration(self, position: int) -> Generator[Batch, None, Trained]:
        """Yield the micro-batches of the iteration at `position` (from 0), and return what training them gave.

        train() asks for the next batch when it has evaluated this one. Its own reports have the same numbers, but draw
        a table for each.
        """
        stage, train_rows = self._context.stage, self._data.train
        rows = self._data.order.rows(position)
        losses, tallies, tokens, seconds = [], [], [], 0.0
        self._optimizer.before_iteration()
        for start in range(0, len(rows), stage.batch_size):
            batch, learned = self._model.objective.batch(train_rows, rows[start : start + stage.batch_size], stage)
            began = time.perf_counter()
            yield batch
            seconds += time.perf_counter() - began
            losses.append(self._optimizer.last_loss)
            tallies.append(self._optimizer.last_tally)
            tokens.append(learned)
        dropped = self._optimizer.after_iteration()
        # the update dropped these iterations; earlier ones belong to the update before
        lost = min(self._context.spec.grad_accumulation_steps, self._context.iteration + 1) if dropped else 0
        return Trained(
            loss=float(np.average(losses, weights=tokens if self._optimizer.expected_tokens is not None else None)),
            tokens=sum(tokens),
            seconds=seconds,
            learning_rate=float(self._optimizer.learning_rate.item()),
            grad_norm=self._optimizer.grad_norm,
            lost=lost,
            rewards=mean_rewards([tally for tally in tallies if tally is not None]),
        )
