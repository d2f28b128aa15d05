"""The memory guard (docs/explanation/policies.md, section 4): ends an attempt before the kernel kills it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jobs.model.memory_limit import GUARD_SHARE, fits

SWAP_GROWTH_BYTES = 2_000_000_000
SLOW_SHARE = 0.25
SLOW_REPORTS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySample:
    """Memory of the machine and the trainer at one moment; None for unknown values."""

    footprint_bytes: int | None  # memory of the trainer, including shared device memory
    limit_bytes: int | None  # limit of the trainer
    swap_bytes: int | None  # swap in use on the machine
    pressure_high: bool  # the system reports memory pressure
    it_s: float | None  # speed of the last report


def guard(samples: Sequence[MemorySample], *, swap_at_start: int | None, median_it_s: float | None) -> str | None:
    """Return why an attempt should write a checkpoint and continue with less memory; None if it need not."""
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
    used, limit = sample.footprint_bytes / 1e9, sample.limit_bytes / 1e9
    return f"the trainer used {used:.2f} GB, more than {GUARD_SHARE:.0%} of its limit of {limit:.2f} GB"


def _swapping(sample: MemorySample, at_start: int | None) -> str | None:
    if sample.swap_bytes is None or at_start is None or sample.swap_bytes - at_start <= SWAP_GROWTH_BYTES:
        return None
    return f"swap grew by {(sample.swap_bytes - at_start) / 1e9:.2f} GB since the start of the attempt"


def _slow(last: Sequence[MemorySample], median_it_s: float | None) -> str | None:
    if median_it_s is None or len(last) < SLOW_REPORTS:
        return None
    slow = all(sample.it_s is not None and sample.it_s < SLOW_SHARE * median_it_s for sample in last)
    if not slow or not all(sample.pressure_high for sample in last):
        return None
    return (
        f"{SLOW_REPORTS} consecutive reports were below {SLOW_SHARE:.0%} of the median speed ({median_it_s:.3g} it/s) "
        "under memory pressure"
    )
