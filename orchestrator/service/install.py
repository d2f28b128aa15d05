"""The service that starts the worker after a login or a reboot, and again when it dies.

One a user, for one home. Its worker stands by while another one has the home (`lq worker --standby`), so there is
never a fight over the lock. What the two systems are asked is in service_managers.py, their files in service_files.py.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jobs.model.errors import ConfigInvalid, InvalidInput, LqError, NotAllowed, NoWorker
from orchestrator.core.paths import Home
from orchestrator.service.managers import Kind, Manager, manager_of
from orchestrator.service.units import Plan, environment_in
from orchestrator.worker import control
from workers.files.atomic import write_atomically

_TAKES_OVER_S = 60.0
"""For a worker to come or go: a laptop that has just started does much at once."""

_LOOK_EVERY_S = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What is known of the service."""

    kind: Kind
    path: str  # of its file, whether it is there or not
    installed: bool  # the file is there
    home: str | None  # that the installed one looks after
    outdated: bool  # this lq would write another file
    missing: str | None  # why its manager cannot be asked; None where it can
    enabled: bool | None  # starts at login; None where the manager cannot be asked
    pid: int | None  # of its worker, which may stand by
    lingers: bool | None  # runs without a login too; None where there is no such thing, or nobody to ask


def usual_kind() -> Kind:
    """Return what this system has."""
    return "launchd" if sys.platform == "darwin" else "systemd"


def plan_for(home: Home, *, path: str | None = None) -> Plan:
    """Return what the service of a home runs: this Python and this lq.

    Args:
        home: whose jobs.
        path: $PATH; what of this process's own is of use where absent.

    Raises:
        InvalidInput: a place has a name that no service file can hold.
    """
    command = (sys.executable, "-P", "-m", "orchestrator.cli", "worker", "--standby")
    plan = Plan(command=command, home=str(home.path), path=path or _search_path(), log=str(home.start_log))
    for word in (*command, plan.home, plan.path):
        if not word.isprintable():
            raise InvalidInput(f"{word!r}: a service file cannot hold such a name; move it to a plainer place")
    return plan


def state(home: Home, manager: Manager) -> State:
    """Look at the service; nothing is changed."""
    present = _read(manager)
    environment = environment_in(manager.kind, present or b"")
    missing = manager.missing()
    asked = missing is None
    same = present is None or present == manager.content(plan_for(home, path=environment.get("PATH")))
    return State(
        kind=manager.kind,
        path=str(manager.file()),
        installed=present is not None,
        home=environment.get("LQ_HOME"),
        outdated=not same,
        missing=missing,
        enabled=manager.enabled() if asked else None,
        pid=manager.pid() if asked else None,
        lingers=manager.lingers() if asked else None,
    )


def install(home: Home, manager: Manager, say: Callable[[str], None]) -> None:
    """Write the file, have the manager start the worker, and let that take over from one that runs already.

    Args:
        home: whose jobs.
        manager: launchd or systemd.
        say: told what changed.

    Raises:
        NotAllowed: there is no manager here, or the service looks after another home.
        LqError: the manager refused, or its worker did not come.
    """
    _require(manager)
    present = _read(manager)
    other = environment_in(manager.kind, present or b"").get("LQ_HOME")
    if other is not None and other != str(home.path):
        raise NotAllowed(f"the service looks after {other}; first: lq service uninstall")
    home.ensure()
    wanted = manager.content(plan_for(home))
    if present == wanted:
        say(f"{manager.file()} is up to date")
    else:
        manager.file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(manager.file(), wanted)
        manager.file().chmod(0o644)  # both systems frown on a file that only its owner reads; it holds no secret
        say(f"wrote {manager.file()}")
    manager.load(changed=present not in (None, wanted))
    _hand_over(home, manager, say)
    say(f"the service's worker runs (pid {_arrived(home, manager)}) and looks after {home.path}")
    if manager.lingers() is False:
        manager.linger()


def uninstall(manager: Manager, say: Callable[[str], None]) -> None:
    """Stop the service's worker, whose jobs write a checkpoint and pause, and remove the file.

    Args:
        manager: launchd or systemd.
        say: told what changed.

    Raises:
        NotAllowed: it is installed, and there is no manager here to stop it.
        LqError: the manager refused.
    """
    if _read(manager) is None:
        say(f"no service is installed ({manager.file()} is not there)")
        return
    _require(manager)
    pid = manager.pid()
    if pid is not None:
        say(f"stopping worker {pid}: running jobs write a checkpoint and pause")
    manager.unload()
    manager.file().unlink(missing_ok=True)
    manager.forget()
    say(f"removed {manager.file()}; jobs go on when a worker starts: lq worker --detach")


def start_worker(home: Home) -> int:
    """Start a worker, by the service where that looks after this home, else detached; return its pid.

    Raises:
        LqError: it did not start; says why.
    """
    manager = manager_of(usual_kind())
    try:
        if environment_in(manager.kind, _read(manager) or b"").get("LQ_HOME") == str(home.path):
            manager.start()
            return _arrived(home, manager, within_s=control.START_TIMEOUT_S)
    except (LqError, RuntimeError):
        pass  # a service that cannot be asked, or a user without a home folder, must not keep jobs from running
    return control.start_detached(home)


def settings_fault(home: Home) -> str | None:
    """Return what settings.yaml lacks where only the service's environment is there, None where it lacks nothing."""
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
            f"{name} cannot be asked here ({missing.rstrip('.')}); lq service print shows what would be installed, "
            "and lq worker --detach starts a worker without it"
        )


def _read(manager: Manager) -> bytes | None:
    try:
        return manager.file().read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LqError(f"{manager.file()}: cannot be read ({error.strerror}); remove it") from error


def _hand_over(home: Home, manager: Manager, say: Callable[[str], None]) -> None:
    """Send a worker home that is not the service's; its trainers train on, and the one that stands by adopts them."""
    present = control.running(home)
    if present is None or present["pid"] == _spawned(manager):
        return
    with suppress(NoWorker):  # it has gone by itself
        control.stop(home, leave_running=True, timeout_s=_TAKES_OVER_S)
    say(f"worker {present['pid']} went home; its trainers train on")


def _spawned(manager: Manager) -> int:
    """Wait until the manager has started its worker; nobody is sent home before.

    Raises:
        LqError: it does not start one.
    """
    deadline = time.monotonic() + control.START_TIMEOUT_S
    while (pid := manager.pid()) is None:
        if time.monotonic() > deadline:
            raise LqError(f"{manager.kind} started no worker; the one that runs goes on; see: lq service status")
        time.sleep(_LOOK_EVERY_S)
    return pid


def _arrived(home: Home, manager: Manager, *, within_s: float = _TAKES_OVER_S) -> int:
    """Wait for the service's worker; return its pid.

    Raises:
        LqError: it does not come.
    """
    deadline = time.monotonic() + within_s
    while (present := control.running(home)) is None:
        if time.monotonic() > deadline:
            how = "journalctl --user -u lq" if manager.kind == "systemd" else str(home.start_log)
            raise LqError(f"the service's worker did not start within {within_s:.0f} s; see: {how}")
        time.sleep(_LOOK_EVERY_S)
    return int(present["pid"])


def _search_path() -> str:
    """Return the folders of $PATH that are there and have a whole name, each once."""
    found = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder.startswith("/")]
    there = [folder for folder in dict.fromkeys(found) if Path(folder).is_dir() and folder.isprintable()]
    return os.pathsep.join(there) or os.defpath
