"""What `lq doctor` makes of the machine: pure judgements over readings. See orchestrator/doctor/checks.py."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from orchestrator.doctor.checks import Check, fail, gb, ok, warn
from workers.mlx.device import Device
from workers.system.mounts import Mount

OLDEST_PYTHON = (3, 11)


def python(version: tuple[int, ...], *, translated: bool, path: str) -> Check:
    """Judge the interpreter.

    Args:
        version: such as (3, 11, 7).
        translated: an x86 Python on Apple silicon, under Rosetta.
        path: of the interpreter.
    """
    name, shown = "python", ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        return fail(name, f"{shown}; lq needs 3.11 or newer", "install lq into a newer Python")
    if translated:
        says = f"{shown} for Intel, on Apple silicon: MLX has no Metal in it"
        return fail(name, says, "install lq into a Python built for arm64")
    return ok(name, f"{shown}, {path}")


def mlx(read: Device | str, least: Mapping[str, str], *, apple: bool) -> Check:
    """Judge MLX, MLX-LM and the device.

    Args:
        read: what the child found, or why it found nothing.
        least: by package (mlx, mlx-lm), the version that lq and MLX-LM ask for.
        apple: Apple silicon, where Metal is expected.
    """
    name = "mlx"
    if isinstance(read, str):
        return fail(name, f"cannot be used: {read}", "reinstall: pip install --force-reinstall mlx mlx-lm")
    have = {"mlx": read.mlx, "mlx-lm": read.mlx_lm}
    old = [package for package, version in least.items() if numbers(have[package]) < numbers(version)]
    if old:
        says = f"{old[0]} {have[old[0]]}, where {least[old[0]]} is asked for"
        return fail(name, says, "pip install --upgrade mlx mlx-lm")
    found = f"mlx {read.mlx}, mlx-lm {read.mlx_lm}, {read.device}"
    if apple and not read.metal:
        return warn(name, f"{found}, without Metal", "check that mlx is the build for macOS on arm64")
    return ok(name, found)


def kernels(read: Device | str, *, compiler: str | None) -> Check:
    """Judge whether MLX can compile: on a CPU it calls g++ while it trains.

    Without one MLX 0.32 runs its operations one by one; nothing fails. One that is there and does not work ends every
    run (both were tried).

    Args:
        read: what the child found, or why it found nothing.
        compiler: path of g++, None where there is none.
    """
    name = "compiler"
    if isinstance(read, str):
        return warn(name, "not tried, because MLX cannot be used", "see mlx")
    if read.kernel_error is not None:
        says = f"MLX cannot compile a kernel: {read.kernel_error}"
        return fail(name, says, "mend g++ and its libraries (Debian: apt install --reinstall g++)")
    if read.metal:
        return ok(name, "MLX compiles its kernels with Metal")
    if compiler is None:
        return warn(name, "no g++: MLX runs each operation by itself, maybe slower", "Debian: apt install g++")
    return ok(name, f"MLX compiled a kernel with {compiler}")


GIB = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryReading:
    """What a run may take."""

    recommended: int  # bytes the device recommends
    share: str  # memory.limit of settings.yaml's defaults, such as 85%
    limit: int  # that in bytes
    limits: Mapping[str, int]  # bytes by what limits: machine, cgroup, RLIMIT_AS
    free: int  # bytes a new process could take now


def memory(read: MemoryReading) -> Check:
    """Judge what a run may take."""
    name = "memory"
    others = ", ".join(f"{what} {gb(size)}" for what, size in read.limits.items())
    says = f"a run may take {gb(read.limit)}, {read.share} of {gb(read.recommended)} ({others})"
    if not read.share.endswith("%"):
        says = f"a run may take {gb(read.limit)}; the device recommends {gb(read.recommended)} ({others})"
    if read.limit < GIB:
        return fail(name, says, "too little for any model of use")
    if "RLIMIT_AS" in read.limits:
        advice = "ulimit -v unlimited: a run that meets this limit dies with SIGSEGV, without a word"
        return warn(name, says, advice)
    if read.limit < 3 * GIB:
        return warn(name, says, "models of up to 0.6B: lq config init quick")
    if read.free < read.limit / 2:
        return warn(name, f"{says}; {gb(read.free)} free now", "close what you do not need before the night")
    return ok(name, says)


def swap(used: int | None) -> Check:
    """Judge swap in use before anything trains, in bytes; None where it is unknown."""
    name = "swap"
    if used is None:
        return ok(name, "not known here")
    if used > 4 * GIB:
        return warn(name, f"{gb(used)} in use already", "close large programs, or restart: a run that swaps crawls")
    return ok(name, f"{gb(used)} in use")


def disk(free: int, floor: int, place: str) -> Check:
    """Judge the space on the home's disk.

    Args:
        free: bytes.
        floor: bytes below which no job trains (disk.floor of settings.yaml).
        place: of the home.
    """
    name = "disk"
    says = f"{gb(free)} free, {gb(floor)} must stay free"
    if free < floor:
        return fail(name, f"{says} ({place})", "make room (lq prune --all, lq clean), or lower disk.floor")
    if free < floor + 10 * GIB:
        return warn(name, f"{says} ({place})", "a model and its checkpoints take some GB: lq prune --all, lq clean")
    return ok(name, says)


_NETWORK = frozenset(
    {
        *("9p", "afpfs", "afs", "ceph", "cifs", "davfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "prl_fs"),
        *("smb2", "smb3", "smbfs", "vboxsf", "webdav", "fuse.ceph", "fuse.davfs2", "fuse.gcsfuse"),
        *("fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)
_GOES = {"tmpfs": "is in memory and gone after a restart", "ramfs": "is in memory and gone after a restart"}
_CONTAINER = frozenset({"overlay", "aufs"})
_SYNCED: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern, re.IGNORECASE), who)
    for pattern, who in (
        (r"/Library/Mobile Documents(/|$)", "iCloud"),
        (r"/iCloud ?Drive[^/]*(/|$)", "iCloud"),
        (r"/Library/CloudStorage/([^/-]+)", "a cloud storage"),
        (r"/Dropbox( \([^/]*\))?(/|$)", "Dropbox"),
        (r"/OneDrive( - [^/]*)?(/|$)", "OneDrive"),
        (r"/(Google ?Drive|My Drive)(/|$)", "Google Drive"),
        (r"/(Nextcloud|pCloud ?Drive|Box Sync|Syncthing)(/|$)", "a sync client"),
    )
)


def synced_by(path: str) -> str | None:
    """Return who synchronises a folder, by the names on its path; None where nobody is known to."""
    return next((who for pattern, who in _SYNCED if pattern.search(path)), None)


def filesystem(home: PurePath, mount: Mount | None, *, obstacle: str | None, apple: bool) -> Check:
    """Judge where the home lies: SQLite's WAL needs shared memory, which no network file system has.

    Args:
        home: with its links resolved.
        mount: what it lies on; None where that is unknown.
        obstacle: why it cannot be made or written, None where it can.
        apple: macOS, where iCloud may hold Documents and Desktop.
    """
    name, away = "home", "set LQ_HOME to a folder on a disk of this machine"
    if obstacle is not None:
        return fail(name, obstacle, "set LQ_HOME to a folder that can be written")
    who = synced_by(str(home))
    if who is not None:
        return fail(name, f"{home} is synchronised by {who}, which breaks the store", away)
    if mount is None:
        return warn(name, f"{home}: its file system is not known", "see that it is a disk of this machine")
    shown = f"{home} ({mount.kind})"
    if mount.kind in _NETWORK:
        return fail(name, f"{shown} is on a network: the store needs shared memory", away)
    if mount.kind in _GOES:
        return warn(name, f"{shown} {_GOES[mount.kind]}", away)
    if mount.kind in _CONTAINER:
        return warn(name, f"{shown} is of a container and gone with it", "mount a folder of the host, name it LQ_HOME")
    if "fuse" in mount.kind and mount.kind != "fuseblk":
        return warn(name, f"{shown}: not every such file system has locks and shared memory", away)
    if apple and {"Documents", "Desktop"} & set(home.parts):
        return warn(name, f"{shown}: iCloud may hold Documents and Desktop", away)
    return ok(name, shown)


def private(mode: int | None, *, mine: bool) -> Check:
    """Judge who may look into the home.

    Args:
        mode: its permissions; None where it does not exist yet.
        mine: whether this user owns it.
    """
    name = "privacy"
    if mode is None:
        return ok(name, "the home is made with mode 0700 when it is needed")
    shown = f"the home has mode {mode & 0o777:04o}"
    if not mine:
        return fail(name, f"{shown} and another owner", "chown it, or set LQ_HOME to a folder of your own")
    if mode & 0o022:
        return fail(name, f"{shown}: others can change it", "chmod 700 $LQ_HOME, and look for what is not yours")
    if mode & 0o077:
        return warn(name, f"{shown}: others can read data and settings", "chmod 700 $LQ_HOME; lq submit does it too")
    return ok(name, shown)


def awake(tool: str, path: str | None, wrong: str | None) -> Check:
    """Judge whether the machine can be kept awake while it trains.

    Args:
        tool: its name here.
        path: where it is, None where it is not.
        wrong: what it said when it was tried and failed.
    """
    name = "awake"
    if path is None:
        advice = "turn sleep off for the night in the system's settings"
        return warn(name, f"nothing keeps this machine awake: no {tool}", advice)
    if wrong is not None:
        advice = "turn sleep off for the night in the system's settings"
        return warn(name, f"{tool} does not work here: {wrong}", advice)
    return ok(name, f"{tool} keeps the machine awake, the lid open")


def power(battery: tuple[float, bool] | None) -> Check:
    """Judge the power: charge 0..1 and whether it is on mains; None for a machine without a battery."""
    name = "power"
    if battery is None:
        return ok(name, "no battery seen: mains")
    charge, mains = battery
    if mains:
        return ok(name, f"on mains, battery at {charge:.0%}")
    if charge < 0.2:
        return fail(name, f"on battery at {charge:.0%}", "plug it in: a night takes more than this")
    return warn(name, f"on battery at {charge:.0%}", "plug it in before the night; lq.power says what a job waits for")


def senses(thermal: str | None, idle_s: float | None) -> Check:
    """Say what `lq.power.thermal` and `lq.idle` go by; what the machine does not tell never stops a job.

    Args:
        thermal: one of jobs.obstacles.THERMAL, None where it is not told.
        idle_s: since somebody last used the machine, in seconds; None where it is not told.
    """
    heat = f"thermal level {thermal}" if thermal is not None else "heat is not told"
    use = f"last used {idle_s:,.0f} s ago" if idle_s is not None else "use is not told"
    said = f"{heat}; {use}"
    if thermal is not None and idle_s is not None:
        return ok("senses", said)
    keys = " and ".join(key for key, told in (("power.thermal", thermal), ("idle", idle_s)) if told is None)
    return warn("senses", said, f"nothing, unless a job asks for lq.{keys}: that never stops one here")


def display(sleep_minutes: int | None, *, held: bool, metal: bool) -> Check:
    """Judge whether the display goes dark: while it is lit, Metal's watchdog can end a run.

    Args:
        sleep_minutes: after which it goes dark; 0 for never, None where it is unknown.
        held: whether a program keeps it lit now.
        metal: whether Metal is in use at all.
    """
    name, advice = "display", "sudo pmset -a displaysleep 10; lq itself never keeps it lit"
    if not metal:
        return ok(name, "no Metal, so it may stay lit")
    if sleep_minutes == 0:
        return warn(name, "never goes dark: Metal's watchdog ends runs while it is lit", advice)
    if held:
        return warn(name, "a program keeps it lit (pmset -g assertions)", "end it: Metal's watchdog ends runs then")
    if sleep_minutes is None:
        return warn(name, "not known when it goes dark", "let it go dark: Metal's watchdog ends runs while it is lit")
    return ok(name, f"goes dark after {sleep_minutes} min, as Metal needs it")


MLX_LMS_FILES = 4096
"""mlx_lm/utils.py sets the limits of open files to (2048, 4096) as it is imported, and dies where it may not."""


def open_files(soft: int, hard: int) -> Check:
    """Judge how many files a process may have open.

    Args:
        soft: the limit in force (RLIMIT_NOFILE), which is the worker's.
        hard: the limit up to which a process may raise it, which MLX-LM does.
    """
    name = "open files"
    if hard < MLX_LMS_FILES:
        says = f"at most {hard:,}, and MLX-LM cannot be imported with less than {MLX_LMS_FILES:,}"
        return fail(name, says, "raise the hard limit (nofile in /etc/security/limits.conf), then log in anew")
    if soft < 256:
        return warn(name, f"at most {soft}", "ulimit -n 1024, in the shell that starts the worker")
    return ok(name, f"at most {soft:,}" if soft < 1 << 40 else "without a limit")


_OLDEST, _LATEST = 2025, 2100


def clock(year: int, *, tells_sleep: bool, synchronised: bool | None) -> Check:
    """Judge the clock.

    Args:
        year: what it says.
        tells_sleep: whether two clocks are there of which one stops in sleep.
        synchronised: over the network; None where the system does not say.
    """
    name = "clock"
    if not _OLDEST <= year < _LATEST:
        return fail(name, f"it is the year {year} here", "set the clock: windows, quiet hours and the order hang on it")
    if not tells_sleep:
        return warn(name, "a sleep cannot be told from a standstill here", "keep the machine awake while it trains")
    if synchronised is False:
        return warn(name, "not synchronised over the network", "timedatectl set-ntp true")
    return ok(name, "synchronised over the network" if synchronised else "sane, and sleep can be told")


def zone(name: str | None, offset_minutes: int, now: str) -> Check:
    """Judge the time zone, which windows, deadlines and quiet hours are meant in.

    Args:
        name: of the zone; None where none is set, so that UTC is taken.
        offset_minutes: east of UTC now.
        now: the hour, such as 23:05.
    """
    sign, away = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    shown = f"UTC{sign}{away // 60:02d}:{away % 60:02d}, it is {now}"
    if name is None:
        return warn("time zone", f"none is set, so {shown}", "timedatectl set-timezone Europe/Berlin, or set TZ")
    return ok("time zone", f"{name}, {shown}")


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, for comparing: (0, 32, 4) of 0.32.4.dev1."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found is not None else ()


def least_version(requirements: Sequence[str], package: str) -> str | None:
    """Return the version that some requirements ask of a package, the highest of them.

    Args:
        requirements: as a distribution's metadata has them, such as `mlx[cpu]>=0.32.4; sys_platform == "linux"`.
        package: its name.
    """
    wanted = re.compile(rf"{re.escape(package)}\s*(\[[^\]]*\])?\s*\(?>=\s*([\d.]+)", re.IGNORECASE)
    found = [match[2] for line in requirements if (match := wanted.match(line)) is not None]
    return max(found, key=numbers, default=None)
