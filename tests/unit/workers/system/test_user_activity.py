"""Idle time of the user: output of macOS and of desktop tools, and terminals of Linux."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.unit.workers.system.commands import stand_in
from workers.system import user_activity

IOREG = """+-o Root  <class IORegistryEntry, id 0x100000100, retain 38>
    | {
    |   "HIDIdleTime" = 4218000000
    |   "HIDParameters" = {"HIDIdleTime"=1}
    | }
"""


def test_mac_idle_time(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(commands, "ioreg", prints=IOREG)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert user_activity.idle_s() == 4.218
    stand_in(commands, "ioreg")
    assert user_activity.idle_s() is None


def test_last_used_terminal_counts(tmp_path: Path) -> None:
    for name, seconds in (("0", 1000.0), ("1", 4000.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    (tmp_path / "ptmx").touch()
    assert user_activity._terminals_idle_s(tmp_path, 4100.0) == 100.0
    assert user_activity._terminals_idle_s(tmp_path / "none", 1.0) is None


def test_desktop_idle_time(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    stand_in(commands, "xprintidle", prints="2500\n")
    stand_in(commands, "gdbus", prints="(uint64 1250,)\n")
    assert {2.5, 1.25} <= set(user_activity._idle_times())
    stand_in(commands, "xprintidle", prints="no display\n", code=1)
    stand_in(commands, "gdbus", prints="Error: no such object\n", code=1)
    assert list(user_activity._idle_times())[1:] == [None, None]
