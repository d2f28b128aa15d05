"""`lq doctor`: reads the machine and the home, and has each reading judged. Nothing is changed, nothing is sent.

The judgements are orchestrator/doctor/checks.py's and orchestrator/doctor/machine_checks.py's. MLX is looked at by a
child of its own, while the rest is read. A check that breaks is a line like any other: one odd machine must not hide
what the others say.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.model.errors import ConfigInvalid, HomeUnusable, StoreUnusable
from jobs.model.memory_limit import limit_bytes
from orchestrator.core.paths import Home
from orchestrator.doctor import checks, machine_checks
from orchestrator.doctor.checks import Check
from orchestrator.service import status as service_reading
from orchestrator.worker import control
from workers.mlx.device import Asking, Device
from workers.system import machine_readings, mounts, power, processes, sensors
from workers.system.awake import TOOL

if TYPE_CHECKING:
    from configs.settings import Settings


@dataclasses.dataclass
class Patient:
    """What is examined. Each check reads what it needs, once."""

    home: Home
    environment: Mapping[str, str]
    asking: Asking  # the child that looks at MLX

    @cached_property
    def device(self) -> Device | str:
        """What MLX found, or why it found nothing; waits for the child."""
        return self.asking.answer()

    @cached_property
    def settings(self) -> Settings | ConfigInvalid:
        """settings.yaml, or what is wrong with it."""
        from configs.settings import load_settings

        try:
            return load_settings(self.home.settings)
        except ConfigInvalid as error:
            return error

    @property
    def followed(self) -> Settings:
        """The settings, or the defaults where they cannot be followed."""
        from configs.settings import Settings

        return Settings() if isinstance(self.settings, ConfigInvalid) else self.settings

    @property
    def ground(self) -> Path:
        """The home, or the nearest folder around it that exists."""
        return next(place for place in (self.home.path, *self.home.path.parents) if place.exists())


Look = Callable[[Patient], Check]


def examine(home: Home, environment: Mapping[str, str]) -> list[Check]:
    """Make every check.

    Args:
        home: need not exist.
        environment: such as os.environ.
    """
    with Asking() as asking:
        patient = Patient(home, environment, asking)
        found = {name: _made(name, look, patient) for name, look in (*AT_ONCE.items(), *WITH_MLX.items())}
    return [found[name] for name in ORDER]


def _made(name: str, look: Look, patient: Patient) -> Check:
    try:
        return look(patient)
    except Exception as error:  # noqa: BLE001 a machine odd enough to break a check is what the doctor is called for
        return checks.broken(name, error)


# --- the machine ---


def _python(_: Patient) -> Check:
    translated = machine_readings.is_translated()
    return machine_checks.python(sys.version_info[:3], translated=translated, path=sys.executable)


def _mlx(patient: Patient) -> Check:
    wanted = [*(importlib.metadata.requires("lq") or ()), *(importlib.metadata.requires("mlx-lm") or ())]
    least = {
        package: version
        for package in ("mlx", "mlx-lm")
        if (version := machine_checks.least_version(wanted, package)) is not None
    }
    return machine_checks.mlx(patient.device, least, apple=machine_readings.is_apple_silicon())


def _kernels(patient: Patient) -> Check:
    return machine_checks.kernels(patient.device, compiler=shutil.which("g++"))


def _memory(patient: Patient) -> Check:
    limits = sensors.memory_limits()
    device = patient.device
    recommended = min(limits.values()) if isinstance(device, str) else device.recommended
    limit = patient.followed.defaults.memory.limit
    reading = machine_checks.MemoryReading(
        recommended=recommended,
        share=str(limit),
        limit=limit_bytes(limit, recommended),
        limits=limits,
        free=processes.free_bytes(),
    )
    return machine_checks.memory(reading)


def _swap(_: Patient) -> Check:
    return machine_checks.swap(processes.swap_bytes())


def _disk(patient: Patient) -> Check:
    free = shutil.disk_usage(patient.ground).free
    return machine_checks.disk(free, patient.followed.disk.floor, str(patient.ground))


def _filesystem(patient: Patient) -> Check:
    path = patient.home.path
    obstacle, mount = None, None
    try:
        path, ground = path.resolve(), patient.ground
        mount = mounts.mount_of(path)
        if not ground.is_dir():
            obstacle = f"{ground} is not a folder"
        elif not os.access(ground, os.W_OK | os.X_OK):
            obstacle = f"{ground} cannot be written"
    except (OSError, RuntimeError) as error:  # no leave to look; links in a circle
        obstacle = f"{path} cannot be reached: {error}"
    return machine_checks.filesystem(path, mount, obstacle=obstacle, apple=sys.platform == "darwin")


def _privacy(patient: Patient) -> Check:
    if not patient.home.path.exists():
        return machine_checks.private(None, mine=True)
    status = patient.home.path.stat()
    return machine_checks.private(status.st_mode, mine=status.st_uid == os.geteuid())


def _awake(_: Patient) -> Check:
    path, wrong = machine_readings.awake_tool()
    return machine_checks.awake(TOOL, path, wrong)


def _power(_: Patient) -> Check:
    return machine_checks.power(processes.battery())


def _senses(_: Patient) -> Check:
    return machine_checks.senses(power.thermal_level(), power.idle_s())


def _display(patient: Patient) -> Check:
    minutes, held = machine_readings.display()
    metal = not isinstance(patient.device, str) and patient.device.metal
    return machine_checks.display(minutes, held=held, metal=metal)


def _open_files(_: Patient) -> Check:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (1 << 62 if limit == resource.RLIM_INFINITY else limit for limit in limits)
    return machine_checks.open_files(soft, hard)


def _clock(_: Patient) -> Check:
    synchronised = machine_readings.is_synchronised()
    return machine_checks.clock(
        time.localtime().tm_year, tells_sleep=machine_readings.tells_sleep(), synchronised=synchronised
    )


def _zone(patient: Patient) -> Check:
    now = time.localtime()
    offset = round(now.tm_gmtoff / 60)
    return machine_checks.zone(machine_readings.zone_name(patient.environment), offset, time.strftime("%H:%M", now))


# --- lq itself ---


def _packages(patient: Patient) -> Check:
    from orchestrator.core.installation import PACKAGES, shadowed

    own = Path(__file__).resolve().parents[2]
    folders = [Path(part) for part in patient.environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    alike = [
        place
        for folder in folders
        if folder.resolve() != own
        for name in PACKAGES
        for place in (folder / f"{name}.py", folder / name)
        if place.exists()
    ]
    return checks.packages(shadowed(own), alike)


def _messages(patient: Patient) -> Check:
    from orchestrator.notify.routing import service_names

    if isinstance(patient.settings, ConfigInvalid):
        return checks.notifications((), str(patient.settings))
    return checks.notifications(service_names(patient.settings.notify.everyone), None)


def _worker(patient: Patient) -> Check:
    present = None
    with suppress(OSError):  # what is wrong with the home is told by its own check
        present = control.running(patient.home)
    reading = checks.WorkerReading(
        pid=int(present["pid"]) if present is not None else None,
        version=present.get("lq") if present is not None else None,
        here=importlib.metadata.version("lq"),
        autostart=patient.followed.autostart,
    )
    return checks.worker(reading)


def _store(patient: Patient) -> Check:
    from orchestrator.store.versions import MIGRATIONS, version_of

    newest, version, wrong = int(MIGRATIONS.newest), None, None
    try:
        version = version_of(patient.home.store)
    except (StoreUnusable, HomeUnusable) as error:
        wrong = str(error)
    return checks.store(checks.StoreReading(version=version, newest=newest, wrong=wrong))


def _service(patient: Patient) -> Check:
    return checks.service(service_reading.read(patient.home, patient.environment))


def _hub(patient: Patient) -> Check:
    told = patient.environment
    cache_home = Path(told.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    hub_home = Path(told.get("HF_HOME") or cache_home / "huggingface").expanduser()
    cache = Path(told.get("HF_HUB_CACHE") or hub_home / "hub").expanduser()
    ground = next(place for place in (cache, *cache.absolute().parents) if place.exists())
    token = Path(told.get("HF_TOKEN_PATH") or hub_home / "token").expanduser()
    reading = checks.HubReading(
        cache=cache,
        writable=ground.is_dir() and os.access(ground, os.W_OK | os.X_OK),
        free=shutil.disk_usage(ground).free,
        token=bool(told.get("HF_TOKEN")) or token.is_file(),
        offline=told.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
    )
    return checks.hub(reading)


AT_ONCE: Mapping[str, Look] = {
    "python": _python,
    "packages": _packages,
    "swap": _swap,
    "disk": _disk,
    "home": _filesystem,
    "privacy": _privacy,
    "awake": _awake,
    "power": _power,
    "senses": _senses,
    "open files": _open_files,
    "clock": _clock,
    "time zone": _zone,
    "messages": _messages,
    "worker": _worker,
    "store": _store,
    "service": _service,
    "hub": _hub,
}
"""What is read while the child starts."""

WITH_MLX: Mapping[str, Look] = {"memory": _memory, "mlx": _mlx, "compiler": _kernels, "display": _display}
"""What needs the child's answer."""

ORDER = (
    *("python", "packages", "mlx", "compiler", "memory", "swap", "disk"),
    *("home", "privacy", "store", "worker", "service", "messages", "hub"),
    *("awake", "power", "senses", "display", "open files", "clock", "time zone"),
)
"""As they are told."""
