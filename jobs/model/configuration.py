"""The name of a configuration: what one run of it shows about memory and speed holds for the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.model.run_plan import Stage

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

KEYS = ("model", "data", "fine_tune_type", "num_layers", "lora_parameters", "optimizer")
"""Keys of a job file that `key_of` uses, besides those of the stage."""


def key_of(spec: Mapping[str, Any], stage: Stage) -> str:
    """Return the name of a configuration, from a spec as the store keeps it."""
    rank = spec["lora_parameters"]["rank"] if spec["fine_tune_type"] != "full" else None
    names = (spec["model"], spec["data"], spec["fine_tune_type"], spec["num_layers"], rank, spec["optimizer"])
    objective = spec.get("lq", {}).get("objective", {}).get("name", "sft")
    other = [objective] if objective != "sft" else []
    return json.dumps([*names, stage.batch_size, stage.max_seq_length, stage.grad_checkpoint, *other])


def fit_key(spec: JobSpec, stage: Stage) -> str:
    """Return the name of a configuration, from a parsed spec."""
    return key_of(spec.model_dump(include={**dict.fromkeys(KEYS, True), "lq": {"objective"}}), stage)


def requested_stage(spec: Mapping[str, Any]) -> Stage:
    """Return the settings of a spec, as the store keeps it, that `key_of` uses: the light form of RunPlan.requested."""
    names = ("batch_size", "grad_accumulation_steps", "grad_checkpoint", "max_seq_length")
    return Stage(first_example=0, **{name: spec[name] for name in names})
