"""Token counts without a model, compared with MLX-LM's own data sets and tokenizer."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, cast

from mlx_lm.tuner.datasets import load_dataset
from mlx_lm.utils import load_tokenizer

from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from orchestrator.demo.tiny_model import build_data, build_model
from workers.checkpoints.mlx_config import mlx_config
from workers.data.token_lengths import lengths_of


def test_counts_equal_those_of_mlx_lm(tmp_path: Path) -> None:
    model, data = tmp_path / "model", tmp_path / "data"
    build_model(model)
    build_data(data, train=40)
    tokenizer: Any = load_tokenizer(model)
    # transformers 5 replaces the pre-tokenizer of a Qwen2 model; a real Qwen2 has the same one in its file
    tokenizer._tokenizer.backend_tokenizer.save(str(model / "tokenizer.json"))
    spec = JobSpec(model=str(model), data=str(data))
    config = types.SimpleNamespace(**mlx_config(spec, RunPlan.requested(spec).stages[0]))
    rows = cast("Any", load_dataset)(config, tokenizer)[0]
    expected = tuple(len(rows.process(rows[place])[0]) for place in range(len(rows)))

    lengths = lengths_of(data / "train.jsonl", model, spec, cache=None)

    assert lengths.how == "tokenizer"
    assert lengths.tokens == expected
