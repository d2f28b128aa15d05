"""The disk space of a run, estimated from file headers, compared with the arrays of MLX-LM."""

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
MARGIN = 8192
"""Upper bound for file headers and the optimizer's step and rate, in bytes."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a model as it is, and quantized as MLX-LM writes it."""
    folder = tmp_path_factory.mktemp("models")
    build_model(folder / "plain")
    build_model(folder / "quantized")
    model = cast("Any", load(str(folder / "quantized")))[0]
    layers = cast("Any", nn)  # its stubs lack both
    layers.quantize(model, group_size=32, bits=4, class_predicate=lambda _, layer: isinstance(layer, layers.Linear))
    model.save_weights(str(folder / "quantized" / "model.safetensors"))
    path = folder / "quantized" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization": {"group_size": 32, "bits": 4}}))
    return {name: folder / name for name in ("plain", "quantized")}


def size_of(tree: Any) -> int:
    return sum(value.nbytes for _, value in cast("list[tuple[str, mx.array]]", tree_flatten(tree)))


def trained(spec: JobSpec) -> tuple[int, int]:
    """Return the bytes of the trained arrays and of the optimizer's state in MLX."""
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
    return size_of(model.trainable_parameters()), size_of(optimizer.state)


@pytest.mark.parametrize("model", ["plain", "quantized"])
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
def test_estimate_equals_trained_bytes(models: dict[str, Path], model: str, keys: dict[str, Any]) -> None:
    if model == "quantized" and keys.get("fine_tune_type") == "full":
        pytest.skip("MLX-LM cannot train quantized weights")
    spec = JobSpec(model=str(models[model]), **{"num_layers": -1} | keys)
    adapter, optimizer = trained(spec)
    need = need_of(spec, valid_rows=0)
    assert need.adapter is not None
    assert need.optimizer is not None
    assert adapter <= need.adapter <= adapter + MARGIN
    assert optimizer - 64 <= need.optimizer <= optimizer + 2 * MARGIN
