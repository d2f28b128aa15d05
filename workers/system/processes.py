"""Processes: who is who, how much memory, signals to a whole group. The only file that imports psutil."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import psutil

from jobs.model.job import ProcessIdentity
from workers.system.sensors import boot_id

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
    """Return what this process takes of the machine's memory.

    On macOS that is `phys_footprint`, which is what the system itself compares with its limits and holds Metal's
    share (proc_pid_rusage, <sys/resource.h>); resident memory does not. Elsewhere it is the resident memory.
    """
    if sys.platform == "darwin":
        found = _phys_footprint(os.getpid())
        if found is not None:
            return found
    return int(psutil.Process().memory_info().rss)


_RUSAGE_INFO_V0, _RUSAGE_INFO_BYTES, _PHYS_FOOTPRINT_AT = 0, 512, 16 + 7 * 8
"""struct rusage_info_v0: a 16-byte uuid, then 64-bit fields, of which ri_phys_footprint is the eighth."""


def _phys_footprint(pid: int) -> int | None:
    """Ask macOS; None where it does not answer. Not yet seen on a Mac."""
    buffer = ctypes.create_string_buffer(_RUSAGE_INFO_BYTES)
    try:
        ask = ctypes.CDLL("/usr/lib/libproc.dylib").proc_pid_rusage
    except (OSError, AttributeError):
        return None
    if ask(pid, _RUSAGE_INFO_V0, ctypes.byref(buffer)) != 0:
        return None
    return int.from_bytes(buffer.raw[_PHYS_FOOTPRINT_AT : _PHYS_FOOTPRINT_AT + 8], sys.byteorder)


def address_space_share() -> float | None:
    """Return the most this process has taken of its address space, 0..1; None where it is not limited (RLIMIT_AS).

    The most, not what it takes now: a process that is refused memory dies in a peak, between two reports. Where the
    system does not tell it (only Linux does, proc(5)), what it takes now.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    return _most_address_space() / soft


def _most_address_space() -> int:
    with suppress(OSError):
        found = re.search(r"^VmPeak:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return int(psutil.Process().memory_info().vms)


def swap_bytes() -> int | None:
    """Return the machine's swap in use; None where it is unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # psutil warns where /proc lacks the counters it does not need here
        try:
            return int(psutil.swap_memory().used)
        except (OSError, RuntimeError):
            return None


def battery() -> tuple[float, bool] | None:
    """Return the battery's charge, 0..1, and whether the machine is on mains; None where there is none to be seen."""
    try:
        found = psutil.sensors_battery()
    except (OSError, RuntimeError, AttributeError, ValueError):
        return None
    return None if found is None else (found.percent / 100, bool(found.power_plugged))


def free_bytes() -> int:
    """Return the memory a new process could take without pushing others out."""
    return memory()[0]


def memory() -> tuple[int, int]:
    """Return the memory a new process could take without pushing others out, and all there is, in bytes."""
    found = psutil.virtual_memory()
    return int(found.available), int(found.total)


def has_child(pid: int, name: str) -> bool | None:
    """Say whether a living child of a process runs a program; None where that cannot be seen."""
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


def be_first_to_go() -> None:
    """Ask Linux to end this process, and not the worker, where memory runs out. Elsewhere nothing happens."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
