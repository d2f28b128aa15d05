"""launchd and systemd --user, each controlled by its own command with fixed arguments. Makes no decisions."""

from __future__ import annotations

import os
import re
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from jobs.model.errors import LqError
from orchestrator.service.units import LABEL, STOP_S, UNIT, ManagerKind, ServicePlan, file_path, plist, unit

_QUERY_S = 20.0
_CHANGE_S = STOP_S + 60.0
"""Seconds for a change, which may wait until a worker has shut down."""

_PID = re.compile(r"^\s*pid = (\d+)$", re.MULTILINE)
_POLL_S = 0.2


class Manager(ABC):
    """Starts the worker at login, and again when it crashes."""

    kind: ManagerKind

    def file(self) -> Path:
        """Return the path of the service's file."""
        return file_path(self.kind, os.environ)

    @abstractmethod
    def content(self, plan: ServicePlan) -> bytes:
        """Return the content of the file."""

    @abstractmethod
    def missing(self) -> str | None:
        """Return why the manager cannot be queried; None if it can."""

    @abstractmethod
    def enabled(self) -> bool:
        """Return whether it starts the worker at login."""

    @abstractmethod
    def pid(self) -> int | None:
        """Return the pid of the worker it has started; None if none runs."""

    @abstractmethod
    def load(self, *, changed: bool) -> None:
        """Read the file and start the worker; restart it if the file has changed."""

    @abstractmethod
    def start(self) -> None:
        """Start the worker if it does not run."""

    @abstractmethod
    def unload(self) -> None:
        """Stop the worker, and do not start it again; return when it has shut down."""

    def forget(self) -> None:  # noqa: B027 launchd reads no removed file at the next login
        """Reload after the file was removed."""

    def lingers(self) -> bool | None:
        """Return whether it also runs without a login; None if the manager has no such setting."""
        return None

    def linger(self) -> None:  # noqa: B027 launchd runs agents in a login only
        """Ask for it to run without a login; the system may refuse."""


class Systemd(Manager):
    """systemd's manager for this user."""

    kind: ManagerKind = "systemd"

    def content(self, plan: ServicePlan) -> bytes:
        return unit(plan)

    def missing(self) -> str | None:
        """Query the environment of the manager, which needs nothing but the manager."""
        return _refusal("systemctl", "--user", "show-environment")

    def enabled(self) -> bool:
        return self._show().get("UnitFileState") == "enabled"

    def pid(self) -> int | None:
        return int(self._show().get("MainPID", "0")) or None

    def load(self, *, changed: bool) -> None:
        _change("systemctl", "--user", "daemon-reload")
        _change("systemctl", "--user", "enable", UNIT)
        _change("systemctl", "--user", "restart" if changed else "start", UNIT)

    def start(self) -> None:
        _change("systemctl", "--user", "start", UNIT)

    def unload(self) -> None:
        _change("systemctl", "--user", "disable", "--now", UNIT)

    def forget(self) -> None:
        _change("systemctl", "--user", "daemon-reload")

    def lingers(self) -> bool | None:
        """Query the login manager; a user that it does not know does not linger."""
        code, output = _run(_QUERY_S, "loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")
        return code == 0 and output.strip() == "yes"

    def linger(self) -> None:
        _run(_QUERY_S, "loginctl", "enable-linger")

    def _show(self) -> dict[str, str]:
        _, output = _run(_QUERY_S, "systemctl", "--user", "show", UNIT, "--property=UnitFileState,MainPID")
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


class Launchd(Manager):
    """launchd's agents of this user, in the graphical session."""

    kind: ManagerKind = "launchd"

    def content(self, plan: ServicePlan) -> bytes:
        return plist(plan)

    def missing(self) -> str | None:
        """Query the domain of the session, which exists while this user is logged in at the screen."""
        return _refusal("launchctl", "print", self._domain())

    def enabled(self) -> bool:
        code, output = _run(_QUERY_S, "launchctl", "print-disabled", self._domain())
        off = re.search(rf'"{re.escape(LABEL)}" => (disabled|true)\b', output)
        return self.file().exists() and not (code == 0 and off)

    def pid(self) -> int | None:
        match = _PID.search(self._loaded() or "")
        return int(match[1]) if match else None

    def load(self, *, changed: bool) -> None:
        """Bootstrap the agent, which starts it; a loaded agent that has changed is removed first."""
        if changed and self._loaded() is not None:
            self._boot_out()
        _change("launchctl", "enable", self._target())
        if self._loaded() is None:
            _change("launchctl", "bootstrap", self._domain(), str(self.file()))
        elif self.pid() is None:
            self.start()

    def start(self) -> None:
        _change("launchctl", "kickstart", self._target())

    def unload(self) -> None:
        if self._loaded() is not None:
            self._boot_out()

    def _boot_out(self) -> None:
        # bootout may return before the agent has ended, with an exit code of its own
        _run(_CHANGE_S, "launchctl", "bootout", self._target())
        deadline = time.monotonic() + _CHANGE_S
        while self._loaded() is not None:
            if time.monotonic() > deadline:
                raise LqError(
                    f"launchd still lists {LABEL} after {_CHANGE_S:.0f} s; see: launchctl print {self._target()}"
                )
            time.sleep(_POLL_S)

    def _loaded(self) -> str | None:
        code, output = _run(_QUERY_S, "launchctl", "print", self._target())
        return output if code == 0 else None

    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def _target(self) -> str:
        return f"{self._domain()}/{LABEL}"


def manager_of(kind: str) -> Manager:
    """Return the manager of a kind."""
    return Launchd() if kind == "launchd" else Systemd()


def _refusal(*command: str) -> str | None:
    code, output = _run(_QUERY_S, *command)
    lines = output.strip().splitlines()
    return None if code == 0 else lines[-1] if lines else f"{command[0]} failed"


def _change(*command: str) -> None:
    """Run a command that changes something.

    Raises:
        LqError: it failed; the message has the command and its last output line.
    """
    code, output = _run(_CHANGE_S, *command)
    if code != 0:
        lines = output.strip().splitlines()
        raise LqError(f"{' '.join(command)}: {lines[-1] if lines else f'exit code {code}'}")


def _run(timeout_s: float, *command: str) -> tuple[int, str]:
    """Run a command; return its exit code (127 if it is not installed) and its output."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(),
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"{command[0]}: {error}"
    return done.returncode, done.stdout


def _environment() -> dict[str, str]:
    """Return an environment for English output, in which systemd's socket is found in a bare shell too."""
    runtime = f"/run/user/{os.getuid()}"
    defaults = {"XDG_RUNTIME_DIR": runtime} if Path(runtime).is_dir() else {}
    return defaults | os.environ | {"LC_ALL": "C"}
