"""A dropped update leaves no trace, and both ways of undoing it give the same arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn.utils as mlx_utils
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_map
from mlx_lm.models import qwen2
from mlx_lm.tuner.utils import linear_to_lora_layers

from workers.mlx.arrays import named
from workers.mlx.guarded_optimizer import ArrayBackup, GuardedOptimizer


def small() -> Any:
    """Return a tiny Qwen2 with LoRA layers, the same every time."""
    size = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16, "num_attention_heads": 2}
    more = {"model_type": "qwen2", "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": 32}
    mx.random.seed(3)
    model: Any = qwen2.Model(qwen2.ModelArgs.from_dict(size | more))
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 4, "scale": 2.0, "dropout": 0.0})
    return model


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: optim.Adam(learning_rate=0.1),
    "sgd": lambda: optim.SGD(learning_rate=0.1, momentum=0.9),
    "adafactor": lambda: optim.Adafactor(learning_rate=0.1),
    "muon": lambda: optim.Muon(learning_rate=0.1),
}


def made(name: str, *, selects_in_step: bool) -> tuple[Any, GuardedOptimizer]:
    model, optimizer = small(), GuardedOptimizer(OPTIMIZERS[name]())
    optimizer.guard(model)
    assert not optimizer.selects_in_step, "the arrays are small"
    optimizer.selects_in_step = selects_in_step
    return model, optimizer


def update(model: Any, optimizer: GuardedOptimizer, value: float) -> bool:
    """Update with gradients that are all `value`, and return whether the update was dropped."""
    optimizer.before_iteration()
    optimizer.update(model, tree_map(lambda array: mx.full(array.shape, value), model.trainable_parameters()))
    mx.eval(model.parameters(), optimizer.state)
    return optimizer.after_iteration()


def numbers(model: Any, optimizer: GuardedOptimizer) -> dict[str, Any]:
    return {name: array.tolist() for name, array in {**named(model.parameters()), **optimizer.moments()}.items()}


@pytest.mark.parametrize("selects_in_step", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_dropped_update_leaves_no_trace(name: str, selects_in_step: bool) -> None:
    model, optimizer = made(name, selects_in_step=selects_in_step)
    assert not update(model, optimizer, 0.5)
    before = numbers(model, optimizer)
    assert update(model, optimizer, math.nan)
    assert numbers(model, optimizer) == before
    assert not update(model, optimizer, 0.5)
    assert numbers(model, optimizer) != before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_ways_of_undoing_agree(name: str) -> None:
    in_step, afterwards = made(name, selects_in_step=True), made(name, selects_in_step=False)
    for value in (0.5, math.inf, -0.25, math.nan, 0.125):
        update(*in_step, value)
        update(*afterwards, value)
        assert numbers(*in_step) == numbers(*afterwards)


def test_backup_holds_all_trained_arrays() -> None:
    model, optimizer = made("adam", selects_in_step=False)
    backup = ArrayBackup(model, optimizer.state)
    trained = sum(array.nbytes for array in named(model.trainable_parameters()).values())
    assert backup.bytes == 3 * trained + 8 + 4, "weights, two moments, the step and the rate"
    assert backup.complete


def test_norm_counts_small_and_large() -> None:
    model, optimizer = made("sgd", selects_in_step=True)
    update(model, optimizer, 2.0)
    count = sum(array.size for array in named(model.trainable_parameters()).values())
    assert optimizer.grad_norm == pytest.approx(2.0 * math.sqrt(count))


def gradients_of(expected_tokens: float | None, *parts: slice) -> dict[str, mx.array]:
    """Return the mean gradients over micro-batches: parts of four rows with 3, 5, 20 and 30 tokens."""
    model = small()
    model.update(tree_map(lambda array: mx.random.normal(array.shape), model.trainable_parameters()))
    optimizer = GuardedOptimizer(optim.SGD(learning_rate=0.1))
    optimizer.guard(model)
    optimizer.expected_tokens = expected_tokens
    spans = mx.array([[0, 3], [0, 5], [0, 20], [0, 30]])
    tokens = mx.random.randint(0, 32, (4, 33))
    sums: dict[str, mx.array] = {}
    for part in parts:
        _, gradients = mlx_utils.value_and_grad(model, optimizer.loss)(model, tokens[part], spans[part])
        sums = {name: value + sums.get(name, 0) for name, value in named(gradients).items()}
    return {name: value / len(parts) for name, value in sums.items()}


@pytest.mark.parametrize("weighs_tokens", [True, False])
def test_micro_batches_weigh_tokens_alike(weighs_tokens: bool) -> None:
    """The gradient of an update does not depend on its micro-batches; with MLX-LM's loss it does."""
    expected = 50.0 if weighs_tokens else None
    whole = gradients_of(expected, slice(4))
    halves = gradients_of(expected and expected / 2, slice(2), slice(2, 4))
    equal = all(mx.allclose(halves[name], value, rtol=1e-3, atol=1e-6).item() for name, value in whole.items())
    assert equal is weighs_tokens
