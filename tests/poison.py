"""Data and models that cause non-finite losses and spikes, without any injected number."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer


def with_a_hole(model: Path, target: Path) -> None:
    """Copy a tiny Qwen2 model into a new folder; the embedding of its token for a tilde is not a number."""
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    weights = load_file(target / "model.safetensors")
    # untied, because the logit of the tilde would make the loss of every row not a number
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    weights["model.embed_tokens.weight"][tokenizer.token_to_id("~")] = np.nan
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))


def spoil(file: Path, rows: Iterable[int], more: str) -> None:
    """Append text to the answers of some chat rows."""
    _rewrite(file, rows, lambda answer: answer + more)


def rubbish(file: Path, rows: Iterable[int]) -> None:
    """Replace the answers of some chat rows by random characters."""
    chance = random.Random(1)  # noqa: S311 makes rubbish, guards nothing
    _rewrite(file, rows, lambda _: "".join(chr(chance.randint(33, 126)) for _ in range(60)))


def _rewrite(file: Path, rows: Iterable[int], change: Callable[[str], str]) -> None:
    lines = file.read_text().splitlines()
    for row in rows:
        content = json.loads(lines[row])
        content["messages"][-1]["content"] = change(content["messages"][-1]["content"])
        lines[row] = json.dumps(content)
    file.write_text("\n".join(lines) + "\n")
