"""A small random Qwen2, for which the overhead of lq is relatively large, and rows of known lengths."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx
import yaml
from mlx_lm.models import qwen2

from orchestrator.demo.tiny_model import build_model

HIDDEN, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 128
BATCH = 4
EPOCH_ROWS = 422
EQUAL_ROWS, EQUAL_TOKENS = 200, 64
MU, SIGMA, SHORTEST, LONGEST = 4.2, 0.7, 16, 600
"""Log-normal lengths, typical of chat data."""

LARGE_RANK = 4000
"""With this rank, the adapter of the model has a little more than 30 MB."""

_LETTERS = "jqvxzJQVXZ"
TURNS = 17
"""Tokens that the template of the tiny model adds to a question and an answer."""
"""Letters that do not occur in the text of the tokenizer, so that each is one token."""


def model(folder: Path) -> Path:
    """Write the model; return its folder."""
    build_model(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FEED_FORWARD,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
    }
    path.write_text(json.dumps(config))
    mx.random.seed(0)
    qwen2.Model(qwen2.ModelArgs.from_dict(config)).save_weights(str(folder / "model.safetensors"))
    return folder


def equal_rows(folder: Path) -> Path:
    """Write rows of equal length; return their folder."""
    return rows_of_lengths(folder, [EQUAL_TOKENS] * EQUAL_ROWS)


def log_normal_rows(folder: Path) -> Path:
    """Write rows of log-normal lengths; return their folder."""
    generator = random.Random(0)  # noqa: S311 the same lengths every time
    drawn = (round(generator.lognormvariate(MU, SIGMA)) for _ in range(EPOCH_ROWS))
    return rows_of_lengths(folder, [min(max(length, SHORTEST), LONGEST) for length in drawn])


def rows_of_lengths(folder: Path, lengths: Iterable[int]) -> Path:
    """Write rows with these numbers of tokens; return their folder."""
    folder.mkdir(parents=True)
    generator = random.Random(1)  # noqa: S311 the same rows every time
    rows = ["".join(generator.choices(_LETTERS, k=length - 1)) for length in lengths]  # plus the end token
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return folder


def pairs_of_lengths(folder: Path, lengths: Iterable[int]) -> Path:
    """Write preference rows whose two sequences have these numbers of tokens; return their folder."""
    folder.mkdir(parents=True)
    generator = random.Random(1)  # noqa: S311 the same rows every time

    def text(length: int) -> str:
        return "".join(generator.choices(_LETTERS, k=length))

    rows = [(length // 4, length - TURNS - length // 4) for length in lengths]
    pairs = [{"prompt": text(one), "chosen": text(other), "rejected": text(other)} for one, other in rows]
    (folder / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def job_file(path: Path, model: Path, data: Path, **changes: Any) -> Path:
    """Write a job file for lq and `mlx_lm.lora -c`; return its path."""
    keys = {
        "model": str(model),
        "train": True,
        "data": str(data),
        "batch_size": BATCH,
        "num_layers": -1,
        "learning_rate": 1e-5,
        "max_seq_length": 1024,
    }
    path.write_text(yaml.safe_dump(keys | changes))
    return path
