"""Keeps the machine awake for a time window that opens soon: asleep, it could not start the job.

On mains power only; on battery the charge matters more than a start on time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import Why
from orchestrator.core.context import WorkerContext
from orchestrator.scheduling.eligibility import Turn
from workers.system.keep_awake import KeepAwake

LONGEST_S = 4 * 3600.0  # for a window that opens later, the machine may sleep first


class SleepInhibitor:
    """The inhibitor of one worker; it ends with the worker at the latest."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._awake: KeepAwake | None = None

    @property
    def active(self) -> bool:
        return self._awake is not None

    def update(self, turns: Sequence[Turn]) -> None:
        """Keep the machine awake if the window of a waiting job opens soon, else let it sleep."""
        on_battery = self._context.read(Constraints(require_ac=True)).mains is False
        if on_battery or not any(self._opens_soon(turn) for turn in turns):
            self.end()
        elif self._awake is None:
            self._awake = KeepAwake(os.getpid())
            self._awake.__enter__()

    def end(self) -> None:
        if self._awake is not None:
            self._awake.__exit__(None, None, None)
            self._awake = None

    def _opens_soon(self, turn: Turn) -> bool:
        obstacle = turn.obstacle
        if obstacle is None or obstacle.why is not Why.WINDOW_CLOSED or obstacle.until is None:
            return False
        return obstacle.until - self._context.clock() <= LONGEST_S
