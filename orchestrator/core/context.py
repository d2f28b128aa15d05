"""What all parts of one worker share: application, identity, clocks, shutdown."""

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
from workers.system.clock import slept_s
from workers.system.power import ConditionReader


@dataclasses.dataclass
class WorkerContext:
    """The context of one worker."""

    app: App
    owner: ProcessIdentity
    shutting_down: threading.Event = dataclasses.field(default_factory=threading.Event)
    leave_running: bool = False  # shut down without stopping the trainers
    clock: Callable[[], float] = time.time  # unix seconds
    awake: Callable[[], float] = time.monotonic  # seconds on the clock that stops in sleep
    slept: Callable[[], float] = slept_s  # seconds slept since boot
    read: Callable[[Constraints], Reading] = dataclasses.field(default_factory=lambda: ConditionReader().read)
    zone: tzinfo | None = None  # time zone of windows and deadlines; None for the machine's own
