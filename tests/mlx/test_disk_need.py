"""The disk a run will take, reckoned from file headers, against what MLX-LM makes of the very model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load

from jobs.model.spec import JobSpec
from orchestrator.demo.tiny_model import build_model
from orchestrator.estimation.disk import need_of

OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}
ROOM = 8192
"""Bytes of file headers and of the optimizer's step and rate, at most."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model as it is, and quantised as MLX-LM writes it."""
    folder = tmp_path_factory.mktemp("models")
    build_model(folder / "plain")
    build_model(folder / "quantised")
    model = cast("Any", load(str(folder / "quantised")))[0]
    layers = cast("Any", nn)  # its stubs lack both
    layers.quantize(model, group_size=32, bits=4, class_predicate=lambda _, one: isinstance(one, layers.Linear))
    model.save_weights(str(folder / "quantised" / "model.safetensors"))
    path = folder / "quantised" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization": {"group_size": 32, "bits": 4}}))
    return {name: folder / name for name in ("plain", "quantised")}


def weight(tree: Any) -> int:
    return sum(value.nbytes for _, value in cast("list[tuple[str, mx.array]]", tree_flatten(tree)))


def trained(spec: JobSpec) -> tuple[int, int]:
    """Return the bytes of the trained arrays and of the optimizer's state, as MLX has them."""
    model = cast("Any", load(spec.model))[0]
    model.freeze()
    if spec.fine_tune_type == "full":
        for layer in model.layers[-max(spec.num_layers, 0) :]:
            layer.unfreeze()
    else:
        settings = spec.lora_parameters.model_dump()
        if settings["keys"] is None:
            del settings["keys"]
        linear_to_lora_layers(model, spec.num_layers, settings, use_dora=spec.fine_tune_type == "dora")
    optimizer = OPTIMIZERS[spec.optimizer](learning_rate=1e-5)
    optimizer.init(model.trainable_parameters())
    return weight(model.trainable_parameters()), weight(optimizer.state)


@pytest.mark.parametrize("model", ["plain", "quantised"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"optimizer": "sgd", "num_layers": 1},
        {"fine_tune_type": "dora", "optimizer": "adamw"},
        {"lora_parameters": {"rank": 64, "keys": ["self_attn.q_proj", "mlp.down_proj"]}, "optimizer": "muon"},
        {"optimizer": "adafactor", "lora_parameters": {"rank": 32}},
        {"fine_tune_type": "full", "num_layers": 1},
    ],
    ids=str,
)
def test_what_is_reckoned_is_what_mlx_lm_trains(models: dict[str, Path], model: str, keys: dict[str, Any]) -> None:
    if model == "quantised" and keys.get("fine_tune_type") == "full":
        pytest.skip("MLX-LM cannot train quantised weights")
    spec = JobSpec(model=str(models[model]), **{"num_layers": -1} | keys)
    adapter, optimizer = trained(spec)
    need = need_of(spec, valid_rows=0)
    assert need.adapter is not None
    assert need.optimizer is not None
    assert adapter <= need.adapter <= adapter + ROOM
    assert optimizer - 64 <= need.optimizer <= optimizer + 2 * ROOM
