"""The composition root: the only place that creates store, wake-up queue and settings."""

from __future__ import annotations

import dataclasses
import logging
import os
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

from jobs.model.errors import ConfigInvalid
from orchestrator.core.paths import Home

if TYPE_CHECKING:
    from configs.settings import Settings
    from orchestrator.core.huey_queue import Handlers, WakeupQueue
    from orchestrator.store.store import Store

log = logging.getLogger("lq.settings")


@dataclasses.dataclass
class App(AbstractContextManager["App"]):
    """What a command or the worker works with; each part is created at its first use."""

    home: Home
    handlers: Handlers | None = None  # the worker's handlers of wake-up signals; None in other processes
    _logged: str | None = dataclasses.field(default=None, init=False, repr=False)  # last error of `valid_settings`

    @classmethod
    def of_this_user(cls) -> App:
        """Return the app for the environment's home."""
        return cls(Home.of(os.environ))

    @cached_property
    def store(self) -> Store:
        """The store; opened, and created or migrated, at the first use."""
        from orchestrator.store.store import Store

        self.home.ensure()
        return Store.open(self.home.store)

    @cached_property
    def wakeup(self) -> WakeupQueue:
        """The wake-up queue."""
        from orchestrator.core.huey_queue import WakeupQueue

        self.home.ensure()
        return WakeupQueue(self.home.wakeup, self.handlers)

    def settings(self) -> Settings:
        """Read settings.yaml again, so that a running worker uses its changes; raise ConfigInvalid."""
        from configs.settings import load_settings

        return load_settings(self.home.settings)

    def valid_settings(self) -> Settings | None:
        """Read settings.yaml; if it is invalid, log the error once and return None.

        For the worker, which continues to run then: notifications wait, and other settings have their defaults.
        """
        try:
            settings = self.settings()
        except ConfigInvalid as error:
            if self._logged != str(error):
                self._logged = str(error)
                log.error("notifications and inbox files wait until settings.yaml is fixed: %s", error)
            return None
        self._logged = None
        return settings

    def close(self) -> None:
        """Close what was opened."""
        for name in ("store", "wakeup"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()
