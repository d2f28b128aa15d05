"""From reports and incidents to what the run took of the machine. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.model.job import Incident, ProgressPoint
from orchestrator.report.measured import Hardware

FEWEST_REPORTS = 10
"""Below which a tenth of the reports is none."""


def hardware(points: Sequence[ProgressPoint], incidents: Sequence[Incident], facts: Mapping[str, Any]) -> Hardware:
    """Return what is known.

    Args:
        points: every progress report, in the order in which they came.
        incidents: of the job.
        facts: what the trainer alone saw, by name.
    """
    limits = [point.limit_bytes for point in points if point.limit_bytes]
    peak = _most(point.peak_bytes for point in points)
    footprint = _most(point.footprint_bytes for point in points)
    taken = _most((peak, footprint))
    swap = [point.swap_bytes for point in points if point.swap_bytes is not None]
    speeds = [point.it_s for point in points if point.it_s is not None and math.isfinite(point.it_s)]
    tenth = len(speeds) // 10 if len(speeds) >= FEWEST_REPORTS else 0
    slept = [one.evidence.get("slept_s") for one in incidents if one.code == "slept"]
    return Hardware(
        limit_bytes=limits[-1] if limits else None,
        peak_bytes=peak,
        footprint_bytes=footprint,
        headroom_bytes=limits[-1] - taken if limits and taken is not None else None,
        swap_first_bytes=swap[0] if swap else None,
        swap_most_bytes=max(swap, default=None),
        it_s_first=statistics.median(speeds[:tenth]) if tenth else None,
        it_s_last=statistics.median(speeds[-tenth:]) if tenth else None,
        sleeps=len(slept),
        slept_seconds=sum(float(one) for one in slept if isinstance(one, int | float)),
        battery_before=_charge(facts.get("battery.before")),
        battery_after=_charge(facts.get("battery.after")),
    )


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _charge(told: object) -> float | None:
    """Read (charge, on mains)."""
    if isinstance(told, list) and told and isinstance(told[0], int | float):
        return float(told[0])
    return None
