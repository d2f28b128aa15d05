"""Trees of MLX arrays: their names, their places, and the safetensors files that hold them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from jobs.model.errors import ConfigInvalid, message_of

Arrays = dict[str, mx.array]
"""Arrays by dotted name, as safetensors files hold them."""

ArrayPlace = tuple[Any, Any]
"""A dictionary or list, and the key of an array in it."""


def named(tree: Any) -> Arrays:
    """Return the arrays of a tree by name."""
    return dict(cast("list[tuple[str, mx.array]]", tree_flatten(tree)))


def shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array."""
    return {name: tuple(value.shape) for name, value in arrays.items()}


def all_finite(arrays: Arrays) -> bool:
    """Return whether every number of every array is finite."""
    return bool(mx.stack([mx.isfinite(value).all() for value in arrays.values()]).all().item())


def places(tree: Any) -> Iterator[ArrayPlace]:
    """Yield the place of every array in nested dictionaries and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, mx.array):
            yield tree, key
        elif isinstance(value, dict | list):
            yield from places(value)


def copied(tree: Any) -> Any:
    """Return the same arrays in new containers."""
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def replace(tree: Any, arrays: Arrays, prefix: str = "") -> None:
    """Replace arrays of a tree by name and in place: MLX-LM's train() captures the very containers."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        name = f"{prefix}{key}"
        if isinstance(value, dict | list):
            replace(value, arrays, f"{name}.")
        elif name in arrays:
            tree[key] = arrays[name]


def save(path: Path, arrays: Arrays) -> None:
    """Write a safetensors file, or raise OSError with ENOSPC: MLX gives no reason, and the usual one is a full disk."""
    try:
        mx.save_safetensors(str(path), arrays)
    except RuntimeError as error:
        if not str(error).startswith(("[write] Unable to write", "[save_safetensors] Failed to open")):
            raise  # the arrays are computed here, so the error may come from the GPU
        raise OSError(errno.ENOSPC, f"the disk took no more ({message_of(error)})", str(path)) from error


def load(path: Path, expected: Arrays) -> Arrays:
    """Load the arrays of a file; ConfigInvalid if their names and shapes are not exactly the expected ones."""
    loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    if shapes(expected) != shapes(loaded):
        raise ConfigInvalid(f"{path} does not fit this model and this optimizer; start over with: lq submit")
    return loaded
