"""The composition root: the only place that puts store, wake-up queue and settings together."""

from __future__ import annotations

import dataclasses
import os
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator.core.paths import Home

if TYPE_CHECKING:
    from configs.settings import Settings
    from orchestrator.core.huey_queue import Handlers, WakeupQueue
    from orchestrator.store.store import Store


@dataclasses.dataclass
class App:
    """What a command or the worker works with; each part is built when it is first needed."""

    home: Home
    answers: Handlers | None = None  # who answers the wake-up queue, in the worker

    @classmethod
    def of_this_user(cls) -> App:
        """Return the app for the environment's home."""
        return cls(Home.of(os.environ))

    @cached_property
    def store(self) -> Store:
        """The store, opened (and made or migrated) now.

        Raises:
            HomeUnusable, StoreUnusable: it cannot be.
        """
        from orchestrator.store.store import Store

        self.home.ensure()
        return Store.open(self.home.store)

    @cached_property
    def wakeup(self) -> WakeupQueue:
        """The wake-up queue."""
        from orchestrator.core.huey_queue import WakeupQueue

        self.home.ensure()
        return WakeupQueue(self.home.wakeup, self.answers)

    def settings(self) -> Settings:
        """Read settings.yaml anew, so that a running worker follows its changes.

        Raises:
            ConfigInvalid: it says something lq cannot follow.
        """
        from configs.settings import load_settings

        return load_settings(self.home.settings)

    def close(self) -> None:
        """Close what was opened."""
        for name in ("store", "wake-up queue"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
