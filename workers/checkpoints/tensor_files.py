"""Reads the headers of safetensors files: names, types and shapes of tensors, length of the file. Reads no weights.

The format: 8 bytes with the header's length, the header as JSON with the data_offsets of each tensor, the data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

LONGEST_HEADER = 100 << 20
"""Bytes; the limit of the format."""

BYTES_OF = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes of an element by type; 1 for all other types."""


class Tensor(NamedTuple):
    """The type and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a file's header without its metadata, and the length that the file must have, in bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a safetensors file, or its header is cut off.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError(f"{path.name} is not a safetensors file")
        content = json.loads(file.read(length))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a safetensors file")
    tensors = {name: entry for name, entry in content.items() if name != "__metadata__"}
    try:
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path.name} is not a safetensors file") from error
    return tensors, 8 + length + end


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; raises the errors of `header`."""
    entries, _ = header(path)
    try:
        return {name: Tensor(str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in entries.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not a safetensors file") from error
