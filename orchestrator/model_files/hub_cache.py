"""The cache of the Hugging Face hub: its path, and the folder that MLX-LM would load."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

TOKENIZERS = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*", "tokenizer*.py", "tokenization*.py")
"""A tokenizer can be loaded from any of these files."""

_NUMBERED = re.compile(r"^(model.*)-(\d+)-of-(\d+)\.safetensors$")


def hub_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the hub's files, as huggingface_hub/constants.py finds it."""
    cache_home = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(environment.get("HF_HOME") or cache_home / "huggingface").expanduser()


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the cached models."""
    named = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or hub_home(environment) / "hub").expanduser()


def is_offline(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether HF_HUB_OFFLINE forbids downloads."""
    return environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def repository(model: str) -> Path:
    """Return the folder that a model of the hub has in the cache, whether or not it exists."""
    return hub_cache() / f"models--{model.replace('/', '--')}"


def folder_of(model: str) -> Path | None:
    """Return the folder of a model: the named one, or a whole snapshot in the hub's cache; None if there is none."""
    if Path(model).is_dir():
        return Path(model)
    snapshot = snapshot_of(model)
    return snapshot if snapshot is not None and _is_whole(snapshot) else None


def snapshot_of(model: str) -> Path | None:
    """Return the snapshot in the hub's cache that MLX-LM would load, even if files are missing; None without one."""
    snapshots = repository(model) / "snapshots"
    with suppress(OSError):
        main = snapshots / (repository(model) / "refs" / "main").read_text().strip()
        if main.is_dir():
            return main
    present = [folder for folder in snapshots.glob("*") if folder.is_dir()]
    return max(present, key=lambda folder: folder.stat().st_mtime, default=None)


def absent_shards(folder: Path) -> list[str]:
    """Return the shards that the index names, or that the numbers of the present ones imply, and that are not there."""
    present, required = [path.name for path in folder.glob("model*.safetensors")], set[str]()
    for index in folder.glob("model*.index.json"):
        with suppress(OSError, ValueError, AttributeError):
            required |= {str(name) for name in json.loads(index.read_bytes()).get("weight_map", {}).values()}
    for start, number, last in (match.groups() for name in present if (match := _NUMBERED.match(name))):
        required |= {f"{start}-{each:0{len(number)}d}-of-{last}.safetensors" for each in range(1, int(last) + 1)}
    return sorted(required - set(present))


def _is_whole(snapshot: Path) -> bool:
    """Return whether a snapshot has what MLX-LM loads; the next download adds what is missing."""
    dangling = any(path.is_symlink() and not path.exists() for path in snapshot.iterdir())
    needed = (("config.json",), ("model*.safetensors",), TOKENIZERS)
    present = all(any(any(snapshot.glob(pattern)) for pattern in patterns) for patterns in needed)
    return present and not dangling and not absent_shards(snapshot)
