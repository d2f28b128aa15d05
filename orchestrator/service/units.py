"""Builds and parses the files of the service: a LaunchAgent for launchd, a user unit for systemd. Writes nothing."""

from __future__ import annotations

import configparser
import dataclasses
import plistlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from xml.parsers.expat import ExpatError

from orchestrator.core.paths import VARIABLE

ManagerKind = Literal["launchd", "systemd"]

LABEL = "local.lq.worker"
"""Label of the LaunchAgent."""

UNIT = "lq.service"

STOP_S = 300
"""Seconds that a worker may take to shut down: its trainers write a checkpoint first."""

RETRY_S = 10
"""Seconds before the manager starts a failed worker again. It never gives up: settings.yaml may be fixed later."""


def native_kind() -> ManagerKind:
    """Return the manager of this operating system."""
    return "launchd" if sys.platform == "darwin" else "systemd"


def file_path(kind: ManagerKind, environment: Mapping[str, str]) -> Path:
    """Return where the manager looks for the service's file."""
    if kind == "launchd":
        return Path("~/Library/LaunchAgents").expanduser() / f"{LABEL}.plist"
    return Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user" / UNIT


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServicePlan:
    """What a service runs."""

    command: tuple[str, ...]
    home: str  # $LQ_HOME
    path: str  # $PATH: MLX looks for g++ on it, lq for caffeinate and systemd-inhibit
    log: str  # file for stdout and stderr under launchd

    def environment(self) -> dict[str, str]:
        """Return the whole environment of a worker that the service starts."""
        return {VARIABLE: self.home, "PATH": self.path}


def plist(plan: ServicePlan) -> bytes:
    """Return the LaunchAgent.

    ProcessType is Interactive, because Metal is many times slower in Background work. KeepAlive restarts the worker
    only after a failure, so that `lq worker stop` stops it.
    """
    content: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": list(plan.command),
        "EnvironmentVariables": plan.environment(),
        "WorkingDirectory": "/",
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RETRY_S,
        "ProcessType": "Interactive",
        "ExitTimeOut": STOP_S,
        "Umask": 0o077,
        "StandardOutPath": plan.log,
        "StandardErrorPath": plan.log,
    }
    return plistlib.dumps(content, sort_keys=False)


def unit(plan: ServicePlan) -> bytes:
    """Return the systemd user unit.

    OOMPolicy: a trainer that the kernel kills for its memory does not end the worker. KillMode: TERM goes to the
    worker alone, whose trainers then write checkpoints; what remains after TimeoutStopSec is killed.
    """
    command = " ".join(_quoted(word).replace("$", "$$") for word in plan.command)
    environment = " ".join(_quoted(f"{name}={value}") for name, value in plan.environment().items())
    return f"""\
# Written by lq service install, which overwrites it.
[Unit]
Description=lq worker for fine-tuning runs
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Environment={environment}
WorkingDirectory=/
UMask=0077
Restart=on-failure
RestartSec={RETRY_S}
OOMPolicy=continue
KillMode=mixed
TimeoutStopSec={STOP_S}
StandardOutput=null

[Install]
WantedBy=default.target
""".encode()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceFile:
    """What the file of a service contains."""

    path: Path
    present: bool
    program: Path | None = None  # what it starts; None if it names none
    home: str | None = None  # the home that its worker serves; None if it names none
    search_path: str | None = None  # $PATH of its worker


def read_service_file(environment: Mapping[str, str], kind: ManagerKind | None = None) -> ServiceFile:
    """Read the file of the service, if it exists; by default that of this operating system's manager.

    Raises:
        OSError: the file exists and cannot be read.
    """
    kind = kind or native_kind()
    path = file_path(kind, environment)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ServiceFile(path=path, present=False)
    return parse(kind, content, path)


def parse(kind: ManagerKind, content: bytes, path: Path) -> ServiceFile:
    """Return what the content of a service's file says; a field that cannot be read is None."""
    command, environment = _of_plist(content) if kind == "launchd" else _of_unit(content)
    program = Path(command[0]) if command else None
    home, search_path = environment.get(VARIABLE), environment.get("PATH")
    return ServiceFile(path=path, present=True, program=program, home=home, search_path=search_path)


def _of_plist(content: bytes) -> tuple[list[str], dict[str, str]]:
    try:
        loaded: Any = plistlib.loads(content)
    except (plistlib.InvalidFileException, ExpatError, ValueError):
        return [], {}
    fields = loaded if isinstance(loaded, dict) else {}
    command, environment = fields.get("ProgramArguments"), fields.get("EnvironmentVariables")
    return (
        [str(word) for word in command] if isinstance(command, list) else [],
        {str(name): str(value) for name, value in environment.items()} if isinstance(environment, dict) else {},
    )


def _of_unit(content: bytes) -> tuple[list[str], dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(content.decode())
        command = shlex.split(parser.get("Service", "ExecStart", fallback=""))
        words = shlex.split(parser.get("Service", "Environment", fallback=""))
    except (configparser.Error, ValueError):
        return [], {}
    pairs = (word.replace("%%", "%").partition("=") for word in words)
    return [word.replace("%%", "%").replace("$$", "$") for word in command], {name: value for name, _, value in pairs}


def _quoted(word: str) -> str:
    """Return a word by systemd.syntax(7): one word, with nothing expanded in it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
