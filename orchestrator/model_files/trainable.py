"""What MLX-LM would train of a model, from the headers of its weights (linear_to_lora_layers in mlx_lm/tuner)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from jobs.estimates.disk import LAYER, NOT_TRAINED
from jobs.model.spec import JobSpec
from orchestrator.model_files.architecture import attribute_names
from orchestrator.model_files.damage import listed
from orchestrator.model_files.files import ModelFiles
from workers.checkpoints.tensor_files import Tensor

_WITH_MOMENTS = ("adam", "adamw", "adafactor")
_EXPERTS = (".experts.", ".switch_mlp.", ".switch_glu.")
_QUANTIZED = (".scales", ".qweight")
_SAFE_EPS = 1e-6
"""Float16 represents no number below 6e-8, so a smaller eps of Adam may be rounded to 0."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about a job and its model that the user must know."""

    key: str  # the key of the job file that it is about
    text: str  # one line
    refused: bool = True  # False: the job can be queued


def findings(spec: JobSpec, files: ModelFiles) -> Iterator[Finding]:
    """Yield what is wrong with the settings of the adapter or of the full fine-tune for this model."""
    layers = _layers(files.tensors)
    if not layers:
        return
    count = max(layers) + 1
    if spec.num_layers > count:
        text = f"num_layers: {spec.num_layers}, but the model has {count} layers; write {count} or less, or -1 for all"
        yield Finding("num_layers", text)
    first = count - spec.num_layers if spec.num_layers > 0 else 0
    trained = {name: tensor for number, below in layers.items() if number >= first for name, tensor in below.items()}
    if spec.fine_tune_type == "full":
        yield from _full(spec, trained)
    elif spec.lora_parameters.keys is not None:
        yield from _keys(spec, files, trained)
    elif spec.fine_tune_type == "dora" and any(part in f".{name}" for name in trained for part in _EXPERTS):
        text = "fine_tune_type: MLX-LM has no DoRA for the experts of this model; use lora, or name the attention"
        yield Finding("fine_tune_type", f"{text} modules in lora_parameters.keys")


def _layers(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return the tensors of each layer by their name below it."""
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if (match := LAYER.search(name)) is not None and not NOT_TRAINED.search(name):
            layers.setdefault(int(match[1]), {})[match[2]] = tensor
    return layers


def _full(spec: JobSpec, trained: Mapping[str, Tensor]) -> Iterator[Finding]:
    if any(name.endswith(_QUANTIZED) for name in trained):
        text = "fine_tune_type: MLX has no gradient of quantized weights, so they cannot be trained fully; use lora"
        yield Finding("fine_tune_type", f"{text}, or a model that is not quantized (mlx_lm.convert --dequantize)")
    arguments = spec.optimizer_config.get(spec.optimizer, {})
    eps = arguments.get("eps", 0.0) if spec.optimizer != "adafactor" else 0.0
    half = any(tensor.dtype == "F16" and len(tensor.shape) > 1 for tensor in trained.values())
    if half and spec.optimizer in _WITH_MOMENTS and eps < _SAFE_EPS:
        text = f"optimizer: the weights are float16, and the moments of {spec.optimizer} underflow, so the loss"
        text += " becomes NaN; convert the model: mlx_lm.convert --dtype bfloat16, or float32"
        yield Finding("optimizer", text, refused=False)


def _keys(spec: JobSpec, files: ModelFiles, trained: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Compare `lora_parameters.keys` with the names of the modules."""
    key, keys = "lora_parameters.keys", spec.lora_parameters.keys or ()
    linear = _linear(trained)
    shown = f"the model has {', '.join(sorted(linear))}"
    other = [name for name in keys if name not in linear and any(tensor.startswith(f"{name}.") for tensor in trained)]
    if other:
        yield Finding(key, f"{key}: {listed(other)} cannot take an adapter, which only linear modules can; {shown}")
    known = {*linear, *_linear(files.tensors), *other}
    parts = attribute_names(files.config) if not known.issuperset(keys) else frozenset()
    unknown = [name for name in keys if name not in known and not _may_exist(name, linear, parts)]
    if len(unknown) == len(keys):
        names = f"none of {listed(unknown)} is a module of a trained layer" if keys else "[] trains nothing"
        yield Finding(key, f"{key}: {names}; {shown}")
    elif unknown:
        near = [name for name in linear if name.rpartition(".")[2] == unknown[0].rpartition(".")[2]]
        hint = f"did you mean {listed(sorted(near))}?" if near else shown
        text = f"{key}: MLX-LM ignores {listed(unknown)}, which the trained layers do not have; {hint}"
        yield Finding(key, text, refused=False)


def _linear(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the modules with a weight of at least two dimensions: linear ones, embeddings and experts."""
    return {
        name.removesuffix(".weight")
        for name, tensor in tensors.items()
        if name.endswith(".weight") and len(tensor.shape) > 1
    }


def _may_exist(name: str, linear: set[str], parts: frozenset[str]) -> bool:
    """Return whether MLX-LM may make a module when it loads the weights, such as fused projections or experts."""
    path, tails = name.split("."), {other.rpartition(".")[2] for other in linear}
    made = path[-1] not in tails or "switch" in name
    return made and len(path) > 1 and all(part in parts or part.isdecimal() for part in path)
