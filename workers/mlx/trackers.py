"""Reports to wandb or swanlab (`report_to`), exactly as mlx_lm.lora sends them."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
from mlx_lm.tuner.callbacks import get_reporting_callbacks

from jobs.model.errors import ConfigInvalid, message_of
from workers.checkpoints.mlx_config import mlx_config
from workers.data.loss_measurement import LossMeasurement
from workers.events.reporter import Trained
from workers.mlx.context import RunContext


class Trackers:
    """Forwards training and validation reports with absolute iterations."""

    def __init__(self, context: RunContext) -> None:
        """Connect to what `report_to` names; ConfigInvalid if it is unknown or not installed."""
        self._context, spec = context, context.spec
        # annotated as a string in MLX-LM, passed as a dictionary
        config = cast("Any", mlx_config(spec, context.stage))
        try:
            self._callback = get_reporting_callbacks(
                spec.report_to, project_name=spec.project_name, log_dir=str(context.job_dir.path), config=config
            )
        except (ImportError, ValueError) as error:
            raise ConfigInvalid(f"report_to: {message_of(error)}") from error

    def trained(self, trained: Trained, mean_loss: float) -> None:
        """Report an iteration if a report ends there; `mean_loss` is that of the report, in nats per token."""
        iteration, every = self._context.iteration, self._context.spec.steps_per_report
        if self._callback is None or (iteration % every and iteration != self._context.last_iteration):
            return
        self._callback.on_train_loss_report(
            {
                "iteration": iteration,
                "train_loss": mean_loss,
                "learning_rate": trained.learning_rate,
                "iterations_per_second": 1.0 / trained.seconds,
                "tokens_per_second": trained.tokens / trained.seconds,
                "trained_tokens": self._context.reporter.tokens,
                "peak_memory": mx.get_peak_memory() / 1e9,
            }
        )

    def validated(self, measured: LossMeasurement) -> None:
        """Report a validation."""
        if self._callback is not None:
            iteration = self._context.iteration
            self._callback.on_val_loss_report(
                {"iteration": iteration, "val_loss": measured.loss, "val_time": measured.seconds}
            )
