"""The model of a run: load it, freeze it, add adapters, and put trained weights into it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import get_total_parameters
from mlx_lm.utils import load as load_model

from jobs.model.errors import ConfigInvalid, ModelMissing, message_of
from jobs.model.spec import JobSpec
from workers.data.dataset_facts import targets
from workers.mlx import arrays
from workers.mlx.arrays import Arrays, named, shapes
from workers.mlx.child import named_as
from workers.mlx.objectives import objective_of


class TrainedModel:
    """A model, its tokenizer, and the weights of it that are trained."""

    def __init__(self, spec: JobSpec, network: Any, tokenizer: Any) -> None:
        self._spec = spec
        self.objective = objective_of(spec)
        self.network = network
        self.tokenizer = tokenizer
        self._plain_call: Any = None  # of a layer, without gradient checkpointing; None while that is off

    @classmethod
    def load(cls, spec: JobSpec) -> Self:
        """Load the model that the job names; ModelMissing if there is none, or it cannot be loaded."""
        remote = spec.trust_remote_code
        with named_as(ModelMissing, f"the model {spec.model} cannot be loaded"):
            loaded = load_model(spec.model, tokenizer_config={"trust_remote_code": remote}, trust_remote_code=remote)
        return cls(spec, loaded[0], loaded[1])

    def choose_trained(self, *, fresh: bool) -> None:
        """Make the trained weights trainable, in the order of mlx_lm.lora.train_model.

        Args:
            fresh: load `resume_adapter_file` if the job names one; a resume takes its weights from a checkpoint.
        """
        spec, layers = self._spec, self.network.layers
        mx.random.seed(spec.seed)
        self.network.freeze()
        if spec.num_layers > len(layers):
            raise ConfigInvalid(
                f"num_layers is {spec.num_layers}, but {spec.model} has {len(layers)} layers; -1 means all"
            )
        if spec.fine_tune_type == "full":
            for layer in layers[-max(spec.num_layers, 0) :]:  # -1 and 0 mean all, as in MLX-LM
                layer.unfreeze()
        else:
            self._add_adapters()
        if fresh and spec.resume_adapter_file is not None:
            self._start_from(Path(spec.resume_adapter_file))

    def _add_adapters(self) -> None:
        parameters = self._spec.lora_parameters.model_dump()
        keys = parameters.pop("keys")
        if keys is not None:
            parameters["keys"] = list(keys)
        dora = self._spec.fine_tune_type == "dora"
        try:
            linear_to_lora_layers(self.network, self._spec.num_layers, parameters, use_dora=dora)
        except ValueError as error:
            raise ConfigInvalid(f"this model cannot take these adapters: {message_of(error)}") from error
        if not self.weights():
            raise ConfigInvalid("lora_parameters.keys names no linear layer of this model; nothing would be trained")

    def _start_from(self, path: Path) -> None:
        """Load adapter weights; MLX-LM's own strict=False loads nothing and reports nothing if the names differ."""
        try:
            weights = mx.load(str(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigInvalid(f"resume_adapter_file {path} cannot be read: {message_of(error)}") from error
        if (
            not isinstance(weights, dict)
            or not weights
            or not shapes(weights).items() <= shapes(self.weights()).items()
        ):
            raise ConfigInvalid(f"resume_adapter_file {path} does not fit this model and these lora_parameters")
        self.network.load_weights(list(weights.items()), strict=False)

    def weights(self) -> Arrays:
        """Return the trained weights."""
        return named(self.network.trainable_parameters())

    def set_weights(self, weights: Arrays) -> None:
        """Replace the trained weights."""
        self.network.load_weights(list(weights.items()), strict=False)
        mx.eval(self.network.parameters())

    def load_weights(self, path: Path) -> None:
        """Replace the trained weights by those of a file; ConfigInvalid if it holds other ones."""
        self.set_weights(arrays.load(path, self.weights()))

    def turn_on_checkpointing(self) -> None:
        """Turn gradient checkpointing on as MLX-LM's train() would, for all layers of the class and for good."""
        if self._plain_call is None:
            self._plain_call = type(self.network.layers[0]).__call__
            grad_checkpoint(self.network.layers[0])

    @contextlib.contextmanager
    def without_checkpointing(self) -> Iterator[None]:
        """Turn gradient checkpointing off for a block: generation passes caches, which it cannot handle."""
        layer = type(self.network.layers[0])
        patched = layer.__call__
        if self._plain_call is not None:
            layer.__call__ = self._plain_call
        try:
            yield
        finally:
            layer.__call__ = patched

    def facts(self) -> dict[str, Any]:
        """Count parameters as mlx_lm.lora prints them, and name what is trained."""
        trained = self.weights()
        return {
            "trained": sum(value.size for value in trained.values()),
            "total": int(get_total_parameters(self.network)),
            "targets": targets(trained),
            "layers": len({name.partition("layers.")[2].partition(".")[0] for name in trained if "layers." in name}),
        }
