"""What the doctor makes of each reading: every state a check can have, by table."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

import pytest

from orchestrator.doctor import checks, machine_checks
from orchestrator.doctor.checks import Check, HubReading, State, StoreReading, WorkerReading
from orchestrator.doctor.machine_checks import MemoryReading
from orchestrator.service.status import ServiceReading
from workers.mlx.device import Device
from workers.system.mounts import Mount

OK, WARN, FAIL = State.OK, State.WARN, State.FAIL
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
BROKEN = dataclasses.replace(CPU, kernel_error="no -lm")
LEAST = {"mlx": "0.32.4", "mlx-lm": "0.32.2"}
MEMORY = MemoryReading(recommended=16 * GIB, share="85%", limit=13 * GIB, limits={"machine": 16 * GIB}, free=12 * GIB)
WORKER = WorkerReading(pid=7, version="0.2", here="0.2", autostart=True)
STORE = StoreReading(version=4, newest=4, wrong=None)
SERVICE = ServiceReading(
    path=Path("/u/lq.service"), present=True, program="/p/python", program_there=True, home="/h", here="/h"
)
HUB = HubReading(cache=Path("/c"), writable=True, free=50 * 10**9, token=True, offline=False)


def filesystem(path: str, kind: str | None, *, obstacle: str | None = None, apple: bool = False) -> Check:
    mount = Mount(kind=kind, place="/") if kind is not None else None
    return machine_checks.filesystem(PurePosixPath(path), mount, obstacle=obstacle, apple=apple)


TABLE: list[tuple[str, Check, State, str]] = [
    ("python", machine_checks.python((3, 11, 7), translated=False, path="/p"), OK, "3.11.7"),
    ("old python", machine_checks.python((3, 10, 2), translated=False, path="/p"), FAIL, "3.11 or newer"),
    ("python 4", machine_checks.python((4, 0, 0), translated=False, path="/p"), OK, "4.0.0"),
    ("rosetta", machine_checks.python((3, 12, 0), translated=True, path="/p"), FAIL, "Intel"),
    ("mlx", machine_checks.mlx(CPU, LEAST, apple=False), OK, "mlx 0.32.4, mlx-lm 0.32.2, Device(cpu, 0)"),
    ("mlx on metal", machine_checks.mlx(METAL, LEAST, apple=True), OK, "Apple M2"),
    ("mlx without metal", machine_checks.mlx(CPU, LEAST, apple=True), WARN, "without Metal"),
    ("mlx too old", machine_checks.mlx(dataclasses.replace(CPU, mlx="0.9.9"), LEAST, apple=False), FAIL, "0.32.4 is"),
    ("mlx newer", machine_checks.mlx(dataclasses.replace(CPU, mlx="0.100.0"), LEAST, apple=False), OK, "0.100.0"),
    ("mlx dead", machine_checks.mlx("no module (exit code 1)", LEAST, apple=False), FAIL, "no module"),
    ("compiler", machine_checks.kernels(CPU, compiler="/usr/bin/g++"), OK, "/usr/bin/g++"),
    ("no compiler", machine_checks.kernels(CPU, compiler=None), WARN, "no g++"),
    ("metal compiles", machine_checks.kernels(METAL, compiler=None), OK, "Metal"),
    (
        "bad compiler",
        machine_checks.kernels(dataclasses.replace(CPU, kernel_error="x"), compiler="/g"),
        FAIL,
        "cannot",
    ),
    ("compiler unknown", machine_checks.kernels("dead", compiler="/g"), WARN, "not tried"),
    ("memory", machine_checks.memory(MEMORY), OK, "85% of 17.2 GB (machine 17.2 GB)"),
    ("memory in bytes", machine_checks.memory(dataclasses.replace(MEMORY, share="13")), OK, "recommends 17.2 GB"),
    ("memory taken", machine_checks.memory(dataclasses.replace(MEMORY, free=GIB)), WARN, "1.1 GB free now"),
    ("little memory", machine_checks.memory(dataclasses.replace(MEMORY, limit=2 * GIB)), WARN, "2.1 GB"),
    ("no memory", machine_checks.memory(dataclasses.replace(MEMORY, limit=GIB - 1)), FAIL, "1.1 GB"),
    (
        "address space",
        machine_checks.memory(dataclasses.replace(MEMORY, limits={"machine": 16 * GIB, "RLIMIT_AS": 14 * GIB})),
        WARN,
        "RLIMIT_AS 15.0 GB",
    ),
    ("cgroup", machine_checks.memory(dataclasses.replace(MEMORY, limits={"cgroup": 8 * GIB})), OK, "cgroup 8.6 GB"),
    ("swap", machine_checks.swap(0), OK, "0.0 GB"),
    ("swap unknown", machine_checks.swap(None), OK, "not known"),
    ("swap in use", machine_checks.swap(5 * GIB), WARN, "5.4 GB"),
    ("disk", machine_checks.disk(50 * GIB, 5 * GIB, "/h"), OK, "53.7 GB free, 5.4 GB must stay free"),
    ("disk low", machine_checks.disk(9 * GIB, 5 * GIB, "/h"), WARN, "9.7 GB free"),
    ("disk at the floor", machine_checks.disk(5 * GIB, 5 * GIB, "/h"), WARN, "5.4 GB free"),
    ("disk full", machine_checks.disk(5 * GIB - 1, 5 * GIB, "/h"), FAIL, "(/h)"),
    ("home", filesystem("/home/me/lq", "ext4"), OK, "(ext4)"),
    ("home on a mac", filesystem("/Users/me/Library/Application Support/lq", "apfs", apple=True), OK, "apfs"),
    ("home on nfs", filesystem("/home/me/lq", "nfs4"), FAIL, "network"),
    ("home on sshfs", filesystem("/home/me/lq", "fuse.sshfs"), FAIL, "network"),
    ("home on cifs", filesystem("/mnt/x", "cifs"), FAIL, "network"),
    ("home on smbfs", filesystem("/Volumes/x", "smbfs", apple=True), FAIL, "network"),
    ("home on another fuse", filesystem("/x", "fuse.gocryptfs"), WARN, "not every such"),
    ("home on ntfs", filesystem("/x", "fuseblk"), OK, "fuseblk"),
    ("home in memory", filesystem("/dev/shm/x", "tmpfs"), WARN, "gone after a restart"),
    ("home in a container", filesystem("/root/x", "overlay"), WARN, "container"),
    ("home unknown", filesystem("/x", None), WARN, "not known"),
    ("home not writable", filesystem("/x", "ext4", obstacle="/x is not a folder"), FAIL, "not a folder"),
    ("icloud", filesystem("/Users/me/Library/Mobile Documents/com~apple~CloudDocs/lq", "apfs"), FAIL, "iCloud"),
    ("cloud storage", filesystem("/Users/me/Library/CloudStorage/OneDrive-X/lq", "apfs"), FAIL, "a cloud storage"),
    ("dropbox", filesystem("/home/me/Dropbox/lq", "ext4"), FAIL, "Dropbox"),
    ("onedrive", filesystem("/home/me/OneDrive - Firm/lq", "ext4"), FAIL, "OneDrive"),
    ("google drive", filesystem("/Users/me/Google Drive/lq", "apfs"), FAIL, "Google Drive"),
    ("nextcloud", filesystem("/home/me/Nextcloud", "ext4"), FAIL, "sync client"),
    ("not dropbox", filesystem("/home/me/dropbox-notes/lq", "ext4"), OK, "ext4"),
    ("documents on a mac", filesystem("/Users/me/Documents/lq", "apfs", apple=True), WARN, "iCloud may"),
    ("documents on linux", filesystem("/home/me/Documents/lq", "ext4"), OK, "ext4"),
    ("privacy", machine_checks.private(0o40700, mine=True), OK, "0700"),
    ("no home yet", machine_checks.private(None, mine=True), OK, "when it is needed"),
    ("others read", machine_checks.private(0o40755, mine=True), WARN, "0755: others can read"),
    ("others write", machine_checks.private(0o40777, mine=True), FAIL, "others can change it"),
    ("not mine", machine_checks.private(0o40700, mine=False), FAIL, "another owner"),
    ("awake", machine_checks.awake("caffeinate", "/usr/bin/caffeinate", None), OK, "caffeinate keeps"),
    ("no awake tool", machine_checks.awake("caffeinate", None, None), WARN, "no caffeinate"),
    ("awake refused", machine_checks.awake("systemd-inhibit", "/b/s", "no bus"), WARN, "no bus"),
    ("all told", machine_checks.senses("nominal", 1234.0), OK, "thermal level nominal; last used 1,234 s ago"),
    ("no heat told", machine_checks.senses(None, 2.0), WARN, "heat is not told; last used 2 s ago"),
    ("nothing told", machine_checks.senses(None, None), WARN, "heat is not told; use is not told"),
    ("mains only", machine_checks.power(None), OK, "no battery"),
    ("plugged in", machine_checks.power((0.41, True)), OK, "on mains, battery at 41%"),
    ("on battery", machine_checks.power((0.41, False)), WARN, "on battery at 41%"),
    ("battery low", machine_checks.power((0.19, False)), FAIL, "19%"),
    ("display", machine_checks.display(10, held=False, metal=True), OK, "after 10 min"),
    ("display lit for ever", machine_checks.display(0, held=False, metal=True), WARN, "never goes dark"),
    ("display held", machine_checks.display(10, held=True, metal=True), WARN, "keeps it lit"),
    ("display unknown", machine_checks.display(None, held=False, metal=True), WARN, "not known"),
    ("display without metal", machine_checks.display(0, held=True, metal=False), OK, "no Metal"),
    ("open files", machine_checks.open_files(1024, 4096), OK, "1,024"),
    ("open files without limit", machine_checks.open_files(1 << 62, 1 << 62), OK, "without a limit"),
    ("few open files", machine_checks.open_files(255, 1 << 62), WARN, "255"),
    ("too few open files", machine_checks.open_files(1024, 4095), FAIL, "less than 4,096"),
    ("clock", machine_checks.clock(2026, tells_sleep=True, synchronised=True), OK, "synchronised over"),
    ("clock unknown", machine_checks.clock(2026, tells_sleep=True, synchronised=None), OK, "sane"),
    ("clock alone", machine_checks.clock(2026, tells_sleep=True, synchronised=False), WARN, "not synchronised"),
    ("clock one", machine_checks.clock(2026, tells_sleep=False, synchronised=True), WARN, "standstill"),
    ("clock 1970", machine_checks.clock(1970, tells_sleep=True, synchronised=True), FAIL, "1970"),
    ("clock 2100", machine_checks.clock(2100, tells_sleep=True, synchronised=True), FAIL, "2100"),
    ("zone", machine_checks.zone("Europe/Berlin", 120, "23:05"), OK, "Europe/Berlin, UTC+02:00, it is 23:05"),
    ("zone west", machine_checks.zone("America/St_Johns", -150, "1:00"), OK, "UTC-02:30"),
    ("no zone", machine_checks.zone(None, 0, "21:05"), WARN, "none is set"),
    ("packages", checks.packages(None, []), OK, "lq's own"),
    ("shadowed", checks.packages(("jobs", Path("/x/jobs.py")), []), FAIL, "jobs comes from /x/jobs.py"),
    ("lookalike", checks.packages(None, [Path("/x/jobs.py")]), WARN, "/x/jobs.py"),
    ("worker", checks.worker(WORKER), OK, "pid 7, lq 0.2"),
    ("no worker", checks.worker(dataclasses.replace(WORKER, pid=None)), OK, "lq submit starts one"),
    ("no autostart", checks.worker(dataclasses.replace(WORKER, pid=None, autostart=False)), WARN, "autostart is off"),
    ("older worker", checks.worker(dataclasses.replace(WORKER, version="0.1")), WARN, "runs lq 0.1, this is 0.2"),
    ("oldest worker", checks.worker(dataclasses.replace(WORKER, version=None)), WARN, "an older lq"),
    ("store", checks.store(STORE), OK, "version 4"),
    ("no store", checks.store(dataclasses.replace(STORE, version=None)), OK, "none yet"),
    ("older store", checks.store(dataclasses.replace(STORE, version=2)), WARN, "version 2"),
    ("newer store", checks.store(dataclasses.replace(STORE, version=5)), FAIL, "this lq knows 4"),
    ("damaged store", checks.store(dataclasses.replace(STORE, wrong="is damaged")), FAIL, "is damaged"),
    ("services", checks.notifications(["phone", "mail"], None), OK, "2 services: phone, mail; try: lq notify test"),
    ("one service", checks.notifications(["phone"], None), OK, "1 service: phone"),
    ("nobody", checks.notifications([], None), WARN, "nobody"),
    ("bad settings", checks.notifications([], "settings.yaml:3: no"), FAIL, "settings.yaml:3"),
    ("service", checks.service(SERVICE), OK, "lq.service starts a worker"),
    ("no service", checks.service(dataclasses.replace(SERVICE, present=False)), WARN, "after a reboot"),
    ("service of nothing", checks.service(dataclasses.replace(SERVICE, program=None)), FAIL, "does not say"),
    ("service moved", checks.service(dataclasses.replace(SERVICE, program_there=False)), FAIL, "which is gone"),
    ("service elsewhere", checks.service(dataclasses.replace(SERVICE, home="/o")), WARN, "looks after /o"),
    ("hub", checks.hub(HUB), OK, "a token is set"),
    ("hub without token", checks.hub(dataclasses.replace(HUB, token=False)), OK, "gated models"),
    ("hub offline", checks.hub(dataclasses.replace(HUB, offline=True)), WARN, "HF_HUB_OFFLINE"),
    ("hub full", checks.hub(dataclasses.replace(HUB, free=2 * 10**9)), WARN, "2.0 GB free"),
    ("hub closed", checks.hub(dataclasses.replace(HUB, writable=False)), FAIL, "cannot be written"),
    ("broken", checks.broken("disk", ValueError("two\nlines")), WARN, "broke: ValueError: two lines"),
]


@pytest.mark.parametrize(("check", "state", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_reading_is_judged(check: Check, state: State, words: str) -> None:
    assert check.state is state
    assert words in check.says
    assert (check.advice is None) == (state is OK), "what is not well comes with what to do"


def test_no_state_is_missing_from_the_table() -> None:
    """Every check can be well and can be something else; most can be all three."""
    states: dict[str, set[State]] = {}
    for _, check, state, _ in TABLE:
        states.setdefault(check.name, set()).add(state)
    assert all(OK in found for name, found in states.items())
    assert {name for name, found in states.items() if len(found) < 2} == set()
    assert len({name for name, found in states.items() if len(found) == 3}) >= 12


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
def test_the_version_asked_for_is_the_highest_of_all_who_ask(
    lines: list[str], package: str, version: str | None
) -> None:
    assert machine_checks.least_version(lines, package) == version
