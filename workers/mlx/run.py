"""One attempt at a run: a function of the job, its run plan and a checkpoint.

The collaborators do the work; this module decides what is due between two iterations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Self

from jobs.model.events import PhaseEvent, WarningEvent
from jobs.model.outcomes import Quality, Reason
from workers.checkpoints import storage
from workers.checkpoints.storage import Checkpoint
from workers.events.reporter import Trained
from workers.mlx import data as training_data
from workers.mlx import reference
from workers.mlx.context import RunContext
from workers.mlx.data import TrainingData
from workers.mlx.diagnostics import Diagnostics
from workers.mlx.evaluate import Evaluator
from workers.mlx.guarded_optimizer import build_optimizer
from workers.mlx.model import TrainedModel
from workers.mlx.objectives import Batch
from workers.mlx.prompts import answer_prompts
from workers.mlx.state import CheckpointWriter
from workers.mlx.trackers import Trackers
from workers.mlx.trainer import Trainer
from workers.system.processes import battery


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunParts:
    """The collaborators of a run."""

    model: TrainedModel
    data: TrainingData
    trainer: Trainer
    evaluator: Evaluator
    diagnostics: Diagnostics
    checkpoints: CheckpointWriter
    reference_s: float | None = None  # of a dry run: seconds to measure the reference log-probabilities

    @classmethod
    def load(cls, context: RunContext, *, fresh: bool, dry: bool = False) -> Self:
        """Load model and data, and prepare them as mlx_lm.lora does before it calls train()."""
        spec, events = context.spec, context.events
        events.append(PhaseEvent(phase="load"))
        if spec.trust_remote_code:
            text = "trust_remote_code is on: code that comes with the model runs"
            events.append(WarningEvent(code="trust_remote_code", text=text))
        model = TrainedModel.load(spec)
        events.append(PhaseEvent(phase="tokenize"))
        data = training_data.load(context, model.tokenizer)
        model.choose_trained(fresh=fresh)
        reference_s = reference.estimate(context, model, data) if dry else None
        if not dry:
            reference.provide(context, model, data, fresh=fresh)
        optimizer = build_optimizer(spec, context.run_plan, lambda: context.stage)
        optimizer.guard(model.network)
        evaluator = Evaluator(context, model, data)
        return cls(
            model=model,
            data=data,
            trainer=Trainer(context, model, data, optimizer),
            evaluator=evaluator,
            diagnostics=Diagnostics(context, data, evaluator),
            checkpoints=CheckpointWriter(context, model, data, optimizer, evaluator),
            reference_s=reference_s,
        )


class TrainingRun:
    """Trains a run from its beginning or a checkpoint to its end, or until a stop is requested."""

    def __init__(self, context: RunContext, parts: RunParts) -> None:
        self._context, self._requests = context, context.requests
        self._model, self._trainer, self._evaluator = parts.model, parts.trainer, parts.evaluator
        self._diagnostics, self._checkpoints = parts.diagnostics, parts.checkpoints
        self._test_rows = parts.data.test
        self._trackers: Trackers | None = None
        self._segment_end: int | None = None  # iteration at which this process makes way for a fresh one
        self._unreported_loss: float | None = None  # of the last iteration if its loss or update was not finite
        self._stopped = self._finished = False

    def prepare(self, resume: Checkpoint | None, quality: Quality) -> None:
        """Restore a verified checkpoint, or examine the fresh start; then check that the run fits in memory."""
        if resume is not None:
            self._checkpoints.restore(resume, quality)
        self._trainer.enter_stage()
        if resume is None:
            self._examine_start()
        self._diagnostics.autopsy()
        if self._context.spec.lq.memory.probe and self._context.iteration < self._context.last_iteration:
            self._trainer.probe()

    def train(self) -> Reason:
        """Train, test and answer; `stopped_by_user` means that it stopped with a checkpoint before the end."""
        context = self._context
        self._trackers = Trackers(context)
        self._train_stages()
        if not self._finished:
            return Reason.STOPPED_BY_USER
        if context.spec.test and len(self._test_rows):
            with self._requests.nothing_to_lose():
                self._evaluator.test()
        with self._requests.nothing_to_lose():
            self._examine_end()
        return Reason.COMPLETED if context.run_plan.ends_at is None else Reason.EARLY_STOPPED

    def _examine_start(self) -> None:
        """Report the data and the model before training."""
        self._diagnostics.report_dataset()
        self._diagnostics.report_fact("parameters", self._model.facts())
        self._diagnostics.report_fact("battery.before", battery())
        if self._context.spec.test and len(self._test_rows):
            self._context.events.append(PhaseEvent(phase="test"))
            self._evaluator.test_at(0)
        answer_prompts(self._context, self._model, when="before", iteration=0)

    def _examine_end(self) -> None:
        """Answer the prompts with the weights that lq publishes."""
        context = self._context
        self._diagnostics.report_fact("battery.after", battery())
        best = None
        if context.spec.lq.prompts != ():
            best = storage.best_valid(context.job_dir.checkpoints, context.run_plan)[0]
        if best is not None:
            self._model.load_weights(best.adapters)
        iteration = self._context.iteration if best is None else best.iteration
        answer_prompts(context, self._model, when="after", iteration=iteration)

    def _train_stages(self) -> None:
        """Train stage after stage, each with one call of MLX-LM's train()."""
        if self._context.stage.segment is not None:
            self._segment_end = self._context.iteration + self._context.stage.segment
        while not (self._finished or self._stopped):
            self._trainer.enter_stage()
            end = self._context.stage_end
            self._trainer.train(self._batches(end), iterations=end - self._context.iteration)

    def _batches(self, end: int) -> Iterator[Batch]:
        """Yield micro-batches from the present position to `end`, and do what is due between two iterations.

        Returning ends train(). At the end of a stage that is not the last, nothing is due before the next stage starts.
        """
        for position in range(self._context.iteration, end):
            if self._between_iterations():
                self._stopped = True
                return
            trained = yield from self._trainer.iteration(position)
            self._count(trained)
        if end == self._context.last_iteration:
            self._between_iterations()
            self._stopped = not self._finished

    def _count(self, trained: Trained) -> None:
        mean_loss = self._context.reporter.count(trained)
        self._unreported_loss = trained.loss if trained.lost or not math.isfinite(trained.loss) else None
        self._evaluator.forget()
        self._checkpoints.validation_pending = False
        if self._trackers is not None:
            self._trackers.trained(trained, mean_loss)

    def _between_iterations(self) -> bool:
        """Do what is due between two iterations; return whether to stop here."""
        iteration, requests = self._context.iteration, self._requests
        at_end = iteration == self._context.last_iteration
        if self._unreported_loss is not None:
            self._diagnostics.report_not_finite(self._unreported_loss)
            self._unreported_loss = None
        # a checkpoint holds no accumulated gradients, so it is written between two updates
        between_updates = iteration % self._context.spec.grad_accumulation_steps == 0 or at_end
        if self._segment_end is not None and iteration >= self._segment_end and not at_end:
            requests.segment_over = not requests.stop
            requests.stop = True
        due = self._evaluator.is_due(iteration, requested=requests.snapshot and between_updates)
        if due and not requests.stop:
            self._validate()
        if between_updates and iteration > 0 and self._checkpoints.is_due(iteration):
            self._checkpoints.write()
        if at_end:
            self._context.reporter.flush()
            self._finished = self._evaluator.validation is not None or not due  # a stop postpones the last validation
        return requests.stop and between_updates and not at_end

    def _validate(self) -> None:
        measured = self._evaluator.validate()
        if measured is None:
            return
        self._checkpoints.validation_pending = True
        if self._trackers is not None:
            self._trackers.validated(measured)
        self._context.events.append(PhaseEvent(phase="train"))
