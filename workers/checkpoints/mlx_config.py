"""A job in MLX-LM's own words: the flat configuration that mlx_lm.lora keeps beside an adapter. No mlx."""

from __future__ import annotations

from typing import Any

from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec


def mlx_config(spec: JobSpec, stage: Stage) -> dict[str, Any]:
    """Return every MLX-LM key with the value this stage runs under; `adapter_config.json` holds exactly this.

    Args:
        spec: what was asked for.
        stage: what it runs under.
    """
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
