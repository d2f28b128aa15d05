"""The service that starts the worker after a login or a reboot, and again when it crashes.

A user has one service, for one home. Its worker waits while another worker holds the home (`lq worker --standby`), so
the two never compete for the lock.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from jobs.model.errors import ConfigInvalid, InvalidInput, LqError, NotAllowed, NoWorker
from orchestrator.core.paths import Home
from orchestrator.service.managers import Manager, manager_of
from orchestrator.service.units import ManagerKind, ServiceFile, ServicePlan, native_kind, read_service_file
from orchestrator.worker import control
from workers.files.atomic import write_atomically

_HAND_OVER_S = 60.0
"""Seconds for a worker to start or to stop. A laptop that has just booted is slow."""

_POLL_S = 0.1

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceState:
    """The state of the service."""

    kind: ManagerKind  # launchd or systemd
    path: str  # path of its file, whether or not it exists
    installed: bool  # whether the file exists
    home: str | None  # the home that the installed service serves
    outdated: bool  # whether this lq would write another file
    missing: str | None  # why the manager cannot be queried; None if it can
    enabled: bool | None  # whether it starts at login; None if the manager cannot be queried
    pid: int | None  # process id of its worker, which may be on standby
    lingers: bool | None  # whether it runs without a login; None if unknown, or if the manager has no such setting


def plan_for(home: Home, *, path: str | None = None) -> ServicePlan:
    """Return what the service of a home runs: this Python and this lq, with `path` or the usable folders of $PATH.

    Raises:
        InvalidInput: a path has characters that no service file can hold.
    """
    command = (sys.executable, "-P", "-m", "orchestrator.cli", "worker", "--standby")
    plan = ServicePlan(command=command, home=str(home.path), path=path or _search_path(), log=str(home.start_log))
    for word in (*command, plan.home, plan.path):
        if not word.isprintable():
            raise InvalidInput(f"{word!r}: a service file cannot hold this path; rename the folder")
    return plan


def state(home: Home, manager: Manager) -> ServiceState:
    """Return the state of the service. Nothing is changed."""
    file = _read(manager)
    missing = manager.missing()
    reachable = missing is None
    wanted = manager.content(plan_for(home, path=file.search_path))
    return ServiceState(
        kind=manager.kind,
        path=str(file.path),
        installed=file.present,
        home=file.home,
        outdated=file.present and file.path.read_bytes() != wanted,
        missing=missing,
        enabled=manager.enabled() if reachable else None,
        pid=manager.pid() if reachable else None,
        lingers=manager.lingers() if reachable else None,
    )


def install(home: Home, manager: Manager, report: Callable[[str], None]) -> None:
    """Write the file, have the manager start the worker, and let that take over from a worker that already runs.

    Raises:
        NotAllowed: there is no manager here, or the service serves another home.
        LqError: the manager refused, or its worker did not start.
    """
    _require(manager)
    file = _read(manager)
    if file.home is not None and file.home != str(home.path):
        raise NotAllowed(f"the service serves {file.home}; first run: lq service uninstall")
    home.ensure()
    manager.load(changed=_write(manager, file, plan_for(home), report))
    _hand_over(home, manager, report)
    report(f"the service's worker runs (pid {_started_pid(home, manager)}) and serves {home.path}")
    if manager.lingers() is False:
        manager.linger()


def _write(manager: Manager, file: ServiceFile, plan: ServicePlan, report: Callable[[str], None]) -> bool:
    """Write the file if it differs; return whether an existing file has changed."""
    wanted = manager.content(plan)
    if file.present and file.path.read_bytes() == wanted:
        report(f"{file.path} is up to date")
        return False
    file.path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file.path, wanted)
    file.path.chmod(0o644)  # both managers warn about a file that only its owner can read; it holds no secret
    report(f"wrote {file.path}")
    return file.present


def uninstall(manager: Manager, report: Callable[[str], None]) -> None:
    """Stop the service's worker, whose jobs write a checkpoint and pause, and remove the file.

    Raises:
        NotAllowed: the service is installed, and there is no manager here that can stop it.
        LqError: the manager refused.
    """
    file = _read(manager)
    if not file.present:
        report(f"no service is installed ({file.path} does not exist)")
        return
    _require(manager)
    pid = manager.pid()
    if pid is not None:
        report(f"stopping worker {pid}: running jobs write a checkpoint and pause")
    manager.unload()
    file.path.unlink(missing_ok=True)
    manager.forget()
    report(f"removed {file.path}; jobs continue when a worker starts: lq worker start")


def start_worker(home: Home) -> int:
    """Start a worker and return its pid: by the service if it serves this home, else as a detached process.

    Raises:
        LqError: the worker did not start; the message has the reason.
    """
    manager = manager_of(native_kind())
    try:
        if _read(manager).home == str(home.path):
            manager.start()
            return _started_pid(home, manager, within_s=control.START_TIMEOUT_S)
    except (LqError, RuntimeError):
        pass  # a service that cannot be queried, or a user without a home folder, must not keep jobs from running
    return control.start_detached(home)


def settings_fault(home: Home) -> str | None:
    """Return what is wrong with settings.yaml in the environment of the service; None if nothing is."""
    from configs.settings import load_settings

    try:
        load_settings(home.settings, environ={})
    except ConfigInvalid as error:
        return str(error)
    return None


def _require(manager: Manager) -> None:
    missing = manager.missing()
    if missing is not None:
        name = "launchd's graphical session" if manager.kind == "launchd" else "systemd --user"
        raise NotAllowed(
            f"{name} is not available ({missing.rstrip('.')}); lq service print shows the file, "
            "and lq worker start starts a worker without a service"
        )


def _read(manager: Manager) -> ServiceFile:
    try:
        return read_service_file(os.environ, manager.kind)
    except OSError as error:
        raise LqError(f"{manager.file()}: cannot be read ({error.strerror}); remove it") from error


def _hand_over(home: Home, manager: Manager, report: Callable[[str], None]) -> None:
    """Stop a worker that the service did not start. Its trainers continue, and the service's worker adopts them."""
    present = control.running(home)
    if present is None or present["pid"] == _standby_pid(manager):
        return
    with suppress(NoWorker):  # it has stopped by itself
        control.stop(home, leave_running=True, timeout_s=_HAND_OVER_S)
    report(f"worker {present['pid']} stopped; its trainers continue")


def _standby_pid(manager: Manager) -> int:
    """Wait until the manager has started its worker, so that no other worker is stopped before."""
    refusal = f"{manager.kind} started no worker; the present worker continues; see: lq service status"
    return _awaited(manager.pid, control.START_TIMEOUT_S, refusal)


def _started_pid(home: Home, manager: Manager, *, within_s: float = _HAND_OVER_S) -> int:
    """Wait until the service's worker holds the home; return its pid."""
    how = "journalctl --user -u lq" if manager.kind == "systemd" else str(home.start_log)
    refusal = f"the service's worker did not start within {within_s:.0f} s; see: {how}"
    return int(_awaited(lambda: control.running(home), within_s, refusal)["pid"])


def _awaited(read: Callable[[], T | None], within_s: float, refusal: str) -> T:
    """Return the first value that is not None, or raise LqError with `refusal`."""
    deadline = time.monotonic() + within_s
    while (value := read()) is None:
        if time.monotonic() > deadline:
            raise LqError(refusal)
        time.sleep(_POLL_S)
    return value


def _search_path() -> str:
    """Return the existing absolute folders of $PATH, each once."""
    folders = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder.startswith("/")]
    usable = [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir() and folder.isprintable()]
    return os.pathsep.join(usable) or os.defpath
