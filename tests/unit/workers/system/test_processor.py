"""The processor of this machine, and of a Mac by stand-ins for its commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.workers.system.commands import stand_in
from workers.system import processor


def test_machine_name_is_one_line() -> None:
    assert processor.machine()
    assert "\n" not in processor.machine()


def test_rosetta_is_detected(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not processor.is_translated() or sys.platform == "darwin"
    monkeypatch.setattr(sys, "platform", "darwin")
    stand_in(commands, "sysctl", prints="1\n")
    assert processor.is_translated()
    assert processor.is_apple_silicon()
    stand_in(commands, "sysctl", code=1)
    assert not processor.is_translated()
