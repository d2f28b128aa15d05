"""When and under which conditions a job may train. Read from its stored spec without pydantic, for `lq status`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from jobs.model import time_windows
from jobs.model.time_windows import DueTime, TimeWindow

FEWEST_REPORTS = 6
"""An attempt's speed is trusted after this many reports; the first one includes the compiling of the step."""

MARGIN_S = 30.0
MARGIN_SHARE = 0.05
"""An estimate is a miss if it is late by more than these seconds and by more than this share of the time left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraints:
    """What must hold while a job trains."""

    window: TimeWindow | None = None  # hours of every day; None for all
    deadline: DueTime | None = None  # when it should be done
    require_ac: bool = False  # only on mains power
    min_battery: int | None = None  # on battery only at this charge or above, in percent
    thermal: str | None = None  # not at this thermal level or above; None for any
    idle_s: float | None = None  # only after the machine was unused for this long, in seconds
    strict: bool = False  # while it cannot start, no job behind it starts

    @property
    def needs_power(self) -> bool:
        return self.require_ac or self.min_battery is not None

    def due(self, asked_at: float, zone: tzinfo | None) -> float | None:
        """Return the deadline of a job that was submitted at `asked_at`, both in unix seconds; None without one."""
        return None if self.deadline is None else time_windows.due_at(self.deadline, asked_at, zone)


def constraints_of(spec: Mapping[str, Any]) -> Constraints:
    """Read the constraints of a job from a spec as the store keeps it; absent keys constrain nothing."""
    lq = spec.get("lq") or {}
    power = lq.get("power") or {}
    window, deadline = lq.get("window"), lq.get("deadline")
    return Constraints(
        window=time_windows.parse_window(window) if window is not None else None,
        deadline=time_windows.parse_due(deadline) if deadline is not None else None,
        require_ac=bool(power.get("require_ac")),
        min_battery=power.get("min_battery"),
        thermal=power.get("thermal"),
        idle_s=lq.get("idle"),
        strict=bool(lq.get("strict")),
    )


def late(due: float, *, now: float, left_s: float, window: TimeWindow | None, zone: tzinfo | None) -> float | None:
    """Return when a job that will miss its deadline ends, in unix seconds; None if it may meet the deadline."""
    expected = time_windows.ends_after(window, now, left_s, zone)
    if now <= due and expected - due <= max(MARGIN_S, MARGIN_SHARE * left_s):
        return None
    return expected
