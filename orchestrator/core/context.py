"""What every story of the night shares: who we are, what we work with, the clocks, whether it is time to go home."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from datetime import tzinfo

from jobs.model.job import ProcessIdentity
from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import Reading
from orchestrator.core.app import App
from workers.system import sensors
from workers.system.power import Gauge


@dataclasses.dataclass
class WorkerContext:
    """One worker's night."""

    app: App
    owner: ProcessIdentity
    shutting_down: threading.Event = dataclasses.field(default_factory=threading.Event)
    leave_running: bool = False  # going home without stopping the children
    clock: Callable[[], float] = time.time  # unix seconds
    awake: Callable[[], float] = time.monotonic  # seconds on the clock that stops in sleep
    slept: Callable[[], float] = sensors.slept_s  # seconds slept since the machine was started
    read: Callable[[Constraints], Reading] = dataclasses.field(default_factory=lambda: Gauge().read)  # power, heat, use
    zone: tzinfo | None = None  # whose hours windows and deadlines are; None for the machine's own
