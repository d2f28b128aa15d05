"""The presets against MLX-LM itself: its keys, its optimizers and schedules; and each of them trains, made small."""

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
from tests.mlx.conftest import Build

ITERATIONS, ACCUMULATION = 16, 2

QUICK = ("small", "qlora")
LONG = (pytest.mark.slow, pytest.mark.longest)
"""Trained in the quick run; the others in the slow one."""


def written(name: str) -> dict[str, Any]:
    """Return what stands in a preset, as MLX-LM would read it."""
    content: dict[str, Any] = yaml.safe_load(preset(name).text)
    return content


def spec_of(name: str, folder: Path) -> JobSpec:
    """Load a preset as `lq submit` does; the matrix of the sweep is another test's."""
    path = folder / f"{name}.yaml"
    path.write_text(preset(name).text.partition("  matrix:")[0])
    return load_jobs(path)[0].spec


@pytest.mark.parametrize("name", [one.name for one in presets()])
def test_every_key_of_a_preset_is_one_of_mlx_lms(name: str) -> None:
    unknown = set(written(name)) - set(CONFIG_DEFAULTS) - {"lq"}
    assert unknown == set()
    assert set(written(name).get("lora_parameters", {})) <= {"rank", "scale", "dropout", "keys"}


@pytest.mark.parametrize("name", [one.name for one in presets()])
def test_mlx_builds_the_optimizer_and_the_schedule_of_a_preset(name: str, tmp_path: Path) -> None:
    spec = spec_of(name, tmp_path)
    rate: Any = spec.learning_rate
    if spec.lr_schedule is not None:
        rate = build_schedule(spec.lr_schedule.model_dump())
        updates = spec.iters // spec.grad_accumulation_steps
        peak, last = spec.lr_schedule.arguments[0], spec.lr_schedule.arguments[2]
        assert rate(mx.array(0)).item() < 0.05 * peak, "it warms up"
        assert max(rate(mx.array(step)).item() for step in range(updates)) == pytest.approx(peak, rel=1e-3)
        assert rate(mx.array(updates)).item() == pytest.approx(last, rel=0.05), "it ends where it should"
    assert spec.optimizer == "adamw"
    mlx.optimizers.AdamW(learning_rate=rate, **spec.optimizer_config.get("adamw", {}))


def scaled(name: str, folder: Path, model: str) -> dict[str, Any]:
    """Return a preset for the tiny model: fewer iterations of shorter rows; all that it is about stays."""
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


def quantised(model: Path, folder: Path) -> Path:
    """Return the tiny model in 4 bits, as the hub has the large ones."""
    mlx_lm.convert(str(model), mlx_path=str(folder), quantize=True, q_bits=4, q_group_size=32)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(one.name, marks=() if one.name in QUICK else LONG) for one in presets()],
)
def test_a_preset_trains_when_it_is_made_small(name: str, build: Build, model: Path, tmp_path: Path) -> None:
    place = quantised(model, tmp_path / "4bit") if name == "qlora" else model
    training = build(**scaled(name, tmp_path, str(place))).finish()
    assert training.said(Kind.ENDED)["iteration"] == ITERATIONS
    assert len(training.losses()) == ITERATIONS
    loaded: Any = mx.load(str(training.newest.path / "adapters.safetensors"))
    trained = [str(key) for key in loaded]
    kind = spec_of(name, tmp_path).fine_tune_type
    assert any("lora_a" in key for key in trained) == (kind != "full")
    assert any(key.endswith(".m") for key in trained) == (kind == "dora")
