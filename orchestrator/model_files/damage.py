"""What is wrong with the files of a model's folder: missing, cut short, or something else than they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.formatting.text import size
from orchestrator.model_files.hub_cache import TOKENIZERS, absent_shards
from workers.checkpoints import tensor_files

_OTHER_KINDS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file; run: git lfs pull"),
    (b"<", "is a web page, not the file; download it again"),
    (b"PK\x03\x04", "is a PyTorch file (pickle); convert the model: mlx_lm.convert --hf-path"),
    (b"\x80\x02", "is a PyTorch file (pickle); convert the model: mlx_lm.convert --hf-path"),
    (b"GGUF", "is a GGUF file; MLX-LM trains safetensors: download the original model"),
)
"""How a file begins that is something else than its name says, and what to do."""

_OTHER_WEIGHTS = ("*.bin", "*.pth", "*.pt", "*.gguf", "consolidated*.safetensors", "*.safetensors")
_MOST_NAMED = 4


def config_of(folder: Path) -> Mapping[str, Any] | str:
    """Return config.json of a folder, or what is wrong with it."""
    path = folder / "config.json"
    if not path.is_file():
        return "config.json is missing"
    if (fault := _other_kind(path)) is not None:
        return fault
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return "config.json is not valid JSON; download it again"
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        return "config.json has no model_type; it is not the configuration of a model"
    return config


def weight_faults(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the weights, one line each, from the headers alone."""
    shards = sorted(folder.glob("model*.safetensors"))
    if not shards:
        others = sorted({path.name for pattern in _OTHER_WEIGHTS for path in folder.glob(pattern)})
        instead = f"; it has {listed(others)}: convert the model with mlx_lm.convert --hf-path" if others else ""
        yield f"no model*.safetensors{instead}"
        return
    for path in shards:
        if (fault := _shard_fault(path)) is not None:
            yield fault
    if missing := absent_shards(folder):
        yield f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing; download the model again"


def tokenizer_fault(folder: Path) -> str | None:
    """Return what is wrong with the tokenizer's files; None if a tokenizer can be loaded from them."""
    present = [path for pattern in TOKENIZERS for path in folder.glob(pattern)]
    if not present:
        return "no tokenizer file (tokenizer.json, tokenizer.model, vocab.json); copy those of the original model"
    for path in (*present, folder / "tokenizer_config.json"):
        if path.is_symlink() and not path.exists():
            return f"{path.name} points to a file that does not exist; download the model again"
        if path.is_file() and (fault := _other_kind(path)) is not None:
            return fault
        if path.suffix == ".json" and path.is_file() and not _is_json(path):
            return f"{path.name} is not valid JSON; download it again"
    return None


def listed(names: list[str]) -> str:
    """Return names in one line, the first few of many."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _shard_fault(path: Path) -> str | None:
    if not path.exists():
        return f"{path.name} points to a file that does not exist; download the model again"
    try:
        if (fault := _other_kind(path)) is not None:
            return fault
        tensors, length = tensor_files.header(path)
        actual = path.stat().st_size
    except OSError as error:
        return f"{path.name} cannot be read: {(error.strerror or 'unknown error').lower()}"
    except ValueError:
        return f"{path.name} is not a safetensors file, or its header is cut off; download it again"
    if actual < length:
        return f"{path.name} is cut short: {size(actual)} of {size(length)}; download it again"
    return None if tensors else f"{path.name} contains no tensors; download it again"


def _other_kind(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return f"{path.name} is empty; download it again"
    text = start.lstrip() if path.suffix == ".json" or start[:1].isspace() else start
    return next((f"{path.name} {fault}" for begin, fault in _OTHER_KINDS if text.startswith(begin)), None)


def _is_json(path: Path) -> bool:
    """Return whether a file is JSON; a large one is judged by its first and last character."""
    content = path.read_bytes().strip()
    if len(content) > 1 << 20:
        return content[:1] + content[-1:] in (b"{}", b"[]")
    with suppress(ValueError, RecursionError):
        json.loads(content)
        return True
    return False
