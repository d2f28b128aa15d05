"""Checks of the machine. Each function reads and judges one thing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.requirements import Requirement
from packaging.version import Version

from orchestrator.doctor.check import Check, fail, ok, warn
from orchestrator.doctor.readings import Readings
from orchestrator.formatting.text import size
from workers.system.keep_awake import TOOL

OLDEST_PYTHON = (3, 11)
GIB = 1 << 30


def python(readings: Readings) -> Check:
    """Check the interpreter."""
    name, (version, translated, path) = "python", readings.python
    shown = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        return fail(name, f"{shown}; lq needs 3.11 or newer", "install lq into a newer Python")
    if translated:
        says = f"{shown} for Intel on Apple silicon: MLX has no Metal there"
        return fail(name, says, "install lq into a Python built for arm64")
    return ok(name, f"{shown}, {path}")


def mlx(readings: Readings) -> Check:
    """Check MLX, MLX-LM and the device."""
    name, device = "mlx", readings.device
    if isinstance(device, str):
        return fail(name, f"cannot be used: {device}", "reinstall: pip install --force-reinstall mlx mlx-lm")
    for package, version in (("mlx", device.mlx), ("mlx-lm", device.mlx_lm)):
        least = least_version(readings.requirements, package)
        if least is not None and Version(version) < least:
            says = f"{package} {version}; {least} or newer is required"
            return fail(name, says, "pip install --upgrade mlx mlx-lm")
    says = f"mlx {device.mlx}, mlx-lm {device.mlx_lm}, {device.device}"
    if readings.apple and not device.metal:
        return warn(name, f"{says}, without Metal", "install the build of mlx for macOS on arm64")
    return ok(name, says)


def compiler(readings: Readings) -> Check:
    """Check whether MLX can compile: on a CPU it calls g++ while it trains.

    Without a compiler MLX 0.32 runs each operation by itself, and nothing fails. A compiler that exists and does not
    work ends every run. Both were tried.
    """
    name, device = "compiler", readings.device
    if isinstance(device, str):
        return warn(name, "not tried, because MLX cannot be used", "see mlx")
    if device.kernel_error is not None:
        says = f"MLX cannot compile a kernel: {device.kernel_error}"
        return fail(name, says, "reinstall g++ (Debian: apt install --reinstall g++)")
    if device.metal:
        return ok(name, "MLX compiles its kernels with Metal")
    if readings.compiler is None:
        return warn(name, "no g++: MLX runs each operation by itself, which may be slower", "Debian: apt install g++")
    return ok(name, f"MLX compiled a kernel with {readings.compiler}")


def memory(readings: Readings) -> Check:
    """Check how much memory a run may use."""
    name, (share, limit) = "memory", readings.memory_limit
    sources = ", ".join(f"{source} {size(limit_bytes)}" for source, limit_bytes in readings.memory_limits.items())
    says = f"a run may use {size(limit)}, {share} of {size(readings.recommended_memory)} ({sources})"
    if not share.endswith("%"):
        says = f"a run may use {size(limit)}; the device recommends {size(readings.recommended_memory)} ({sources})"
    if limit < GIB:
        return fail(name, says, "raise memory.limit: this is too little for a useful model")
    if "RLIMIT_AS" in readings.memory_limits:
        return warn(name, says, "ulimit -v unlimited: a run that reaches this limit ends with SIGSEGV and no message")
    if limit < 3 * GIB:
        return warn(name, says, "train models of up to 0.6B: lq config init quick")
    if readings.free_memory < limit / 2:
        return warn(name, f"{says}; {size(readings.free_memory)} free now", "close other programs before a long run")
    return ok(name, says)


def swap(readings: Readings) -> Check:
    """Check how much swap is in use before a job trains."""
    name, used = "swap", readings.swap_in_use
    if used is None:
        return ok(name, "unknown on this machine")
    if used > 4 * GIB:
        return warn(name, f"{size(used)} in use", "close large programs or restart: a run that swaps is slow")
    return ok(name, f"{size(used)} in use")


def disk(readings: Readings) -> Check:
    """Check the free space on the disk of the home."""
    name, (free, floor, folder) = "disk", readings.disk
    says = f"{size(free)} free, {size(floor)} must stay free"
    if free < floor:
        return fail(name, f"{says} ({folder})", "free space (lq prune --all, lq clean), or lower disk.floor")
    if free < floor + 10 * GIB:
        return warn(name, f"{says} ({folder})", "checkpoints of a run take some GB: lq prune --all, lq clean")
    return ok(name, says)


_NETWORK = frozenset(
    {
        *("9p", "afpfs", "afs", "ceph", "cifs", "davfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "prl_fs"),
        *("smb2", "smb3", "smbfs", "vboxsf", "webdav", "fuse.ceph", "fuse.davfs2", "fuse.gcsfuse"),
        *("fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_CONTAINER = frozenset({"overlay", "aufs"})
_SYNCED: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern, re.IGNORECASE), client)
    for pattern, client in (
        (r"/Library/Mobile Documents(/|$)", "iCloud"),
        (r"/iCloud ?Drive[^/]*(/|$)", "iCloud"),
        (r"/Library/CloudStorage/([^/-]+)", "a cloud storage"),
        (r"/Dropbox( \([^/]*\))?(/|$)", "Dropbox"),
        (r"/OneDrive( - [^/]*)?(/|$)", "OneDrive"),
        (r"/(Google ?Drive|My Drive)(/|$)", "Google Drive"),
        (r"/(Nextcloud|pCloud ?Drive|Box Sync|Syncthing)(/|$)", "a sync client"),
    )
)


def home(readings: Readings) -> Check:
    """Check the location of the home. The WAL of SQLite needs shared memory, which network file systems lack."""
    name, (path, mount, obstacle) = "home", readings.home_location
    local = "set LQ_HOME to a folder on a local disk"
    if obstacle is not None:
        return fail(name, obstacle, "set LQ_HOME to a folder that can be written")
    client = next((client for pattern, client in _SYNCED if pattern.search(str(path))), None)
    if client is not None:
        return fail(name, f"{path} is synchronised by {client}, which damages the store", local)
    if mount is None:
        return warn(name, f"{path}: its file system is unknown", "make sure that it is on a local disk")
    shown = f"{path} ({mount.kind})"
    if mount.kind in _NETWORK:
        return fail(name, f"{shown} is on a network file system, which has no shared memory", local)
    if mount.kind in _IN_MEMORY:
        return warn(name, f"{shown} is in memory and is lost at a restart", local)
    if mount.kind in _CONTAINER:
        return warn(name, f"{shown} is lost with its container", "mount a folder of the host and set LQ_HOME to it")
    if "fuse" in mount.kind and mount.kind != "fuseblk":
        return warn(name, f"{shown}: some FUSE file systems have no locks or shared memory", local)
    if readings.macos and {"Documents", "Desktop"} & set(path.parts):
        return warn(name, f"{shown}: iCloud may synchronise Documents and Desktop", local)
    return ok(name, shown)


def privacy(readings: Readings) -> Check:
    """Check who can read and write the home."""
    name, (mode, mine) = "privacy", readings.home_mode
    if mode is None:
        return ok(name, "the home does not exist yet; lq creates it with mode 0700")
    shown = f"the home has mode {mode & 0o777:04o}"
    if not mine:
        return fail(name, f"{shown} and another owner", "chown it, or set LQ_HOME to a folder of your own")
    if mode & 0o022:
        return fail(name, f"{shown}: other users can change it", "chmod 700 $LQ_HOME, and check its files")
    if mode & 0o077:
        return warn(name, f"{shown}: other users can read it", "chmod 700 $LQ_HOME; lq submit also does this")
    return ok(name, shown)


def awake(readings: Readings) -> Check:
    """Check whether lq can keep the machine awake while a job trains."""
    name, (path, failure) = "awake", readings.sleep_inhibitor
    advice = "disable automatic sleep in the system settings"
    if path is None:
        return warn(name, f"lq cannot keep this machine awake: {TOOL} is missing", advice)
    if failure is not None:
        return warn(name, f"{TOOL} does not work here: {failure}", advice)
    return ok(name, f"{TOOL} keeps the machine awake while the lid is open")


def power(readings: Readings) -> Check:
    """Check the power supply."""
    name = "power"
    if readings.battery is None:
        return ok(name, "no battery: mains power")
    charge, mains = readings.battery
    if mains:
        return ok(name, f"mains power, battery at {charge:.0%}")
    if charge < 0.2:
        return fail(name, f"on battery at {charge:.0%}", "plug it in")
    return warn(name, f"on battery at {charge:.0%}", "plug it in before a long run; see lq.power")


def sensors(readings: Readings) -> Check:
    """Check what `lq.power.thermal` and `lq.idle` depend on. A missing reading never stops a job."""
    thermal, idle_s = readings.thermal_level, readings.idle_s
    heat = f"thermal level {thermal}" if thermal is not None else "thermal level unavailable"
    use = f"last used {idle_s:,.0f} s ago" if idle_s is not None else "idle time unavailable"
    if thermal is not None and idle_s is not None:
        return ok("sensors", f"{heat}; {use}")
    keys = " and ".join(f"lq.{key}" for key, value in (("power.thermal", thermal), ("idle", idle_s)) if value is None)
    return warn("sensors", f"{heat}; {use}", f"{keys} has no effect on this machine")


def display(readings: Readings) -> Check:
    """Check whether the display sleeps: while it is on, Metal's watchdog can end a run."""
    name, advice = "display", "sudo pmset -a displaysleep 10"
    minutes, kept_on = readings.display
    if isinstance(readings.device, str) or not readings.device.metal:
        return ok(name, "no Metal, so it may stay on")
    if minutes == 0:
        return warn(name, "never sleeps: Metal's watchdog can end runs while it is on", advice)
    if kept_on:
        return warn(name, "a program keeps it on (pmset -g assertions)", "close it: Metal's watchdog can end runs")
    if minutes is None:
        return warn(name, "sleep time unknown", "let it sleep: Metal's watchdog can end runs while it is on")
    return ok(name, f"sleeps after {minutes} min")


OPEN_FILES_OF_MLX_LM = 4096
"""mlx_lm/utils.py sets the limits of open files to (2048, 4096) when it is imported, and raises if that fails."""


def open_files(readings: Readings) -> Check:
    """Check the limits of open files. The soft limit applies to the worker; MLX-LM raises it up to the hard limit."""
    name, (soft, hard) = "open files", readings.open_files
    if hard < OPEN_FILES_OF_MLX_LM:
        says = f"at most {hard:,}; MLX-LM needs {OPEN_FILES_OF_MLX_LM:,} to be imported"
        return fail(name, says, "raise the hard limit (nofile in /etc/security/limits.conf), then log in again")
    if soft < 256:
        return warn(name, f"at most {soft}", "run ulimit -n 1024 in the shell that starts the worker")
    return ok(name, f"at most {soft:,}" if soft < 1 << 40 else "unlimited")


def clock(readings: Readings) -> Check:
    """Check the clock, which time windows, deadlines and quiet hours depend on."""
    name, year = "clock", readings.local_time.tm_year
    if not 2025 <= year < 2100:
        return fail(name, f"the year is {year}", "set the clock: windows, quiet hours and the queue order use it")
    if not readings.detects_sleep:
        return warn(name, "sleep cannot be distinguished from a stall", "keep the machine awake while it trains")
    if readings.synchronised is False:
        return warn(name, "not synchronised over the network", "timedatectl set-ntp true")
    return ok(name, "synchronised over the network" if readings.synchronised else "plausible; sleep is detected")


def time_zone(readings: Readings) -> Check:
    """Check the time zone, in which time windows, deadlines and quiet hours are meant."""
    now = readings.local_time
    minutes = round(now.tm_gmtoff / 60)
    sign, distance = "-" if minutes < 0 else "+", abs(minutes)
    shown = f"UTC{sign}{distance // 60:02d}:{distance % 60:02d}, local time {now.tm_hour:02d}:{now.tm_min:02d}"
    if readings.zone_name is None:
        return warn("time zone", f"not set, so {shown}", "timedatectl set-timezone Europe/Berlin, or set TZ")
    return ok("time zone", f"{readings.zone_name}, {shown}")


def least_version(requirements: Sequence[str], package: str) -> Version | None:
    """Return the highest lower bound that requirements, as a distribution's metadata has them, set for a package."""
    parsed = (Requirement(line) for line in requirements)
    bounds = (spec for requirement in parsed if requirement.name == package for spec in requirement.specifier)
    return max((Version(spec.version) for spec in bounds if spec.operator == ">="), default=None)
