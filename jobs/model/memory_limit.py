"""The memory limit of a run. Plan, check, the dispatcher and the memory guard all use this limit."""

from __future__ import annotations

GUARD_SHARE = 0.92
"""The memory guard ends an attempt that uses more than this share of its limit (docs/how-to/out-of-memory.md)."""


def limit_bytes(limit: int | str, recommended: int) -> int:
    """Return `lq.memory.limit` in bytes: a size, or a share such as `85%` of the `recommended` bytes."""
    return int(float(limit.rstrip("%")) / 100 * recommended) if isinstance(limit, str) else limit


def usable_bytes(limit: int) -> int:
    """Return the bytes that a run can use before the memory guard ends the attempt."""
    return int(GUARD_SHARE * limit)


def fits(taken: int, limit: int) -> bool:
    """Return whether a run that uses `taken` bytes stays below the memory guard."""
    return taken <= usable_bytes(limit)
