"""Real trainings with measured peak memory, for the figure `memory_plan`: a model, rows and one trainer each.

The models are random and small, but their vocabularies give the logits the same share of the memory as in real models.
All rows have the same length, so that the longest batch is known.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from configs.load import dump_job
from jobs.model import run_plan
from jobs.model.events import Kind
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from orchestrator.demo.tiny_model import build_model
from tests.benchmarks.material import pairs_of_lengths, rows_of_lengths
from workers.events import log as event_log

ROWS = 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A model for trials."""

    hidden: int
    layers: int
    feed_forward: int
    heads: int
    key_value_heads: int
    vocabulary: int
    kind: str = "qwen2"  # of mlx_lm.models
    dtype: str = "float32"
    bits: int | None = None  # of quantized weights

    @property
    def name(self) -> str:
        """The name in the table."""
        bits = f" {self.bits} bit" if self.bits else ""
        short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[self.dtype]
        return f"{self.kind} {self.hidden}x{self.layers} vocabulary {self.vocabulary // 1024}k {short}{bits}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration to train."""

    shape: Shape
    length: int  # tokens of each row
    keys: Mapping[str, Any]  # of the job file
    tuned: bool  # the formula was tuned on it; otherwise it only tests

    @property
    def name(self) -> str:
        """The name in the table."""
        keys = self.keys
        what = str(keys.get("fine_tune_type", "lora"))
        rank = f" r{keys.get('lora_parameters', {}).get('rank', 8)}" if what != "full" else ""
        layers = "" if keys.get("num_layers", -1) == -1 else f", {keys['num_layers']} layers"
        more = ", checkpointing" if keys.get("grad_checkpoint") else ""
        optimizer = f", {keys['optimizer']}" if "optimizer" in keys else ""
        objective = keys.get("lq", {}).get("objective")
        what = f"{objective}, {what}" if objective else what
        return f"{what}{rank}{layers}{optimizer}, {keys.get('batch_size', 4)} x {self.length}{more}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peak:
    """The peak memory of a trainer."""

    device: int  # bytes, mx.get_peak_memory
    process: int  # bytes, the process's largest resident set


def job_of(trial: Trial, folder: Path) -> JobSpec:
    """Return the job of a trial; build its model and rows if they do not exist."""
    model = folder / f"model-{abs(hash(trial.shape))}"
    if not (model / "model.safetensors").exists():
        _build(model, trial.shape)
    pairs = "objective" in trial.keys.get("lq", {})
    data = folder / f"{'pairs' if pairs else 'rows'}-{trial.length}"
    if not data.exists():
        (pairs_of_lengths if pairs else rows_of_lengths)(data, [trial.length] * ROWS)
    keys: dict[str, Any] = {
        "model": str(model),
        "data": str(data),
        "iters": 2,
        "num_layers": -1,
        "steps_per_report": 1,
        "save_every": 1000,
        "val_batches": 0,
    }
    return JobSpec.model_validate(keys | dict(trial.keys))


def measure(trial: Trial, folder: Path) -> Peak:
    """Train a few iterations in a new trainer process; `folder` gets models, rows and the files of the job."""
    spec = job_of(trial, folder)
    job = folder / f"job-{len(list(folder.glob('job-*')))}"
    job.mkdir()
    files = JobDir(job)
    files.config.write_text(dump_job(spec))
    files.run_plan.write_text(json.dumps(run_plan.to_json(RunPlan.requested(spec))))
    with files.log.open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.mlx.train", str(job), "--attempt", "1"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=job,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    try:
        _, status, usage = os.wait4(child.pid, 0)  # returns the largest resident set of this process
    except BaseException:
        child.kill()
        child.wait()
        raise
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{trial.name}: the trainer ended with {child.returncode}\n{files.log.read_text()[-2000:]}")
    events = event_log.read(files.events, 0).events
    peaks = [event.data["memory"]["peak"] for event in events if event.kind is Kind.PROGRESS]
    return Peak(device=max(peaks), process=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _build(folder: Path, shape: Shape) -> None:
    build_model(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {
        "model_type": shape.kind,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.feed_forward,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
    }
    module: Any = importlib.import_module(f"mlx_lm.models.{shape.kind}")
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(config))
    model.update(tree_map(lambda array: array.astype(getattr(mx, shape.dtype)), model.parameters()))
    if shape.bits is not None:
        from mlx_lm.utils import quantize_model

        model, config = quantize_model(model, config, group_size=64, bits=shape.bits)
    path.write_text(json.dumps(config))
    model.save_weights(str(folder / "model.safetensors"))


_SMALL = Shape(hidden=256, layers=8, feed_forward=768, heads=4, key_value_heads=2, vocabulary=2048, kind="qwen3")
_WORDY = Shape(hidden=256, layers=4, feed_forward=768, heads=8, key_value_heads=4, vocabulary=8192)
_HALF = Shape(hidden=512, layers=4, feed_forward=1536, heads=8, key_value_heads=2, vocabulary=8192, dtype="bfloat16")
_FOUR_BIT = Shape(
    hidden=256,
    layers=6,
    feed_forward=768,
    heads=4,
    key_value_heads=2,
    vocabulary=16384,
    dtype="bfloat16",
    bits=4,
)
_LLAMA = Shape(hidden=384, layers=6, feed_forward=1024, heads=6, key_value_heads=6, vocabulary=8192, kind="llama")
_LARGE_VOCABULARY = Shape(
    hidden=256, layers=6, feed_forward=1024, heads=4, key_value_heads=1, vocabulary=32768, dtype="float16"
)
_HALF_QWEN3 = Shape(
    hidden=384,
    layers=6,
    feed_forward=1152,
    heads=6,
    key_value_heads=2,
    vocabulary=16384,
    kind="qwen3",
    dtype="bfloat16",
)


def _tuned(shape: Shape, length: int, **keys: Any) -> Trial:
    return Trial(shape=shape, length=length, keys=keys, tuned=True)


def _test(shape: Shape, length: int, **keys: Any) -> Trial:
    return Trial(shape=shape, length=length, keys=keys, tuned=False)


_DPO: dict[str, Any] = {"lq": {"objective": "dpo"}}

TRIALS = (
    _tuned(_SMALL, 128),
    _tuned(_SMALL, 128, fine_tune_type="full"),
    _tuned(_WORDY, 128, grad_checkpoint=True),
    _tuned(_HALF, 128, batch_size=2, fine_tune_type="dora"),
    _tuned(_FOUR_BIT, 128, batch_size=2),
    _tuned(_SMALL, 128, **_DPO),
    _tuned(_HALF, 128, batch_size=2, **_DPO),
    _test(_LLAMA, 100, batch_size=2, **_DPO),
    _test(_LLAMA, 160, batch_size=1, fine_tune_type="dora", **_DPO),
    _test(_LARGE_VOCABULARY, 64, batch_size=2, **_DPO),
    _test(_LARGE_VOCABULARY, 64, batch_size=2, grad_checkpoint=True, **_DPO),
    _test(_HALF_QWEN3, 90, batch_size=2, fine_tune_type="full", **_DPO),
    _test(_HALF_QWEN3, 90, batch_size=2, lq={"objective": "orpo"}),
    _test(_LLAMA, 100, batch_size=2, lq={"objective": "kto"}),
    _test(_LLAMA, 100),
    _test(_LLAMA, 320, batch_size=1, lora_parameters={"rank": 32}),
    _test(_LLAMA, 100, fine_tune_type="full", num_layers=3, optimizer="adamw"),
    _test(_LLAMA, 100, fine_tune_type="dora", batch_size=2),
    _test(_LARGE_VOCABULARY, 64, batch_size=4),
    _test(_LARGE_VOCABULARY, 64, batch_size=4, grad_checkpoint=True),
    _test(_LARGE_VOCABULARY, 160, batch_size=1, fine_tune_type="full", optimizer="adafactor"),
    _test(_HALF_QWEN3, 200, batch_size=2, num_layers=2),
    _test(_HALF_QWEN3, 90, batch_size=4, grad_checkpoint=True, lora_parameters={"rank": 64}),
    _test(_HALF_QWEN3, 250, batch_size=1, lora_parameters={"rank": 8, "dropout": 0.05}),
)
"""The formula was tuned on the first ones and similar ones; the others test it."""
