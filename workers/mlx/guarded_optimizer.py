"""An optimizer that drops updates with non-finite gradients, and the learning rate of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map
from mlx_lm.tuner.utils import build_schedule

from jobs.model.errors import ConfigInvalid, message_of
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from workers.mlx.arrays import ArrayPlace, Arrays, copied, named, places, replace
from workers.mlx.objectives import TALLY, CrossEntropy, Objective, Preferences, objective_of

GUARD = "lq_guard"
"""The key of the guard's values in the optimizer's state: the compiled step of train() returns them. Not saved."""

SMALL = 1 << 16
"""Elements of an array. Arrays up to this size are summed together, because each sum costs a kernel start."""

BACKUP_BYTES = 64 << 20
"""Trained weights and moments up to this size are kept before each update, and put back if the update is dropped. For
larger ones the compiled step selects old or new arrays, which needs no memory, but a kernel start per array."""

_OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}


class GuardedOptimizer:
    """Wraps an optimizer: an update whose gradients are not finite changes neither weights nor moments.

    train() calls it like any optimizer, inside its compiled step. The step returns weights and optimizer state only,
    so the guard stores the loss, the gradient norm and the count of dropped updates in the optimizer's state.
    """

    def __init__(self, inner: Any, objective: Objective | None = None) -> None:
        self._inner = inner
        self._objective = objective or CrossEntropy()
        self._backup: ArrayBackup | None = None
        self._dropped = 0  # updates, of this process
        self.clip: float | None = None  # largest global norm; read when the step is traced; None for no clipping
        self.expected_tokens: float | None = None  # of a micro-batch; None weights micro-batches alike, as MLX-LM does
        self.selects_in_step = True  # False: `after_iteration` puts the arrays back

    @property
    def state(self) -> dict[str, Any]:
        """The very state dictionary of the wrapped optimizer, including the guard's values."""
        return cast("dict[str, Any]", self._inner.state)

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the last update."""
        return self._inner.learning_rate

    @property
    def last_loss(self) -> float:
        """The loss of the last micro-batch, in nats per token."""
        return float(self.state[GUARD]["loss"].item())

    @property
    def last_tally(self) -> list[float] | None:
        """The tally of rewards of the last micro-batch; None if the objective has none."""
        tally = self.state[GUARD].get("tally")
        return None if tally is None else cast("list[float]", tally.tolist())

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last update's gradients, before clipping; None before this process made an update."""
        norm = float(self.state[GUARD]["grad_norm"].item())
        return None if norm < 0 else norm

    @property
    def updates(self) -> int:
        """Updates that were applied."""
        return int(self.state["step"].item())

    def init(self, parameters: Any) -> None:
        """Create the state for these parameters."""
        self._inner.init(parameters)
        self.state[GUARD] = {"loss": mx.array(0.0), "grad_norm": mx.array(-1.0), "skipped": mx.array(0)}
        if isinstance(self._objective, Preferences):
            self.state[GUARD]["tally"] = mx.zeros(TALLY)

    def guard(self, network: Any) -> None:
        """Initialize the state for a network, and choose how dropped updates are undone."""
        self.init(network.trainable_parameters())
        mx.eval(network.parameters(), self.state)
        self._backup = ArrayBackup(network, self.state)
        self.selects_in_step = not self._backup.complete or self._backup.bytes > BACKUP_BYTES

    def before_iteration(self) -> None:
        """Keep the present arrays, unless the compiled step selects."""
        if self._backup is not None and not self.selects_in_step:
            self._backup.keep()

    def after_iteration(self) -> bool:
        """Return whether an update was dropped; undo it unless the compiled step did."""
        dropped = int(self.state[GUARD]["skipped"].item()) > self._dropped
        self._dropped += dropped
        if self._backup is not None and not self.selects_in_step:
            self._backup.release(put_back=dropped)
        return dropped

    def moments(self) -> Arrays:
        """Return the state that checkpoints store: all of it except the guard's values."""
        return named(_without_guard(self.state))

    def set_moments(self, moments: Arrays) -> None:
        """Replace arrays of the state, in place."""
        replace(self.state, moments)
        mx.eval(self.state)

    def reset_moments(self) -> None:
        """Set everything to zero except the step and the learning rate."""
        kept = ("step", "learning_rate")
        self.set_moments({name: mx.zeros_like(value) for name, value in self.moments().items() if name not in kept})

    def loss(self, model: Any, *batch: mx.array) -> tuple[mx.array, mx.array]:
        """Return the loss whose gradients are applied, and the number of its tokens or rows; store loss and tally.

        MLX-LM's loss, the mean over these tokens in nats, is stored. It is returned, or multiplied by the tokens over
        their expected number: then the sum of an update weights all its tokens alike. If the loss is not finite, its
        gradients are not finite either.
        """
        loss, tokens, tally = self._objective.loss(model, *batch)
        loss = loss * mx.stop_gradient(mx.where(mx.isfinite(loss), 1.0, math.nan))
        self.state[GUARD]["loss"] = loss
        if tally is not None:
            self.state[GUARD]["tally"] = tally
        return loss if self.expected_tokens is None else loss * tokens / self.expected_tokens, tokens

    def update(self, model: Any, gradients: Any) -> None:
        """Apply the gradients, clipped if there is a limit. Drop them if their norm is not finite."""
        values = self.state[GUARD]
        norm = _global_norm(gradients)
        applies = mx.isfinite(norm)
        before = (model.trainable_parameters(), copied(_without_guard(self.state))) if self.selects_in_step else None
        if self.clip is not None:
            share = mx.minimum(self.clip / (norm + 1e-6), 1.0)
            gradients = tree_map(lambda gradient: gradient * share.astype(gradient.dtype), gradients)
        self._inner.update(model, gradients)
        if before is not None:
            weights, moments = before
            model.update(tree_map(lambda new, old: mx.where(applies, new, old), model.trainable_parameters(), weights))
            _keep_unless(applies, self.state, moments)
        values["grad_norm"] = norm
        values["skipped"] = values["skipped"] + mx.where(applies, 0, 1)


class ArrayBackup:
    """The trained weights and the optimizer state before an update."""

    def __init__(self, network: Any, state: dict[str, Any]) -> None:
        """Find the place of every trained weight and moment; train() replaces the arrays in these places."""
        moments = _without_guard(state)
        self._places = [*_trained_places(network), *(place for place in places(state) if place[0] is not state[GUARD])]
        arrays = {**named(network.trainable_parameters()), **named(moments)}
        self.bytes = sum(value.nbytes for value in arrays.values())
        self.complete = len(self._places) == len(arrays)  # False: some array lies where it cannot be put back
        self._arrays: list[mx.array] = []

    def keep(self) -> None:
        """Keep the present arrays."""
        self._arrays = [tree[key] for tree, key in self._places]

    def release(self, *, put_back: bool) -> None:
        """Release the kept arrays; put them back first if `put_back`."""
        if put_back:
            for (tree, key), array in zip(self._places, self._arrays, strict=True):
                tree[key] = array
        self._arrays = []


def build_optimizer(spec: JobSpec, run_plan: RunPlan, stage: Callable[[], Stage]) -> GuardedOptimizer:
    """Build the optimizer of the job file, and guard it.

    Args:
        run_plan: a stage of it may multiply the job file's learning rate, after a warm-up of its own.
        stage: returns the stage that applies when the step is traced.

    Raises:
        ConfigInvalid: MLX-LM cannot build the optimizer or its schedule.
    """
    schedule = spec.lr_schedule

    def staged(step: mx.array) -> mx.array:
        """Return the learning rate of the update after `step` updates."""
        now = stage()
        value = (rate(step) if callable(rate) else mx.array(rate)) * now.learning_rate_factor
        if now.warmup_updates:
            made = step.astype(mx.float32) - now.first_update
            value = value * mx.clip((made + 1.0) / now.warmup_updates, 0.0, 1.0)
        return cast("mx.array", value)

    try:
        rate = build_schedule(schedule.model_dump()) if schedule is not None else spec.learning_rate
        changes = any(each.learning_rate_factor != 1.0 or each.warmup_updates for each in run_plan.stages)
        arguments = spec.optimizer_config.get(spec.optimizer, {})
        optimizer = _OPTIMIZERS[spec.optimizer](learning_rate=staged if changes else rate, **arguments)
        return GuardedOptimizer(optimizer, objective_of(spec))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigInvalid(f"optimizer or lr_schedule: {message_of(error)}") from error


def _without_guard(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != GUARD}


def _global_norm(gradients: Any) -> mx.array:
    """Return the 2-norm over all gradients, summed in float32, because half precision would overflow."""
    arrays = [gradient.astype(mx.float32) for gradient in named(gradients).values()]
    small = [array.reshape(-1) for array in arrays if array.size <= SMALL]
    parts = [*([mx.concatenate(small)] if small else []), *(array for array in arrays if array.size > SMALL)]
    return mx.sqrt(mx.stack([mx.square(part).sum() for part in parts]).sum())


def _trained_places(network: Any) -> list[ArrayPlace]:
    """Return the places of the trained weights: a module is a dictionary, and train() captures that very one."""
    return [
        (module, key)
        for _, module in network.named_modules()
        for key, value in module.items()
        if isinstance(value, mx.array) and network.trainable_parameter_filter(module, key, value)
    ]


def _keep_unless(applies: mx.array, tree: Any, before: Any) -> None:
    """Put the arrays of `before` back in place, unless the update applies."""
    for key in before if isinstance(before, dict) else range(len(before)):
        if isinstance(before[key], dict | list):
            _keep_unless(applies, tree[key], before[key])
        else:
            tree[key] = mx.where(applies, tree[key], before[key])
