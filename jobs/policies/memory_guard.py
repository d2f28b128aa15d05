"""The memory guard (docs/explanation/policies.md, section 4): ends an attempt before the kernel kills it."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.model.events import ProgressEvent
from jobs.model.memory_limit import GUARD_SHARE, fits

SWAP_GROWTH_BYTES = 2_000_000_000
SLOW_SHARE = 0.25
SLOW_REPORTS = 3


def guard(reports: Sequence[ProgressEvent], *, swap_at_start: int | None, median_it_s: float | None) -> str | None:
    """Return why an attempt should write a checkpoint and continue with less memory; None if it need not."""
    if not reports:
        return None
    memory, last = reports[-1].memory, reports[-SLOW_REPORTS:]
    if memory.footprint is not None and memory.limit is not None and not fits(memory.footprint, memory.limit):
        used, limit = memory.footprint / 1e9, memory.limit / 1e9
        return f"the trainer used {used:.2f} GB, more than {GUARD_SHARE:.0%} of its limit of {limit:.2f} GB"
    if memory.swap is not None and swap_at_start is not None and memory.swap - swap_at_start > SWAP_GROWTH_BYTES:
        return f"swap grew by {(memory.swap - swap_at_start) / 1e9:.2f} GB since the start of the attempt"
    if median_it_s is None or len(last) < SLOW_REPORTS:
        return None
    limit = SLOW_SHARE * median_it_s
    if not all(report.memory.pressure_high and report.it_s is not None and report.it_s < limit for report in last):
        return None
    return (
        f"{SLOW_REPORTS} consecutive reports were below {SLOW_SHARE:.0%} of the median speed ({median_it_s:.3g} it/s) "
        "under memory pressure"
    )
