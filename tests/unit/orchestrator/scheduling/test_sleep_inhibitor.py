"""The machine stays awake for a window that opens soon, on mains power."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from jobs.model import time_windows
from jobs.scheduling.obstacles import Reading
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home as Place
from orchestrator.scheduling import eligibility
from orchestrator.scheduling.sleep_inhibitor import SleepInhibitor
from tests.harness import lives, until
from tests.unit.orchestrator.cli_homes import WORKER, Home
from workers.system.awake import TOOL


class Watch:
    """A vigil over one job, at an hour and with a plug that the test sets."""

    def __init__(self, home: Home, notes: Path) -> None:
        self.hour, self.mains, self.notes = "12:00", True, notes
        self.app = App(Place(home.path))
        self.context = WorkerContext(
            app=self.app, owner=WORKER, clock=self._now, read=lambda _: Reading(mains=self.mains), zone=UTC
        )
        self.vigil = SleepInhibitor(self.context)

    def _now(self) -> float:
        return 1795564800.0 + 60 * time_windows.parse_time(self.hour)  # 2026-11-25

    def look(self, hour: str) -> bool:
        """Look at the line at an hour; say whether the machine is held awake."""
        self.hour = hour
        self.vigil.look(eligibility.turns(self.app.store, now=self._now(), zone=UTC, read=self.context.read))
        return self.vigil.holds


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    notes, tool = tmp_path / "notes", tmp_path / TOOL
    tool.write_text(f'#!/bin/sh\necho $$ > "{notes}.new"\nmv "{notes}.new" "{notes}"\nexec tail -f /dev/null\n')
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    home = Home(tmp_path / "home")
    home.queued("night", lq={"window": "22:00-07:30"})
    made = Watch(home, notes)
    yield made
    made.vigil.end()
    made.app.close()
    home.store.close()


def test_a_machine_is_kept_awake_for_a_window_that_opens_within_four_hours(watch: Watch) -> None:
    assert [watch.look(hour) for hour in ("12:00", "17:59", "18:00", "21:59")] == [False, False, True, True]
    until(watch.notes.exists, "the tool to be started")
    pid = int(watch.notes.read_text())
    assert lives(pid)
    watch.vigil.end()
    assert not lives(pid)


def test_on_battery_it_may_sleep(watch: Watch) -> None:
    assert watch.look("21:00")
    watch.mains = False
    assert not watch.look("21:01")
