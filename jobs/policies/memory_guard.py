"""The memory guard (policies.md 4): ends an attempt in good order before the kernel ends it in its own. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jobs.model.memory_limit import GUARD_SHARE, fits

SWAP_GROWTH_BYTES = 2_000_000_000
SLOW_SHARE = 0.25
SLOW_REPORTS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySample:
    """What the machine and the child take, at one moment; None where unknown."""

    footprint_bytes: int | None  # the child's whole share, device memory included where it is shared
    limit_bytes: int | None  # what the child may take
    swap_bytes: int | None  # the machine's swap in use
    pressure_high: bool  # the system itself says that memory is short
    it_s: float | None  # speed of the last report


def guard(samples: Sequence[MemorySample], *, swap_at_start: int | None, median_it_s: float | None) -> str | None:
    """Say why an attempt should checkpoint and go on smaller; None where memory is no concern.

    Args:
        samples: of this attempt, oldest first, one a report.
        swap_at_start: the machine's swap in use when it began, in bytes.
        median_it_s: median speed of its reports so far, iterations per second.
    """
    if not samples:
        return None
    return (
        _over_limit(samples[-1]) or _swapping(samples[-1], swap_at_start) or _slow(samples[-SLOW_REPORTS:], median_it_s)
    )


def _over_limit(sample: MemorySample) -> str | None:
    if sample.footprint_bytes is None or sample.limit_bytes is None:
        return None
    if fits(sample.footprint_bytes, sample.limit_bytes):
        return None
    taken, limit = sample.footprint_bytes / 1e9, sample.limit_bytes / 1e9
    return f"it took {taken:.2f} GB, more than {GUARD_SHARE:.0%} of its limit of {limit:.2f} GB"


def _swapping(sample: MemorySample, at_start: int | None) -> str | None:
    if sample.swap_bytes is None or at_start is None or sample.swap_bytes - at_start <= SWAP_GROWTH_BYTES:
        return None
    return f"swap grew by {(sample.swap_bytes - at_start) / 1e9:.2f} GB since it began"


def _slow(last: Sequence[MemorySample], median_it_s: float | None) -> str | None:
    if median_it_s is None or len(last) < SLOW_REPORTS:
        return None
    slow = all(sample.it_s is not None and sample.it_s < SLOW_SHARE * median_it_s for sample in last)
    if not slow or not all(sample.pressure_high for sample in last):
        return None
    return (
        f"{SLOW_REPORTS} reports ran at under {SLOW_SHARE:.0%} of its median speed ({median_it_s:.3g} it/s) "
        "while the machine was short of memory"
    )
