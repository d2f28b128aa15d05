"""A job as MLX-LM's flat configuration, which mlx_lm.lora stores with an adapter. No mlx."""

from __future__ import annotations

from typing import Any

from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec


def mlx_config(spec: JobSpec, stage: Stage) -> dict[str, Any]:
    """Return every MLX-LM key with its value in a stage: the content of `adapter_config.json`."""
    config = spec.model_dump(mode="json", exclude={"lq"})
    config |= {
        "batch_size": stage.batch_size,
        "grad_accumulation_steps": stage.grad_accumulation_steps,
        "grad_checkpoint": stage.grad_checkpoint,
        "max_seq_length": stage.max_seq_length,
    }
    if spec.fine_tune_type == "full":
        config["lora_parameters"] = None
    elif config["lora_parameters"]["keys"] is None:
        del config["lora_parameters"]["keys"]
    return config
