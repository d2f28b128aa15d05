"""What launchd and systemd are told to run: the text of their files, and what such a file says. Writes nothing."""

from __future__ import annotations

import configparser
import dataclasses
import plistlib
import shlex
from typing import Any
from xml.parsers.expat import ExpatError

LABEL = "local.lq.worker"
"""Of the LaunchAgent."""

UNIT = "lq.service"

STOP_S = 300
"""How long a worker may take to go home: its trainers write a checkpoint first."""

RETRY_S = 10
"""Before a worker that failed is started again, for ever: what is broken may be settings.yaml, until it is mended."""

_HOME, _PATH = "LQ_HOME", "PATH"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a service runs."""

    command: tuple[str, ...]
    home: str  # $LQ_HOME
    path: str  # $PATH: MLX looks for g++ on it, lq for caffeinate and its like
    log: str  # what is written to stdout and stderr, under launchd

    def environment(self) -> dict[str, str]:
        """Return all that a worker under a service is given."""
        return {_HOME: self.home, _PATH: self.path}


def plist(plan: Plan) -> bytes:
    """Return the LaunchAgent.

    Interactive, because as Background work Metal is many times slower; kept alive only after a failure, so that
    `lq worker stop` stops it.
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


def unit(plan: Plan) -> bytes:
    """Return the systemd user unit.

    A trainer that the kernel kills for its memory does not end the worker (OOMPolicy); TERM goes to the worker alone,
    which has its trainers write checkpoints, and whatever is left after that is killed (KillMode).
    """
    command = " ".join(_quoted(word).replace("$", "$$") for word in plan.command)
    environment = " ".join(_quoted(f"{name}={value}") for name, value in plan.environment().items())
    return f"""\
# Written by lq service install, which writes it anew each time.
[Unit]
Description=lq, which looks after queued fine-tuning runs
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


def environment_in(kind: str, content: bytes) -> dict[str, str]:
    """Return the environment that a service's file gives its worker; empty where it cannot be read.

    Args:
        kind: launchd or systemd.
        content: of the file.
    """
    found = _of_plist(content) if kind == "launchd" else _of_unit(content)
    return {str(name): str(value) for name, value in found.items()}


def _of_plist(content: bytes) -> dict[str, Any]:
    try:
        read = plistlib.loads(content)
    except (plistlib.InvalidFileException, ExpatError, ValueError):
        return {}
    found = read.get("EnvironmentVariables") if isinstance(read, dict) else None
    return found if isinstance(found, dict) else {}


def _of_unit(content: bytes) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(content.decode())
        words = shlex.split(parser.get("Service", "Environment", fallback=""))
    except (configparser.Error, ValueError):
        return {}
    pairs = (word.replace("%%", "%").partition("=") for word in words)
    return {name: value for name, _, value in pairs}


def _quoted(word: str) -> str:
    """Return a word as systemd.syntax(7) has it: one word, nothing expanded in it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
