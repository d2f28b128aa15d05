"""The tables of optimizers and schedules agree with the installed MLX, read as text."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from configs.optimizers import OPTIMIZERS, SCHEDULES

_CLASSES = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon", "sgd": "SGD", "adafactor": "Adafactor"}


def source(name: str) -> ast.Module:
    package = importlib.util.find_spec("mlx")
    assert package is not None and package.submodule_search_locations is not None
    paths = [Path(folder) / "optimizers" / name for folder in package.submodule_search_locations]
    return ast.parse(next(path for path in paths if path.exists()).read_text())


def test_optimizer_table_matches_mlx() -> None:
    classes = {node.name: node for node in source("optimizers.py").body if isinstance(node, ast.ClassDef)}
    for name, arguments in OPTIMIZERS.items():
        functions = [node for node in classes[_CLASSES[name]].body if isinstance(node, ast.FunctionDef)]
        init = next(node for node in functions if node.name == "__init__")
        assert {arg.arg for arg in init.args.args} - {"self", "learning_rate"} == set(arguments), name


def test_schedule_table_matches_mlx() -> None:
    schedules = {}
    for node in source("schedulers.py").body:
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args]
            first_optional = len(names) - len(node.args.defaults)
            schedules[node.name] = tuple(f"[{n}]" if i >= first_optional else n for i, n in enumerate(names))
    del schedules["join_schedules"]
    assert schedules == SCHEDULES
