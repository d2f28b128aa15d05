"""Processes: identity, life, signals, memory. The only file that imports psutil, so it holds all psutil readings."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress

import psutil

from jobs.model.job import ProcessIdentity
from workers.system.clock import boot_id

_SAME_START_S = 2.0
"""Tolerance for creation times. psutil derives them from the boot time, which a clock correction moves."""


def identity(pid: int | None = None) -> ProcessIdentity:
    """Return the identity of a running process, by default of this one.

    Raises:
        ProcessLookupError: no such process.
    """
    try:
        process = psutil.Process(pid)
        return ProcessIdentity(pid=process.pid, create_time=process.create_time(), boot_id=boot_id())
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(pid) from error


def is_alive(who: ProcessIdentity) -> bool:
    """Report whether this process runs; False needs proof: another boot or start time, no such pid, or a zombie."""
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
    """Send a signal to the session that a process leads; return False if the process has exited."""
    if not is_alive(who):
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(who.pid, number)
        return True
    return False


def signal_one(who: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to one process; return False if it has exited."""
    if not is_alive(who):
        return False
    with suppress(ProcessLookupError):
        os.kill(who.pid, number)
        return True
    return False


def has_child(pid: int, name: str) -> bool | None:
    """Report whether a running child of a process has this program name; None if that cannot be read."""
    try:
        children = psutil.Process(pid).children()
    except (psutil.Error, OSError):
        return None
    return any(_runs(child, name) for child in children)


def _runs(process: psutil.Process, name: str) -> bool:
    try:
        return bool(process.name() == name and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False


def footprint_bytes() -> int:
    """Return the memory that this process uses.

    On macOS this is `phys_footprint` (proc_pid_rusage, <sys/resource.h>): the system compares it with its limits, and
    it includes Metal's memory, which the resident memory does not. On other systems it is the resident memory.
    """
    if sys.platform == "darwin":
        footprint = _phys_footprint(os.getpid())
        if footprint is not None:
            return footprint
    return int(psutil.Process().memory_info().rss)


_RUSAGE_INFO_V0, _RUSAGE_INFO_BYTES, _PHYS_FOOTPRINT_AT = 0, 512, 16 + 7 * 8
"""struct rusage_info_v0: a 16-byte uuid, then 64-bit fields; ri_phys_footprint is the eighth."""


def _phys_footprint(pid: int) -> int | None:
    """Return macOS's `phys_footprint`; None if the call fails. Not yet tested on a Mac."""
    buffer = ctypes.create_string_buffer(_RUSAGE_INFO_BYTES)
    try:
        proc_pid_rusage = ctypes.CDLL("/usr/lib/libproc.dylib").proc_pid_rusage
    except (OSError, AttributeError):
        return None
    if proc_pid_rusage(pid, _RUSAGE_INFO_V0, ctypes.byref(buffer)) != 0:
        return None
    return int.from_bytes(buffer.raw[_PHYS_FOOTPRINT_AT : _PHYS_FOOTPRINT_AT + 8], sys.byteorder)


def address_space_bytes() -> int:
    return int(psutil.Process().memory_info().vms)


def swap_bytes() -> int | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # psutil warns if /proc lacks counters that lq does not use
        try:
            return int(psutil.swap_memory().used)
        except (OSError, RuntimeError):
            return None


def memory() -> tuple[int, int]:
    """Return the memory that a new process can use without swapping, and the machine's total memory, in bytes."""
    reading = psutil.virtual_memory()
    return int(reading.available), int(reading.total)


def battery() -> tuple[float, bool] | None:
    """Return the battery's charge, 0..1, and whether the machine is on mains; None without a readable battery."""
    try:
        reading = psutil.sensors_battery()
    except (OSError, RuntimeError, AttributeError, ValueError):
        return None
    return None if reading is None else (reading.percent / 100, bool(reading.power_plugged))


def mounts() -> Iterator[tuple[str, str]]:
    """Yield the mount point and the type of every file system, in the order in which they were mounted."""
    for partition in psutil.disk_partitions(all=True):
        yield partition.mountpoint, partition.fstype
