"""How launchd and systemd --user are asked: each is its own command line, called with fixed words. Decides nothing."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Literal, Protocol

from jobs.model.errors import LqError
from orchestrator.service.units import LABEL, STOP_S, UNIT, Plan, plist, unit

Kind = Literal["launchd", "systemd"]

_ASK_S = 20.0
_CHANGE_S = STOP_S + 60.0
"""A change may wait for a worker that goes home."""

_PID = re.compile(r"^\s*pid = (\d+)$", re.MULTILINE)
_GONE_EVERY_S = 0.2


class Manager(Protocol):
    """What starts the worker at login, and again when it dies."""

    kind: Kind

    def file(self) -> Path:
        """Return where the service's file lies."""

    def content(self, plan: Plan) -> bytes:
        """Return what stands in it."""

    def missing(self) -> str | None:
        """Return why it cannot be asked here, None where it can."""

    def enabled(self) -> bool:
        """Say whether it starts the worker at login."""

    def pid(self) -> int | None:
        """Return the worker it has started, None where none runs."""

    def load(self, *, changed: bool) -> None:
        """Have it read the file and start the worker, anew where the file has changed."""

    def start(self) -> None:
        """Have it start the worker, where it does not run."""

    def unload(self) -> None:
        """Have it stop the worker, and never start it again."""

    def forget(self) -> None:
        """Have it notice that the file is gone."""

    def lingers(self) -> bool | None:
        """Say whether it runs without a login too; None where there is no such thing."""

    def linger(self) -> None:
        """Try to have it run without a login."""


class Systemd:
    """systemd's manager of this user."""

    kind: Kind = "systemd"

    def file(self) -> Path:
        """Return where user units lie."""
        named = os.environ.get("XDG_CONFIG_HOME")
        return (Path(named) if named else Path.home() / ".config") / "systemd" / "user" / UNIT

    def content(self, plan: Plan) -> bytes:
        """Return the unit."""
        return unit(plan)

    def missing(self) -> str | None:
        """Ask for its environment: that needs nothing but the manager."""
        return _refusal("systemctl", "--user", "show-environment")

    def enabled(self) -> bool:
        """Say whether the unit is wanted at login."""
        return self._show().get("UnitFileState") == "enabled"

    def pid(self) -> int | None:
        """Return the unit's main process."""
        return int(self._show().get("MainPID", "0")) or None

    def load(self, *, changed: bool) -> None:
        """Reload, enable, start; restart where the unit has changed."""
        _change("systemctl", "--user", "daemon-reload")
        _change("systemctl", "--user", "enable", UNIT)
        _change("systemctl", "--user", "restart" if changed else "start", UNIT)

    def start(self) -> None:
        """Start the unit."""
        _change("systemctl", "--user", "start", UNIT)

    def unload(self) -> None:
        """Disable the unit and stop it, which waits until the worker has gone home."""
        _change("systemctl", "--user", "disable", "--now", UNIT)

    def forget(self) -> None:
        """Reload."""
        _change("systemctl", "--user", "daemon-reload")

    def lingers(self) -> bool | None:
        """Ask the login manager; a user it does not know does not linger."""
        code, said = _run(_ASK_S, "loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")
        return code == 0 and said.strip() == "yes"

    def linger(self) -> None:
        """Ask for it; it may be refused."""
        _run(_ASK_S, "loginctl", "enable-linger")

    def _show(self) -> dict[str, str]:
        _, said = _run(_ASK_S, "systemctl", "--user", "show", UNIT, "--property=UnitFileState,MainPID")
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


class Launchd:
    """launchd's agents of this user, in the graphical session."""

    kind: Kind = "launchd"

    def file(self) -> Path:
        """Return where LaunchAgents lie."""
        return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    def content(self, plan: Plan) -> bytes:
        """Return the LaunchAgent."""
        return plist(plan)

    def missing(self) -> str | None:
        """Ask for the session's domain, which exists while this user is logged in at the screen."""
        return _refusal("launchctl", "print", self._domain())

    def enabled(self) -> bool:
        """Say whether the agent is there and not disabled."""
        code, said = _run(_ASK_S, "launchctl", "print-disabled", self._domain())
        off = re.search(rf'"{re.escape(LABEL)}" => (disabled|true)\b', said)
        return self.file().exists() and not (code == 0 and off)

    def pid(self) -> int | None:
        """Return the agent's process."""
        found = _PID.search(self._loaded() or "")
        return int(found[1]) if found else None

    def load(self, *, changed: bool) -> None:
        """Bootstrap the agent, which starts it; one that is loaded and was changed is taken out first."""
        if changed and self._loaded() is not None:
            self._boot_out()
        _change("launchctl", "enable", self._target())
        if self._loaded() is None:
            _change("launchctl", "bootstrap", self._domain(), str(self.file()))
        elif self.pid() is None:
            self.start()

    def start(self) -> None:
        """Start the agent."""
        _change("launchctl", "kickstart", self._target())

    def unload(self) -> None:
        """Take the agent out, and wait until the worker has gone home."""
        if self._loaded() is not None:
            self._boot_out()

    def forget(self) -> None:
        """Nothing: a file that is gone is not read at the next login."""

    def lingers(self) -> bool | None:
        """There is no such thing: agents live in a login."""
        return None

    def linger(self) -> None:
        """Nothing."""

    def _boot_out(self) -> None:
        # it may return before the agent has ended, and says so with an exit code of its own
        _run(_CHANGE_S, "launchctl", "bootout", self._target())
        deadline = time.monotonic() + _CHANGE_S
        while self._loaded() is not None:
            if time.monotonic() > deadline:
                raise LqError(
                    f"launchd still has {LABEL} after {_CHANGE_S:.0f} s; see: launchctl print {self._target()}"
                )
            time.sleep(_GONE_EVERY_S)

    def _loaded(self) -> str | None:
        code, said = _run(_ASK_S, "launchctl", "print", self._target())
        return said if code == 0 else None

    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def _target(self) -> str:
        return f"{self._domain()}/{LABEL}"


def manager_of(kind: str) -> Manager:
    """Return the manager of this kind."""
    return Launchd() if kind == "launchd" else Systemd()


def _refusal(*command: str) -> str | None:
    code, said = _run(_ASK_S, *command)
    lines = said.strip().splitlines()
    return None if code == 0 else lines[-1] if lines else f"{command[0]} failed"


def _change(*command: str) -> None:
    """Have something changed.

    Raises:
        LqError: it was refused; says what was asked and what was answered.
    """
    code, said = _run(_CHANGE_S, *command)
    if code != 0:
        lines = said.strip().splitlines()
        raise LqError(f"{' '.join(command)}: {lines[-1] if lines else f'exit code {code}'}")


def _run(timeout_s: float, *command: str) -> tuple[int, str]:
    """Run a command; return its exit code (127 where it is missing) and all it said."""
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
    """Return an environment in which answers are English, and systemd's socket is found in a bare shell too."""
    runtime = f"/run/user/{os.getuid()}"
    found = {"XDG_RUNTIME_DIR": runtime} if Path(runtime).is_dir() else {}
    return found | os.environ | {"LC_ALL": "C"}
