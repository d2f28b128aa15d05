"""What the checks read from the machine and the home. Each reading is taken once, when a check first needs it.

Nothing is changed and nothing is sent. A child process examines MLX, so that the command line never imports it.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.model.errors import ConfigInvalid, LqError
from jobs.model.memory_limit import limit_bytes
from orchestrator.core.paths import Home
from orchestrator.model_files import hub_cache
from orchestrator.service.units import ServiceFile, read_service_file
from orchestrator.worker import control
from workers.mlx.device import Device, DeviceQuery
from workers.system import clock, disk, keep_awake, memory, processes, processor, thermal, user_activity
from workers.system.disk import Mount

if TYPE_CHECKING:
    from configs.settings import Settings


class Readings:
    """The readings of one examination. A test sets a reading by its name instead of taking it."""

    def __init__(self, home: Home, environment: Mapping[str, str], device_query: DeviceQuery) -> None:
        self.home = home
        self.environment = environment
        self._device_query = device_query

    # --- readings that depend on nothing else ---

    python = cached_property(lambda _: (sys.version_info[:3], processor.is_translated(), sys.executable))
    """Version, whether an x86 Python runs on Apple silicon, and the path of the interpreter."""
    apple = cached_property(lambda _: processor.is_apple_silicon())
    """Whether this is Apple silicon, where MLX should use Metal."""
    macos = cached_property(lambda _: sys.platform == "darwin")
    """Whether this is macOS, where iCloud may hold Documents and Desktop."""
    compiler = cached_property(lambda _: shutil.which("g++"))
    """Path of g++; None if there is none."""
    memory_limits = cached_property(lambda _: memory.memory_limits())
    """Bytes by source of the limit: machine, cgroup, RLIMIT_AS."""
    swap_in_use = cached_property(lambda _: processes.swap_bytes())
    """Bytes; None if unknown."""
    battery = cached_property(lambda _: processes.battery())
    """Charge from 0 to 1 and whether it is on mains; None without a battery."""
    thermal_level = cached_property(lambda _: thermal.thermal_level())
    """One of jobs.scheduling.obstacles.THERMAL; None if the machine does not report it."""
    idle_s = cached_property(lambda _: user_activity.idle_s())
    """Seconds since the machine was last used; None if the machine does not report it."""
    display = cached_property(lambda _: keep_awake.display())
    """Minutes until the display sleeps (0: never, None: unknown), and whether a program keeps it on."""
    detects_sleep = cached_property(lambda _: clock.can_measure_sleep())
    """Whether the machine has a clock that stops during sleep and one that does not."""
    synchronised = cached_property(lambda _: clock.is_synchronized())
    """Whether the clock is synchronised over the network; None if the system does not report it."""
    free_memory = cached_property(lambda _: processes.memory()[0])
    """Bytes that a new process could use now."""
    local_time = cached_property(lambda _: time.localtime())
    """The local time now."""
    lq_version = cached_property(lambda _: importlib.metadata.version("lq"))
    """Version of this lq."""
    sleep_inhibitor = cached_property(lambda _: keep_awake.try_tool())
    """Path of the command that keeps the machine awake, and how it failed when it was tried."""

    # --- Python, MLX and the device ---

    @cached_property
    def device(self) -> Device | str:
        """What MLX found, or why it cannot be used. Waits for the child process."""
        return self._device_query.result()

    @cached_property
    def requirements(self) -> list[str]:
        """The requirements of lq and MLX-LM, as their metadata lists them."""
        return [*(importlib.metadata.requires("lq") or ()), *(importlib.metadata.requires("mlx-lm") or ())]

    # --- memory and disk ---

    @cached_property
    def recommended_memory(self) -> int:
        """Bytes that the device recommends to use."""
        return min(self.memory_limits.values()) if isinstance(self.device, str) else self.device.recommended

    @cached_property
    def memory_limit(self) -> tuple[str, int]:
        """`memory.limit` of the defaults in settings.yaml, as written and in bytes."""
        limit = self.settings_or_defaults.defaults.memory.limit
        return str(limit), limit_bytes(limit, self.recommended_memory)

    @cached_property
    def disk(self) -> tuple[int, int, str]:
        """Free bytes on the disk of the home, `disk.floor` in bytes, and the folder that was looked at."""
        folder = self.existing_folder
        return shutil.disk_usage(folder).free, self.settings_or_defaults.disk.floor, str(folder)

    # --- the home ---

    @property
    def existing_folder(self) -> Path:
        """The home, or its nearest parent folder that exists."""
        return next(folder for folder in (self.home.path, *self.home.path.parents) if folder.exists())

    @cached_property
    def home_location(self) -> tuple[Path, Mount | None, str | None]:
        """The home with its links resolved, its file system if known, and why it cannot be used."""
        path = self.home.path
        try:
            path, folder = path.resolve(), self.existing_folder
            mount = disk.mount_of(path)
        except (OSError, RuntimeError) as error:  # no permission, or links in a circle
            return path, None, f"{path} cannot be reached: {error}"
        if not folder.is_dir():
            return path, mount, f"{folder} is not a folder"
        if not os.access(folder, os.W_OK | os.X_OK):
            return path, mount, f"{folder} cannot be written"
        return path, mount, None

    @cached_property
    def home_mode(self) -> tuple[int | None, bool]:
        """Permissions of the home, None if it does not exist, and whether this user owns it."""
        if not self.home.path.exists():
            return None, True
        status = self.home.path.stat()
        return status.st_mode, status.st_uid == os.geteuid()

    @cached_property
    def settings(self) -> Settings | ConfigInvalid:
        """settings.yaml, or what is wrong with it."""
        from configs.settings import load_settings

        try:
            return load_settings(self.home.settings)
        except ConfigInvalid as error:
            return error

    @property
    def settings_or_defaults(self) -> Settings:
        """The settings; the defaults if settings.yaml is invalid."""
        from configs.settings import Settings

        return Settings() if isinstance(self.settings, ConfigInvalid) else self.settings

    @cached_property
    def open_files(self) -> tuple[int, int]:
        """Soft and hard limit of open files (RLIMIT_NOFILE)."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _finite(soft), _finite(hard)

    @cached_property
    def zone_name(self) -> str | None:
        """Name of the time zone; None if none is set."""
        return clock.zone_name(self.environment)

    # --- lq ---

    @cached_property
    def shadowed_package(self) -> tuple[str, Path] | None:
        """A package of lq that Python imports from another place, and that place."""
        from orchestrator.core.installation import shadowed

        return shadowed(_ROOT)

    @cached_property
    def lookalikes(self) -> list[Path]:
        """Files and folders on PYTHONPATH that have the name of a package of lq."""
        from orchestrator.core.installation import PACKAGES

        folders = [Path(part) for part in self.environment.get("PYTHONPATH", "").split(os.pathsep) if part]
        candidates = (folder / f"{name}{end}" for folder in folders for name in PACKAGES for end in (".py", ""))
        return [path for path in candidates if path.parent.resolve() != _ROOT and path.exists()]

    @cached_property
    def service_names(self) -> tuple[str, ...]:
        """Names of the notification services, never their URLs."""
        from orchestrator.notify.routing import service_names

        return tuple(service_names(self.settings_or_defaults.notify.everyone))

    @cached_property
    def unreported_jobs(self) -> list[int]:
        """Ids of the jobs that ended without a whole report; none if the store cannot be read."""
        from orchestrator.report.stored_verdict import lacks_report
        from orchestrator.store.store import Store
        from orchestrator.store.versions import MIGRATIONS, version_of

        with suppress(LqError):  # the checks of store and home report it
            if version_of(self.home.store) == int(MIGRATIONS.newest):
                with Store.open(self.home.store) as store:
                    return [job.id for job in store.jobs.overview(all_jobs=True) if lacks_report(store, job)]
        return []

    @cached_property
    def worker(self) -> Mapping[str, Any] | None:
        """Content of the worker's lock file; None if no worker runs."""
        with suppress(OSError):  # the check of the home reports it
            return control.running(self.home)
        return None

    @cached_property
    def service_file(self) -> ServiceFile:
        """The file that starts the worker after a login."""
        return read_service_file(self.environment)

    @cached_property
    def hub_cache(self) -> Path:
        """The folder in which the Hugging Face hub keeps models."""
        return hub_cache.hub_cache(self.environment)

    @cached_property
    def hub_cache_disk(self) -> tuple[bool, int]:
        """Whether the hub's cache can be written, and the free bytes on its disk."""
        cache = self.hub_cache
        folder = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK), shutil.disk_usage(folder).free

    @cached_property
    def hub_token(self) -> bool:
        """Whether a token is set. It is never shown."""
        path = Path(
            self.environment.get("HF_TOKEN_PATH") or hub_cache.hub_home(self.environment) / "token"
        ).expanduser()
        return bool(self.environment.get("HF_TOKEN")) or path.is_file()

    @cached_property
    def hub_offline(self) -> bool:
        """Whether HF_HUB_OFFLINE forbids downloads."""
        return hub_cache.is_offline(self.environment)


_ROOT = Path(__file__).resolve().parents[2]


def _finite(limit: int) -> int:
    return 1 << 62 if limit == resource.RLIM_INFINITY else limit
