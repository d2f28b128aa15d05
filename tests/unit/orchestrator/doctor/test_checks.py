"""Every state that a check of `lq doctor` can have, by table."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from configs.settings import Settings
from jobs.model.errors import ConfigInvalid
from orchestrator.core.paths import Home
from orchestrator.doctor.check import Check, CheckState
from orchestrator.doctor.examine import CHECKS
from orchestrator.doctor.machine_checks import least_version
from orchestrator.doctor.readings import Readings
from orchestrator.service.units import ServiceFile
from workers.mlx.device import Device, DeviceQuery
from workers.system.disk import Mount

OK, WARN, FAIL = CheckState.OK, CheckState.WARN, CheckState.FAIL
GIB = 1 << 30
CPU = Device(
    mlx="0.32.4",
    mlx_lm="0.32.2",
    device="Device(cpu, 0) on x86_64",
    metal=False,
    recommended=16 * GIB,
    kernel_error=None,
)
METAL = dataclasses.replace(CPU, device="Device(gpu, 0) on Apple M2", metal=True)
MEMORY: dict[str, Any] = {
    "memory_limit": ("85%", 13 * GIB),
    "recommended_memory": 16 * GIB,
    "memory_limits": {"machine": 16 * GIB},
    "free_memory": 12 * GIB,
}
SERVICE = ServiceFile(path=Path("/u/lq.service"), present=True, program=Path("/bin/sh"), home="/h")
HUB: dict[str, Any] = {
    "hub_cache": Path("/c"),
    "hub_cache_disk": (True, 50 * 10**9),
    "hub_token": True,
    "hub_offline": False,
}
DEFAULTS: dict[str, Any] = {
    "apple": False,
    "macos": False,
    "requirements": ["mlx>=0.32.4", "mlx-lm>=0.32.2"],
    "lq_version": "0.2",
}


def located(path: str, kind: str | None, *, obstacle: str | None = None, macos: bool = False) -> dict[str, Any]:
    mount = Mount(kind=kind, place="/") if kind is not None else None
    return {"home_location": (Path(path), mount, obstacle), "macos": macos}


def at(year: int, offset_s: int = 0) -> time.struct_time:
    """Return 23:05 in a year, in a zone that is `offset_s` seconds east of UTC."""
    return time.struct_time((year, 11, 30, 23, 5, 0, 0, 334, 0, "X", offset_s))


TABLE: list[tuple[str, str, dict[str, Any], CheckState, str]] = [
    ("python", "python", {"python": ((3, 11, 7), False, "/p")}, OK, "3.11.7"),
    ("old python", "python", {"python": ((3, 10, 2), False, "/p")}, FAIL, "3.11 or newer"),
    ("python 4", "python", {"python": ((4, 0, 0), False, "/p")}, OK, "4.0.0"),
    ("rosetta", "python", {"python": ((3, 12, 0), True, "/p")}, FAIL, "Intel"),
    ("mlx", "mlx", {"device": CPU}, OK, "mlx 0.32.4, mlx-lm 0.32.2, Device(cpu, 0)"),
    ("mlx on metal", "mlx", {"device": METAL, "apple": True}, OK, "Apple M2"),
    ("mlx without metal", "mlx", {"device": CPU, "apple": True}, WARN, "without Metal"),
    ("mlx too old", "mlx", {"device": dataclasses.replace(CPU, mlx="0.9.9")}, FAIL, "0.32.4"),
    ("mlx newer", "mlx", {"device": dataclasses.replace(CPU, mlx="0.100.0")}, OK, "0.100.0"),
    ("mlx unusable", "mlx", {"device": "no module (exit code 1)"}, FAIL, "no module"),
    ("compiler", "compiler", {"device": CPU, "compiler": "/usr/bin/g++"}, OK, "/usr/bin/g++"),
    ("no compiler", "compiler", {"device": CPU, "compiler": None}, WARN, "no g++"),
    ("metal compiles", "compiler", {"device": METAL, "compiler": None}, OK, "Metal"),
    (
        "bad compiler",
        "compiler",
        {"device": dataclasses.replace(CPU, kernel_error="x"), "compiler": "/g"},
        FAIL,
        "cannot",
    ),
    ("compiler unknown", "compiler", {"device": "crashed", "compiler": "/g"}, WARN, "not tried"),
    ("memory", "memory", MEMORY, OK, "85% of 17.2 GB (machine 17.2 GB)"),
    ("memory in bytes", "memory", MEMORY | {"memory_limit": ("13", 13 * GIB)}, OK, "recommends 17.2 GB"),
    ("memory in use", "memory", MEMORY | {"free_memory": GIB}, WARN, "1.07 GB free now"),
    ("little memory", "memory", MEMORY | {"memory_limit": ("85%", 2 * GIB)}, WARN, "2.15 GB"),
    ("no memory", "memory", MEMORY | {"memory_limit": ("85%", GIB - 1)}, FAIL, "1.07 GB"),
    (
        "address space",
        "memory",
        MEMORY | {"memory_limits": {"machine": 16 * GIB, "RLIMIT_AS": 14 * GIB}},
        WARN,
        "RLIMIT_AS 15 GB",
    ),
    ("cgroup", "memory", MEMORY | {"memory_limits": {"cgroup": 8 * GIB}}, OK, "cgroup 8.59 GB"),
    ("swap", "swap", {"swap_in_use": 0}, OK, "0 B"),
    ("swap unknown", "swap", {"swap_in_use": None}, OK, "unknown"),
    ("swap in use", "swap", {"swap_in_use": 5 * GIB}, WARN, "5.37 GB"),
    ("disk", "disk", {"disk": (50 * GIB, 5 * GIB, "/h")}, OK, "53.7 GB free, 5.37 GB must stay free"),
    ("disk low", "disk", {"disk": (9 * GIB, 5 * GIB, "/h")}, WARN, "9.66 GB free"),
    ("disk at the floor", "disk", {"disk": (5 * GIB, 5 * GIB, "/h")}, WARN, "5.37 GB free"),
    ("disk full", "disk", {"disk": (5 * GIB - 1, 5 * GIB, "/h")}, FAIL, "(/h)"),
    ("home", "home", located("/home/me/lq", "ext4"), OK, "(ext4)"),
    ("home on a mac", "home", located("/Users/me/Library/Application Support/lq", "apfs", macos=True), OK, "apfs"),
    ("home on nfs", "home", located("/home/me/lq", "nfs4"), FAIL, "network"),
    ("home on sshfs", "home", located("/home/me/lq", "fuse.sshfs"), FAIL, "network"),
    ("home on cifs", "home", located("/mnt/x", "cifs"), FAIL, "network"),
    ("home on smbfs", "home", located("/Volumes/x", "smbfs", macos=True), FAIL, "network"),
    ("home on another fuse", "home", located("/x", "fuse.gocryptfs"), WARN, "FUSE"),
    ("home on ntfs", "home", located("/x", "fuseblk"), OK, "fuseblk"),
    ("home in memory", "home", located("/dev/shm/x", "tmpfs"), WARN, "restart"),
    ("home in a container", "home", located("/root/x", "overlay"), WARN, "container"),
    ("home unknown", "home", located("/x", None), WARN, "unknown"),
    ("home not writable", "home", located("/x", "ext4", obstacle="/x is not a folder"), FAIL, "not a folder"),
    ("icloud", "home", located("/Users/me/Library/Mobile Documents/com~apple~CloudDocs/lq", "apfs"), FAIL, "iCloud"),
    ("cloud storage", "home", located("/Users/me/Library/CloudStorage/OneDrive-X/lq", "apfs"), FAIL, "a cloud storage"),
    ("dropbox", "home", located("/home/me/Dropbox/lq", "ext4"), FAIL, "Dropbox"),
    ("onedrive", "home", located("/home/me/OneDrive - Firm/lq", "ext4"), FAIL, "OneDrive"),
    ("google drive", "home", located("/Users/me/Google Drive/lq", "apfs"), FAIL, "Google Drive"),
    ("nextcloud", "home", located("/home/me/Nextcloud", "ext4"), FAIL, "sync client"),
    ("not dropbox", "home", located("/home/me/dropbox-notes/lq", "ext4"), OK, "ext4"),
    ("documents on a mac", "home", located("/Users/me/Documents/lq", "apfs", macos=True), WARN, "iCloud"),
    ("documents on linux", "home", located("/home/me/Documents/lq", "ext4"), OK, "ext4"),
    ("privacy", "privacy", {"home_mode": (0o40700, True)}, OK, "0700"),
    ("no home yet", "privacy", {"home_mode": (None, True)}, OK, "does not exist"),
    ("others read", "privacy", {"home_mode": (0o40755, True)}, WARN, "0755"),
    ("others write", "privacy", {"home_mode": (0o40777, True)}, FAIL, "can change it"),
    ("not mine", "privacy", {"home_mode": (0o40700, False)}, FAIL, "another owner"),
    ("awake", "awake", {"sleep_inhibitor": ("/usr/bin/caffeinate", None)}, OK, "awake"),
    ("no awake tool", "awake", {"sleep_inhibitor": (None, None)}, WARN, "missing"),
    ("awake refused", "awake", {"sleep_inhibitor": ("/b/s", "no bus")}, WARN, "no bus"),
    (
        "all sensors",
        "sensors",
        {"thermal_level": "nominal", "idle_s": 1234.0},
        OK,
        "thermal level nominal; last used 1,234 s ago",
    ),
    (
        "no heat sensor",
        "sensors",
        {"thermal_level": None, "idle_s": 2.0},
        WARN,
        "thermal level unavailable; last used 2 s ago",
    ),
    ("no sensors", "sensors", {"thermal_level": None, "idle_s": None}, WARN, "idle time unavailable"),
    ("mains only", "power", {"battery": None}, OK, "no battery"),
    ("plugged in", "power", {"battery": (0.41, True)}, OK, "battery at 41%"),
    ("on battery", "power", {"battery": (0.41, False)}, WARN, "on battery at 41%"),
    ("battery low", "power", {"battery": (0.19, False)}, FAIL, "19%"),
    ("display", "display", {"device": METAL, "display": (10, False)}, OK, "after 10 min"),
    ("display always on", "display", {"device": METAL, "display": (0, False)}, WARN, "never sleeps"),
    ("display kept on", "display", {"device": METAL, "display": (10, True)}, WARN, "keeps it on"),
    ("display unknown", "display", {"device": METAL, "display": (None, False)}, WARN, "unknown"),
    ("display without metal", "display", {"device": CPU, "display": (0, True)}, OK, "no Metal"),
    ("open files", "open files", {"open_files": (1024, 4096)}, OK, "1,024"),
    ("open files unlimited", "open files", {"open_files": (1 << 62, 1 << 62)}, OK, "unlimited"),
    ("few open files", "open files", {"open_files": (255, 1 << 62)}, WARN, "255"),
    ("too few open files", "open files", {"open_files": (1024, 4095)}, FAIL, "4,096"),
    ("clock", "clock", {"local_time": at(2026), "detects_sleep": True, "synchronised": True}, OK, "synchronised over"),
    (
        "clock unknown",
        "clock",
        {"local_time": at(2026), "detects_sleep": True, "synchronised": None},
        OK,
        "sleep is detected",
    ),
    (
        "clock alone",
        "clock",
        {"local_time": at(2026), "detects_sleep": True, "synchronised": False},
        WARN,
        "not synchronised",
    ),
    ("one clock", "clock", {"local_time": at(2026), "detects_sleep": False, "synchronised": True}, WARN, "stall"),
    ("clock 1970", "clock", {"local_time": at(1970), "detects_sleep": True, "synchronised": True}, FAIL, "1970"),
    ("clock 2100", "clock", {"local_time": at(2100), "detects_sleep": True, "synchronised": True}, FAIL, "2100"),
    (
        "zone",
        "time zone",
        {"zone_name": "Europe/Berlin", "local_time": at(2026, 7200)},
        OK,
        "Europe/Berlin, UTC+02:00, local time 23:05",
    ),
    ("zone west", "time zone", {"zone_name": "America/St_Johns", "local_time": at(2026, -9000)}, OK, "UTC-02:30"),
    ("no zone", "time zone", {"zone_name": None, "local_time": at(2026)}, WARN, "not set"),
    ("packages", "packages", {"shadowed_package": None, "lookalikes": []}, OK, "lq's own"),
    ("shadowed", "packages", {"shadowed_package": ("jobs", Path("/x/jobs.py")), "lookalikes": []}, FAIL, "/x/jobs.py"),
    ("lookalike", "packages", {"shadowed_package": None, "lookalikes": [Path("/x/jobs.py")]}, WARN, "/x/jobs.py"),
    ("reports", "reports", {"unreported_jobs": []}, OK, "every finished job"),
    ("reports missing", "reports", {"unreported_jobs": list(range(3, 12))}, WARN, "3, 4, 5, 6, 7 and 4 more"),
    ("worker", "worker", {"worker": {"pid": 7, "lq": "0.2"}, "settings": Settings()}, OK, "pid 7, lq 0.2"),
    ("no worker", "worker", {"worker": None, "settings": Settings()}, OK, "lq submit starts it"),
    ("no autostart", "worker", {"worker": None, "settings": Settings(autostart=False)}, WARN, "autostart is off"),
    (
        "older worker",
        "worker",
        {"worker": {"pid": 7, "lq": "0.1"}, "settings": Settings()},
        WARN,
        "lq 0.1, this is 0.2",
    ),
    ("oldest worker", "worker", {"worker": {"pid": 7}, "settings": Settings()}, WARN, "an older lq"),
    ("services", "notify", {"service_names": ("phone", "mail"), "settings": Settings()}, OK, "2 services: phone, mail"),
    ("one service", "notify", {"service_names": ("phone",), "settings": Settings()}, OK, "1 service: phone"),
    ("no notification", "notify", {"service_names": (), "settings": Settings()}, WARN, "no notification service"),
    (
        "bad settings",
        "notify",
        {"settings": ConfigInvalid("settings.yaml:3: no"), "service_names": ()},
        FAIL,
        "settings.yaml:3",
    ),
    ("service", "service", {"service_file": SERVICE}, OK, "lq.service starts a worker"),
    ("no service", "service", {"service_file": ServiceFile(path=SERVICE.path, present=False)}, WARN, "after a reboot"),
    (
        "service of nothing",
        "service",
        {"service_file": dataclasses.replace(SERVICE, program=None)},
        FAIL,
        "names no program",
    ),
    (
        "service moved",
        "service",
        {"service_file": dataclasses.replace(SERVICE, program=Path("/gone"))},
        FAIL,
        "does not exist",
    ),
    ("service elsewhere", "service", {"service_file": dataclasses.replace(SERVICE, home="/o")}, WARN, "serves /o"),
    ("hub", "hub", HUB, OK, "token set"),
    ("hub without token", "hub", HUB | {"hub_token": False}, OK, "gated models"),
    ("hub offline", "hub", HUB | {"hub_offline": True}, WARN, "HF_HUB_OFFLINE"),
    ("hub full", "hub", HUB | {"hub_cache_disk": (True, 2 * 10**9)}, WARN, "2 GB free"),
    ("hub closed", "hub", HUB | {"hub_cache_disk": (False, 50 * 10**9)}, FAIL, "cannot be written"),
]


def judged(name: str, values: dict[str, Any]) -> Check:
    """Run a check on readings that are given instead of taken."""
    readings = Readings(Home(Path("/h")), {}, DeviceQuery())
    vars(readings).update(DEFAULTS | values)
    return CHECKS[name](readings)


@pytest.mark.parametrize(
    ("name", "values", "state", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_check_judges_reading(name: str, values: dict[str, Any], state: CheckState, words: str) -> None:
    check = judged(name, values)
    assert (check.name, check.state) == (name, state)
    assert words in check.says
    assert (check.advice is None) == (state is OK), "a problem comes with advice"


def test_table_covers_every_check() -> None:
    """Every check but that of the store, which test_doctor.py covers, can be ok and not ok."""
    states: dict[str, set[CheckState]] = {}
    for _, name, _, state, _ in TABLE:
        states.setdefault(name, set()).add(state)
    assert set(states) == set(CHECKS) - {"store"}
    assert all(OK in found and len(found) > 1 for found in states.values())
    assert len([name for name, found in states.items() if len(found) == 3]) >= 12


@pytest.mark.parametrize(
    ("lines", "package", "version"),
    [
        (['mlx[cpu]>=0.32.4; sys_platform == "linux"', 'mlx>=0.32.2; platform_system == "Darwin"'], "mlx", "0.32.4"),
        (["mlx>=0.9", "mlx>=0.10"], "mlx", "0.10"),
        (["mlx-lm>=0.32.2", "mlx (>=1.0)"], "mlx", "1.0"),
        (["mlx-lm>=0.32.2"], "mlx-lm", "0.32.2"),
        (["mlx-lm>=0.32.2"], "mlx", None),
        (["mlx==1.0"], "mlx", None),
    ],
)
def test_least_version_is_highest_bound(lines: list[str], package: str, version: str | None) -> None:
    found = least_version(lines, package)
    assert (None if found is None else str(found)) == version
