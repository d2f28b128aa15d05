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
from workers.system.keep_awake import TOOL


class Watch:
    """A sleep inhibitor for one job, at a time and with a power state that the test sets."""

    def __init__(self, home: Home, notes: Path) -> None:
        self.hour, self.mains, self.notes = "12:00", True, notes
        self.app = App(Place(home.path))
        self.context = WorkerContext(
            app=self.app, owner=WORKER, clock=self._now, read=lambda _: Reading(mains=self.mains), zone=UTC
        )
        self.inhibitor = SleepInhibitor(self.context)

    def _now(self) -> float:
        return 1795564800.0 + 60 * time_windows.parse_time(self.hour)  # 2026-11-25

    def look(self, hour: str) -> bool:
        """Look at the line at an hour; return whether the machine is kept awake."""
        self.hour = hour
        self.inhibitor.update(eligibility.turns(self.app, slots=1, now=self._now(), zone=UTC, read=self.context.read))
        return self.inhibitor.active


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
    made.inhibitor.end()
    made.app.close()
    home.store.close()


def test_kept_awake_before_a_window_opens(watch: Watch) -> None:
    assert [watch.look(hour) for hour in ("12:00", "17:59", "18:00", "21:59")] == [False, False, True, True]
    until(watch.notes.exists, "the tool to be started")
    pid = int(watch.notes.read_text())
    assert lives(pid)
    watch.inhibitor.end()
    assert not lives(pid)


def test_machine_may_sleep_on_battery(watch: Watch) -> None:
    assert watch.look("21:00")
    watch.mains = False
    assert not watch.look("21:01")
