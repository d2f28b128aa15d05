"""The cache of the Hugging Face hub: where it is, and which folder of it MLX-LM would load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def hub_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the hub's files, as huggingface_hub/constants.py finds it."""
    cache_home = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(environment.get("HF_HOME") or cache_home / "huggingface").expanduser()


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in which the hub keeps models."""
    named = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or hub_home(environment) / "hub").expanduser()


def is_offline(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether HF_HUB_OFFLINE forbids downloads."""
    return environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def repository(model: str) -> Path:
    """Return the folder that a model of the hub has in the cache, whether or not it exists."""
    return hub_cache() / f"models--{model.replace('/', '--')}"


def folder_of(model: str) -> Path | None:
    """Return the folder of a model: the named one, or the snapshot in the hub's cache that MLX-LM would load."""
    if Path(model).is_dir():
        return Path(model)
    snapshots = repository(model) / "snapshots"
    with suppress(OSError):
        main = snapshots / (repository(model) / "refs" / "main").read_text().strip()
        if main.is_dir():
            return main
    present = [folder for folder in snapshots.glob("*") if folder.is_dir()]
    return max(present, key=lambda folder: folder.stat().st_mtime, default=None)
