"""The model and the data that every test here trains: a tiny Qwen2 whose chat template shows tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.tiny_model import build_model
from tests.mlx import rows
from tests.mlx.training import Training

Build = Callable[..., Training]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model's folder."""
    folder = tmp_path_factory.mktemp("model")
    build_model(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% if tools %}{{ tools | tojson }}\n{% endif %}" + settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of chat rows."""
    return rows.write(tmp_path_factory.mktemp("data") / "chat", rows.chat)


@pytest.fixture(scope="session")
def basics(model: Path, data: Path) -> dict[str, Any]:
    """Return a configuration that trains in a second."""
    return {
        "model": str(model),
        "data": str(data),
        "iters": 12,
        "batch_size": 2,
        "num_layers": -1,
        "learning_rate": 1e-3,
        "steps_per_report": 2,
        "steps_per_eval": 6,
        "save_every": 6,
        "lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.05},
    }


@pytest.fixture
def build(tmp_path: Path, basics: dict[str, Any]) -> Build:
    """Return a function that creates a job with some settings changed."""

    def built(name: str = "job", **changes: Any) -> Training:
        return Training.create(tmp_path / name, basics | changes)

    return built
