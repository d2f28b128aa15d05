"""The two ways in which an update that is not finite leaves no trace; both make the very same of one that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import qwen2
from mlx_lm.tuner.utils import linear_to_lora_layers

from workers.mlx.run import GUARD, GuardedOptimizer, Held


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


def arrays(tree: Any) -> dict[str, Any]:
    """Return the arrays of a tree by their names."""
    return dict(cast("list[tuple[str, Any]]", tree_flatten(tree)))


def made(name: str, *, chooses: bool) -> tuple[Any, Any]:
    """Return a model and its optimizer."""
    model, optimizer = small(), GuardedOptimizer(OPTIMIZERS[name]())
    optimizer.init(model.trainable_parameters())
    optimizer.chooses = chooses
    return model, optimizer


def update(model: Any, optimizer: Any, value: float) -> None:
    """Make an update with gradients that are all the same number, as the trainer does."""
    held, before = Held(model, optimizer.state), int(optimizer.state[GUARD]["skipped"].item())
    assert held.whole
    held.hold()
    optimizer.update(model, tree_map(lambda one: mx.full(one.shape, value), model.trainable_parameters()))
    mx.eval(model.parameters(), optimizer.state)
    lost = int(optimizer.state[GUARD]["skipped"].item()) > before
    held.let_go(put_back=lost and not optimizer.chooses)


def everything(model: Any, optimizer: Any) -> dict[str, list[Any]]:
    """Return weights and state, apart from the guard's, as numbers."""
    state = {name: one for name, one in optimizer.state.items() if name != GUARD}
    return {name: array.tolist() for name, array in {**arrays(model.parameters()), **arrays(state)}.items()}


@pytest.mark.parametrize("chooses", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_that_is_not_finite_leaves_no_trace(name: str, chooses: bool) -> None:
    model, optimizer = made(name, chooses=chooses)
    update(model, optimizer, 0.5)
    before = everything(model, optimizer)
    update(model, optimizer, math.nan)
    assert everything(model, optimizer) == before
    assert int(optimizer.state[GUARD]["skipped"].item()) == 1
    update(model, optimizer, 0.5)
    assert everything(model, optimizer) != before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_ways_make_the_same_of_updates(name: str) -> None:
    one, other = made(name, chooses=True), made(name, chooses=False)
    for value in (0.5, math.inf, -0.25, math.nan, 0.125):
        update(*one, value)
        update(*other, value)
        assert everything(*one) == everything(*other)


def test_all_that_is_trained_is_held() -> None:
    model, optimizer = made("adam", chooses=False)
    held = Held(model, optimizer.state)
    trained = sum(array.nbytes for array in arrays(model.trainable_parameters()).values())
    assert held.bytes == 3 * trained + 8 + 4, "weights, two moments, the step and the rate"


def test_the_norm_is_that_of_all_gradients_small_and_large() -> None:
    model, optimizer = made("sgd", chooses=True)
    update(model, optimizer, 2.0)
    count = sum(array.size for array in arrays(model.trainable_parameters()).values())
    assert optimizer.state[GUARD]["grad_norm"].item() == pytest.approx(2.0 * math.sqrt(count))
