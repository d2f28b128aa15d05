"""What only the doctor asks the machine; each reading is None where it is unknown. Commands are given two seconds."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from workers.system.awake import TOOL

_PATIENCE_S = 2.0
_DISPLAY_SLEEP = re.compile(r"^\s*displaysleep\s+(\d+)", re.MULTILINE)
_DISPLAY_HELD = re.compile(r"^\s*PreventUserIdleDisplaySleep\s+1\s*$", re.MULTILINE)
_LOCALTIME = Path("/etc/localtime")


def is_apple_silicon() -> bool:
    """Say whether this is macOS on arm64, Rosetta or not."""
    return sys.platform == "darwin" and (platform.machine() == "arm64" or is_translated())


def is_translated() -> bool:
    """Say whether this Python is an x86 one that Rosetta runs on Apple silicon."""
    return sys.platform == "darwin" and _asked("sysctl", "-n", "sysctl.proc_translated") == "1"


def awake_tool() -> tuple[str | None, str | None]:
    """Try what keeps the machine awake, for an instant.

    Returns:
        Where it is, None where it is not; and what it said where it failed.
    """
    path = shutil.which(TOOL)
    if path is None:
        return None, None
    hold = (
        ["-i", "-s"] if sys.platform == "darwin" else ["--what=sleep:idle", "--who=lq", "--why=a test", "--mode=block"]
    )
    try:
        tried = subprocess.run(
            [path, *hold, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return path, "it does not answer"
    except OSError as error:
        return path, (error.strerror or type(error).__name__).lower()
    if tried.returncode == 0:
        return path, None
    lines = tried.stderr.strip().splitlines()
    return path, lines[-1] if lines else f"exit code {tried.returncode}"


def display() -> tuple[int | None, bool]:
    """Return after how many minutes macOS darkens the display (0 for never), and whether a program keeps it lit."""
    if sys.platform != "darwin":
        return None, False
    found = _DISPLAY_SLEEP.search(_asked("pmset", "-g") or "")
    held = _DISPLAY_HELD.search(_asked("pmset", "-g", "assertions") or "")
    return (int(found[1]) if found is not None else None), held is not None


def tells_sleep() -> bool:
    """Say whether there are two clocks of which one stops in sleep (workers/system/sensors.py, slept_s)."""
    if sys.platform == "darwin":
        return True
    return hasattr(time, "CLOCK_BOOTTIME") and hasattr(time, "CLOCK_MONOTONIC")


def is_synchronised() -> bool | None:
    """Say whether the clock is synchronised over the network; macOS tells administrators only."""
    answer = _asked("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return {"yes": True, "no": False}.get(answer or "")


def zone_name(environment: Mapping[str, str]) -> str | None:
    """Return the name of the time zone; None where none is set.

    Args:
        environment: such as os.environ.
    """
    if environment.get("TZ"):
        return environment["TZ"].removeprefix(":")
    try:
        target = os.path.realpath(_LOCALTIME, strict=True)
    except OSError:
        return None
    _, found, name = target.partition("zoneinfo/")
    return name if found else str(_LOCALTIME)


def _asked(*command: str) -> str | None:
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
