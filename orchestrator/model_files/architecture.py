"""The architectures of the installed MLX-LM, read from its source files: importing it would load mlx."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OWN_NAME = re.compile(r"self\.(\w+)")
_SIBLING = re.compile(r"^from \.(\w*) import ([\w, ]+)", re.MULTILINE)


def architecture_fault(config: Mapping[str, Any], *, trust_remote_code: bool) -> str | None:
    """Return why MLX-LM has no architecture for a model; None if it has one, or if MLX-LM is not installed."""
    if config.get("model_file") is not None:
        return None if trust_remote_code else "the model brings its own code; set trust_remote_code: true to run it"
    models = _models()
    if models is None or _source(config) is not None:
        return None
    known = sorted(path.stem for path in models.glob("*.py") if _is_architecture(path))
    near = difflib.get_close_matches(config["model_type"], known, n=3)
    similar = f"; it has {', '.join(near)}" if near else ""
    version = importlib.metadata.version("mlx-lm")
    return f"model_type {config['model_type']!r} is unknown to MLX-LM {version}{similar}; update mlx-lm"


def attribute_names(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of all parts that the modules of an architecture have; empty if it is unknown."""
    source = _source(config)
    if source is None:
        return frozenset()
    seen, waiting = set[Path](), [source, source.with_name("switch_layers.py")]
    names: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen and path.is_file():
            seen.add(path)
            text = path.read_text()
            names |= set(_OWN_NAME.findall(text))
            for module, imported in _SIBLING.findall(text):
                parts = [module] if module else [name.strip() for name in imported.split(",")]
                waiting += [path.with_name(f"{part}.py") for part in parts]
    return frozenset(names)


def _source(config: Mapping[str, Any]) -> Path | None:
    """Return the source of a model's architecture, found as mlx_lm.utils._get_classes does."""
    models, model_type = _models(), config.get("model_type")
    if models is None or not isinstance(model_type, str) or not model_type.isidentifier():
        return None
    by_type, by_architecture = _remappings()
    architectures = config.get("architectures") or ()
    for architecture in [architectures] if isinstance(architectures, str) else architectures:
        if (model_type, architecture) in by_architecture:
            model_type = by_architecture[model_type, architecture]
            break
    else:
        model_type = by_type.get(model_type, model_type)
    path = models / f"{model_type}.py"
    return path if path.is_file() and _is_architecture(path) else None


def _is_architecture(path: Path) -> bool:
    text = path.read_text()
    return "class Model(" in text and "ModelArgs" in text


@functools.cache
def _models() -> Path | None:
    found = importlib.util.find_spec("mlx_lm")
    return Path(found.origin).with_name("models") if found is not None and found.origin is not None else None


@functools.cache
def _remappings() -> tuple[Mapping[str, str], Mapping[tuple[str, str], str]]:
    """Return MODEL_REMAPPING and MODEL_ARCHITECTURE_REMAPPING of mlx_lm/utils.py; empty if it has none."""
    models, found = _models(), dict[str, Any]()
    text = (models.parent / "utils.py").read_text() if models is not None else ""
    for name in ("MODEL_REMAPPING", "MODEL_ARCHITECTURE_REMAPPING"):
        match = re.search(rf"^{name}(?:: [^=]+)? = (\{{.*?^\}})", text, re.MULTILINE | re.DOTALL)
        found[name] = ast.literal_eval(match[1]) if match is not None else {}
    return found["MODEL_REMAPPING"], found["MODEL_ARCHITECTURE_REMAPPING"]
