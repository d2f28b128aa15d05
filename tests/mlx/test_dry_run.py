"""The dry-run process by itself: its position, its stage, and what it measures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jobs.model.events import Kind
from jobs.model.run_plan import RunPlan
from jobs.policies.exits import DONE
from orchestrator.demo.tiny_model import FEED_FORWARD, HEADS, HIDDEN, LAYERS, build_data
from tests.harness import FIRST_EVER_S, Lq, Workshop
from tests.mlx.training import Training

pytestmark = pytest.mark.timeout(500, func_only=True)


def dry_run(training: Training, *, at: int) -> dict[str, Any]:
    """Do a dry run with an open stdin, as its parent does, and return what it measured."""
    command = [sys.executable, "-P", "-m", "workers.mlx.dry_run", str(training.job_dir.path), "--attempt", "1"]
    with (
        training.job_dir.log.open("a") as log,
        subprocess.Popen(
            [*command, "--at", str(at)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=training.job_dir.path,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        ) as child,
    ):
        try:
            assert child.wait(FIRST_EVER_S) == DONE, training.log_tail()
        finally:
            child.kill()
    [fact] = [event.data for event in training.events(Kind.FACT) if event.data["name"] == "dry_run"]
    return dict(fact["value"])


def trained(training: Training) -> int:
    return sum(len(report["losses"]) for report in training.reports())


def create(tmp_path: Path, workshop: Workshop, **keys: Any) -> Training:
    usual = {
        "model": str(workshop.model),
        "data": str(workshop.data),
        "num_layers": -1,
        "batch_size": 2,
        "iters": 120,
        "grad_accumulation_steps": 4,
        "learning_rate": 1e-3,
    }
    return Training.create(tmp_path / "job", usual | keys)


def test_whole_updates_are_timed(tmp_path: Path, workshop: Workshop) -> None:
    training = create(tmp_path, workshop)
    result = dry_run(training, at=0)
    assert result["updates"] >= 2
    assert trained(training) == 4 * result["updates"]
    assert result["first_update_s"] > 0
    assert result["update_s"] > 0
    assert result["not_finite"] == []
    assert abs(result["positions"] / result["mean_positions"] - 1) < 0.3
    assert result["validation_rows"] == 8
    assert result["validation_s"] > 0
    assert result["test_s"] is None
    assert result["checkpoint"]["bytes"] > 0
    assert training.newest.iteration == 4 * result["updates"]


@pytest.mark.slow
def test_position_selects_the_stage(tmp_path: Path, workshop: Workshop) -> None:
    training = create(tmp_path, workshop)
    first = RunPlan.requested(training.spec).stages[0]
    smaller = first.continued(
        120, because="out_of_memory", batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True
    )
    training.write_run_plan(RunPlan(stages=(first, smaller)))
    result = dry_run(training, at=60)
    assert result["iteration"] == 60
    assert training.only(Kind.STARTED)["stage"] == 1
    assert trained(training) == 4 * result["updates"], "a loss per iteration, of two micro-batches"
    assert training.reports()[-1]["iteration"] == 60 + 4 * result["updates"]


def test_test_set_is_timed_if_used(tmp_path: Path, workshop: Workshop) -> None:
    build_data(tmp_path / "data", train=20, valid=0, test=12)
    result = dry_run(create(tmp_path, workshop, data=str(tmp_path / "data"), test=True), at=0)
    assert result["test_s"] > 0
    assert (result["validation_s"], result["validation_rows"]) == (None, 0)


@pytest.mark.skipif(sys.platform == "darwin", reason="Metal has float16 experts")
def test_float16_experts_fail_the_check(tmp_path: Path, workshop: Workshop, lq: Lq) -> None:
    model = tmp_path / "experts"
    shutil.copytree(workshop.model, model)
    weights = load_file(model / "model.safetensors")
    for name in [name for name in weights if ".mlp." in name]:
        weights[name.replace(".mlp.", ".mlp.switch_mlp.")] = np.stack([weights.pop(name)] * 2)
    for layer in range(LAYERS):
        weights[f"model.layers.{layer}.mlp.gate.weight"] = np.zeros((2, HIDDEN), np.float32)
        for part in ("q_norm", "k_norm"):
            weights[f"model.layers.{layer}.self_attn.{part}.weight"] = np.ones(HIDDEN // HEADS, np.float32)
        for part in ("q_proj", "k_proj", "v_proj"):
            del weights[f"model.layers.{layer}.self_attn.{part}.bias"]
    halves = {name: value.astype(np.float16) for name, value in weights.items()}
    save_file(halves, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "decoder_sparse_step": 1, "mlp_only_layers": []}
    sizes = {"moe_intermediate_size": FEED_FORWARD, "head_dim": HIDDEN // HEADS, "norm_topk_prob": True}
    config |= experts | sizes | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config))
    file = tmp_path / "night.yaml"
    file.write_text(f"model: {model}\ndata: {workshop.data}\niters: 10\nbatch_size: 2\nnum_layers: -1\n")
    (job,) = json.loads(lq("check", file, "--json", expect=6, seconds=FIRST_EVER_S).out)["jobs"]
    (failure,) = job["failures"]
    assert failure["code"] == "config_invalid"
    assert "float32" in failure["text"]  # GatherMM of MLX's CPU backend
    assert (job["speed"], job["time"], job["ends_at"]) == (None, None, None)
