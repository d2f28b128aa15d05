"""What the doctor asks this machine, and what it makes of a Mac's answers (stand-ins for its commands)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workers.system import machine_readings
from workers.system.awake import TOOL

# as pmset(1) prints it; not seen on a Mac
PMSET = """System-wide power settings:
Currently in use:
 standby              1
 sleep                1 (sleep prevented by caffeinate)
 displaysleep         10
 disksleep            10
"""
ASSERTIONS = """Assertion status system-wide:
   BackgroundTask                 0
   PreventUserIdleDisplaySleep    {held}
   PreventUserIdleSystemSleep     1
Listed by owning process:
   pid 77(caffeinate): [0x1] 00:00:01 PreventUserIdleSystemSleep named: "caffeinate"
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o700)


def pmset(folder: Path, settings: str, held: int) -> None:
    (folder / "settings.txt").write_text(settings)
    (folder / "assertions.txt").write_text(ASSERTIONS.format(held=held))
    stand_in(
        folder, "pmset", f'[ "$2" = assertions ] && exec cat {folder}/assertions.txt\nexec cat {folder}/settings.txt'
    )


@pytest.mark.parametrize(
    ("settings", "held", "found"),
    [
        (PMSET, 0, (10, False)),
        (PMSET, 1, (10, True)),
        (PMSET.replace("10\n disk", "0\n disk"), 0, (0, False)),
        ("", 0, (None, False)),
    ],
)
def test_a_mac_says_when_its_display_goes_dark(
    commands: Path, monkeypatch: pytest.MonkeyPatch, settings: str, held: int, found: tuple[int | None, bool]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    pmset(commands, settings, held)
    assert machine_readings.display() == found


def test_without_pmset_nothing_is_known_of_the_display(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    stand_in(commands, "pmset", "exit 1")
    assert machine_readings.display() == (None, False)


@pytest.mark.skipif(sys.platform == "darwin", reason="elsewhere")
def test_elsewhere_nobody_is_asked_about_the_display(commands: Path) -> None:
    pmset(commands, PMSET, 1)
    assert machine_readings.display() == (None, False)


def test_rosetta_is_noticed(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not machine_readings.is_translated() or sys.platform == "darwin"
    monkeypatch.setattr(sys, "platform", "darwin")
    stand_in(commands, "sysctl", 'echo "1"')
    assert machine_readings.is_translated()
    assert machine_readings.is_apple_silicon()
    stand_in(commands, "sysctl", "exit 1")
    assert not machine_readings.is_translated()


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("exit 0", None),
        ("echo 'Failed to connect to bus' >&2; exit 1", "Failed to connect to bus"),
        ("exit 3", "exit code 3"),
    ],
)
def test_what_keeps_the_machine_awake_is_tried(commands: Path, script: str, wrong: str | None) -> None:
    stand_in(commands, TOOL, script)
    assert machine_readings.awake_tool() == (str(commands / TOOL), wrong)


def test_a_tool_that_hangs_is_not_waited_for(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_readings, "_PATIENCE_S", 0.2)
    stand_in(commands, TOOL, "exec sleep 60")
    assert machine_readings.awake_tool() == (str(commands / TOOL), "it does not answer")


def test_a_machine_without_such_a_tool_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine_readings.awake_tool() == (None, None)


@pytest.mark.parametrize(("says", "found"), [("echo yes", True), ("echo no", False), ("exit 1", None), ("echo", None)])
def test_the_clock_is_asked_about(commands: Path, says: str, found: bool | None) -> None:
    stand_in(commands, "timedatectl", says)
    assert machine_readings.is_synchronised() is found


def test_a_sleep_can_be_told_here() -> None:
    assert machine_readings.tells_sleep()


def test_the_time_zone_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_readings.zone_name({"TZ": ":Europe/Berlin"}) == "Europe/Berlin"
    zone = tmp_path / "zoneinfo" / "Asia" / "Kolkata"
    zone.parent.mkdir(parents=True)
    zone.write_bytes(b"")
    link = tmp_path / "localtime"
    monkeypatch.setattr(machine_readings, "_LOCALTIME", link)
    assert machine_readings.zone_name({}) is None
    link.symlink_to(zone)
    assert machine_readings.zone_name({}) == "Asia/Kolkata"
