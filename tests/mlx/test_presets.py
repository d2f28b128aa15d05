"""The presets compared with MLX-LM: its keys, optimizers and schedules. Each preset trains when scaled down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers
import mlx_lm
import pytest
import yaml
from mlx_lm.lora import CONFIG_DEFAULTS
from mlx_lm.tuner.utils import build_schedule

from configs.load import load_jobs
from configs.preset_files import preset, presets
from jobs.model.events import Kind
from jobs.model.spec import JobSpec
from tests.mlx import rows
from tests.mlx.conftest import Build

ITERATIONS, ACCUMULATION = 16, 2

QUICK = ("small", "qlora")
LONG = (pytest.mark.slow, pytest.mark.longest)
"""Presets of the quick run; the slow run trains the others."""


def written(name: str) -> dict[str, Any]:
    """Return the contents of a preset, as MLX-LM reads them."""
    content: dict[str, Any] = yaml.safe_load(preset(name).text)
    return content


def spec_of(name: str, folder: Path) -> JobSpec:
    """Load a preset as `lq submit` does, without the matrix of the sweep."""
    (folder / "data").mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(preset(name).text.partition("  matrix:")[0])
    return load_jobs(path)[0].spec


@pytest.mark.parametrize("name", [each.name for each in presets()])
def test_mlx_lm_has_every_preset_key(name: str) -> None:
    unknown = set(written(name)) - set(CONFIG_DEFAULTS) - {"lq"}
    assert unknown == set()
    assert set(written(name).get("lora_parameters", {})) <= {"rank", "scale", "dropout", "keys"}


@pytest.mark.parametrize("name", [each.name for each in presets()])
def test_mlx_builds_preset_schedules(name: str, tmp_path: Path) -> None:
    spec = spec_of(name, tmp_path)
    rate: Any = spec.learning_rate
    if spec.lr_schedule is not None:
        rate = build_schedule(spec.lr_schedule.model_dump())
        updates = spec.iters // spec.grad_accumulation_steps
        peak, last = spec.lr_schedule.arguments[0], spec.lr_schedule.arguments[2]
        assert rate(mx.array(0)).item() < 0.05 * peak, "the schedule warms up"
        assert max(rate(mx.array(step)).item() for step in range(updates)) == pytest.approx(peak, rel=1e-3)
        assert rate(mx.array(updates)).item() == pytest.approx(last, rel=0.05), "the schedule ends at its last rate"
    assert spec.optimizer == "adamw"
    mlx.optimizers.AdamW(learning_rate=rate, **spec.optimizer_config.get("adamw", {}))


def scaled(name: str, folder: Path, model: str) -> dict[str, Any]:
    """Return a preset for the tiny model: fewer iterations of shorter rows."""
    config = spec_of(name, folder).model_dump(mode="json")
    del config["data"]  # the tiny one's
    config |= {
        "model": model,
        "iters": ITERATIONS,
        "grad_accumulation_steps": min(config["grad_accumulation_steps"], ACCUMULATION),
        "num_layers": -1,
        "max_seq_length": 128,
        "steps_per_report": 2,
        "steps_per_eval": 4,
        "save_every": 8,
        "test": False,
    }
    config["lq"] |= {"early_stop": None, "prompts": []}
    return {key: value for key, value in config.items() if value is not None}


def quantized(model: Path, folder: Path) -> Path:
    """Return the tiny model in 4 bits, like large models on the hub."""
    mlx_lm.convert(str(model), mlx_path=str(folder), quantize=True, q_bits=4, q_group_size=32)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(each.name, marks=() if each.name in QUICK else LONG) for each in presets()],
)
def test_scaled_preset_trains(name: str, build: Build, model: Path, tmp_path: Path) -> None:
    folder = quantized(model, tmp_path / "4bit") if name == "qlora" else model
    data = {"data": str(rows.write(tmp_path / "pairs", rows.preference))} if name == "dpo" else {}
    training = build(**scaled(name, tmp_path, str(folder)) | data).finish()
    assert training.only(Kind.ENDED)["iteration"] == ITERATIONS
    assert len(training.losses()) == ITERATIONS
    loaded: Any = mx.load(str(training.newest.path / "adapters.safetensors"))
    trained = [str(key) for key in loaded]
    kind = spec_of(name, tmp_path).fine_tune_type
    assert any("lora_a" in key for key in trained) == (kind != "full")
    assert any(key.endswith(".m") for key in trained) == (kind == "dora")
