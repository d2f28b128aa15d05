"""The battery, and one reader for all conditions that a job may set: power, heat and use of the machine."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import Reading
from workers.system import processes
from workers.system.thermal import thermal_level
from workers.system.user_activity import idle_s

FRESH_S = 10.0  # lq reuses a reading for this long, in seconds: some readings take a command


class ConditionReader:
    """Reads the conditions that a job's constraints use, and only those."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = float("-inf")

    def read(self, constraints: Constraints) -> Reading:
        """Return the readings that these constraints need; all others are None."""
        if self._clock() - self._read_at >= FRESH_S:
            self._read_at = self._clock()
            self._battery = functools.cache(processes.battery)
            self._thermal, self._idle = functools.cache(thermal_level), functools.cache(idle_s)
        battery = self._battery() if constraints.needs_power else None
        charge, mains = battery or (None, True if constraints.needs_power else None)  # without a battery: on mains
        return Reading(
            mains=mains,
            charge=round(100 * charge) if charge is not None else None,
            thermal=self._thermal() if constraints.thermal is not None else None,
            idle_s=self._idle() if constraints.idle_s is not None else None,
        )
