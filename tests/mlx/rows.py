"""Rows in each of MLX-LM's formats, of different lengths."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


def _exercise(chance: random.Random) -> tuple[str, str]:
    a, b = chance.randint(1, 60), chance.randint(1, 60)
    return f"What is {a} plus {b}?", " ".join([f"{a} plus {b} is {a + b}."] * chance.randint(1, 3))


def chat(chance: random.Random) -> Row:
    """A row of messages."""
    question, answer = _exercise(chance)
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def completions(chance: random.Random) -> Row:
    """A row of prompt and completion."""
    question, answer = _exercise(chance)
    return {"prompt": question, "completion": answer}


def text(chance: random.Random) -> Row:
    """A row of plain text."""
    return {"text": " ".join(_exercise(chance))}


def tools(chance: random.Random) -> Row:
    """A row of messages with the tools that may be called."""
    return chat(chance) | {"tools": _TOOLS}


def preference(chance: random.Random) -> Row:
    """A row with a right answer and a wrong one that takes more words."""
    question, answer = _exercise(chance)
    return {"prompt": question, "chosen": answer, "rejected": f"I would say {chance.randint(1, 99)}, or so."}


def conversation(chance: random.Random) -> Row:
    """A row of two whole conversations with the same beginning."""
    row = preference(chance)
    start = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
    start.append({"role": "user", "content": row["prompt"]})
    return {key: [*start, {"role": "assistant", "content": row[key]}] for key in ("chosen", "rejected")}


def labelled(chance: random.Random) -> Row:
    """A row with an answer and whether it is desirable."""
    row, good = preference(chance), chance.random() < 0.6
    return {"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good}


def write(
    folder: Path, make: Callable[[random.Random], Row], *, train: int = 22, valid: int = 6, test: int = 0, seed: int = 0
) -> Path:
    """Write a data folder and return it; a set of 0 rows has no file."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)  # noqa: S311 makes exercises, guards nothing
    for name, rows in (("train", train), ("valid", valid), ("test", test)):
        if rows:
            lines = [json.dumps(make(chance)) for _ in range(rows)]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
