"""A folder with a model of four layers and a data folder, for job files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROWS = [{"prompt": f"Q{number}", "completion": f"A{number}"} for number in range(8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "qwen2", "num_hidden_layers": 4}))
    (model / "model.safetensors").write_bytes(b"")
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.jsonl", ROWS)
    write_rows(data / "valid.jsonl", ROWS[:2])
    return tmp_path


def write_rows(path: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
