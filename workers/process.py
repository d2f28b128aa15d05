"""Processes: who is who, how much memory, signals to a whole group. The only file that imports psutil."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil

from jobs.job import ProcessIdentity
from workers.sensors import boot_id

_SAME_START_S = 2.0
"""psutil derives creation times from the boot time, which a clock correction moves; no pid comes round that fast."""


def identity(pid: int | None = None) -> ProcessIdentity:
    """Return the identity of a living process, of this one by default.

    Raises:
        ProcessLookupError: there is none.
    """
    try:
        process = psutil.Process(pid)
        return ProcessIdentity(pid=process.pid, create_time=process.create_time(), boot_id=boot_id())
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(pid) from error


def is_alive(who: ProcessIdentity) -> bool:
    """Say whether this very process lives. False only on proof: no such pid, another start, another boot, a zombie."""
    if who.boot_id != boot_id():
        return False
    try:
        process = psutil.Process(who.pid)
        if abs(process.create_time() - who.create_time) > _SAME_START_S:
            return False
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def signal_group(who: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to the session a child leads; False where it is gone."""
    if not is_alive(who):
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(who.pid, number)
        return True
    return False


def signal_one(who: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to this one process; False where it is gone."""
    if not is_alive(who):
        return False
    with suppress(ProcessLookupError):
        os.kill(who.pid, number)
        return True
    return False


def footprint_bytes() -> int:
    """Return this process's resident memory. On macOS Metal's share is missing from it (field-notes.md)."""
    return int(psutil.Process().memory_info().rss)
