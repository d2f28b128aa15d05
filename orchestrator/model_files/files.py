"""The files of a model: config.json and the headers of its weights. The weights are not loaded."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.estimates.disk import Array, trained_arrays
from jobs.estimates.memory import ModelShape
from jobs.model.spec import JobSpec
from orchestrator.model_files.hub_cache import folder_of
from workers.checkpoints import tensor_files
from workers.checkpoints.tensor_files import BYTES_OF, Tensor

_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFiles:
    folder: Path
    config: Mapping[str, Any]  # config.json
    tensors: Mapping[str, Tensor]  # by name; empty without weights

    def arrays(self, spec: JobSpec) -> list[Array] | None:
        """Return the trained arrays; None if the names of the tensors are unknown.

        Raises:
            ValueError, KeyError, TypeError: config.json is not that of a model.
        """
        quantized: Mapping[str, Any] = self.config.get("quantization") or self.config.get("quantization_config") or {}
        own = {name: int(part["bits"]) for name, part in quantized.items() if isinstance(part, dict) and "bits" in part}
        sizes = {name: (BYTES_OF.get(tensor.dtype, 1), tensor.shape) for name, tensor in self.tensors.items()}
        return trained_arrays(sizes, spec, bits=own, usual_bits=int(quantized.get("bits") or 4)) if sizes else None

    def shape(self) -> ModelShape | None:
        """Return the sizes that its memory depends on; None if config.json does not have them."""
        text = self.config.get("text_config")
        config: Mapping[str, Any] = text if isinstance(text, dict) and "hidden_size" in text else self.config
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            head = int(config.get("head_dim") or hidden // heads)
            return ModelShape(
                hidden=hidden,
                layers=int(config["num_hidden_layers"]),
                feed_forward=_feed_forward(config),
                queries=heads * head,
                keys=int(config.get("num_key_value_heads") or heads) * head,
                heads=heads,
                vocabulary=int(config["vocab_size"]),
                itemsize=self._itemsize(),
                weights_bytes=sum(
                    math.prod(tensor.shape) * BYTES_OF.get(tensor.dtype, 1) for tensor in self.tensors.values()
                ),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    def _itemsize(self) -> int:
        """Return the bytes of an activation's element: that of most weights, or of the scales of a quantized model."""
        elements: Counter[str] = Counter()
        for tensor in self.tensors.values():
            if tensor.dtype in _FLOATS:
                elements[tensor.dtype] += math.prod(tensor.shape)
        return BYTES_OF[elements.most_common(1)[0][0]] if elements else 2


def _feed_forward(config: Mapping[str, Any]) -> int:
    """Return the width of the feed-forward; with experts, of all that a token goes to."""
    width = config.get("moe_intermediate_size")
    if width:
        shared = int(config.get("shared_expert_intermediate_size") or 0)
        return int(width) * int(config.get("num_experts_per_tok") or 1) + shared
    return int(config["intermediate_size"]) * int(config.get("num_experts_per_tok") or 1)


def read(model: str) -> ModelFiles | None:
    """Return the files of a folder or of a hub model; None if they are not on this machine or cannot be read."""
    folder = folder_of(model)
    if folder is None:
        return None
    tensors: dict[str, Tensor] = {}
    try:
        for path in sorted(folder.glob("model*.safetensors")):
            tensors |= tensor_files.tensors_of(path)
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return ModelFiles(folder=folder, config=config, tensors=tensors) if isinstance(config, dict) else None
