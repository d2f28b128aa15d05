"""Safetensors files by their headers: names, types and shapes, and how long the file must be. Reads no weights.

The format: 8 bytes of header length, the header in JSON with each tensor's data_offsets, the data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

LONGEST_HEADER = 100 << 20
"""Bytes; the format allows no longer one."""

BYTES_OF = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Of a type's elements; 1 for those not named."""


class Tensor(NamedTuple):
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a file's header without its metadata, and the bytes the whole file must have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no safetensors file, or is cut within its header.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError(f"{path.name} is no safetensors file")
        said = json.loads(file.read(length))
    if not isinstance(said, dict):
        raise ValueError(f"{path.name} is no safetensors file")
    tensors = {name: entry for name, entry in said.items() if name != "__metadata__"}
    try:
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path.name} is no safetensors file") from error
    return tensors, 8 + length + end


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file.

    Raises:
        OSError, ValueError: as `header`.
    """
    entries, _ = header(path)
    try:
        return {name: Tensor(str(one["dtype"]), tuple(map(int, one["shape"]))) for name, one in entries.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no safetensors file") from error
