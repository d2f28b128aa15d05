"""What the doctor reads of the file that starts the worker after a login: launchd's or systemd's."""

from __future__ import annotations

import dataclasses
import plistlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from orchestrator.core.paths import VARIABLE, Home
from orchestrator.service.units import LABEL, UNIT


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceReading:
    """What is known of the file that starts the worker after a login."""

    path: Path  # where it is or would be
    present: bool  # whether it is there
    program: str | None  # what it starts; None where it does not say
    program_there: bool  # whether that exists
    home: str | None  # the home it looks after; None where it does not say
    here: str  # this home


_STARTS = re.compile(r'^ExecStart=\s*(?:"([^"]+)"|(\S+))', re.MULTILINE)
_HOME = re.compile(rf'^Environment=.*?"?{VARIABLE}=([^"\n]*?)(?:"|\s|$)', re.MULTILINE)


def place(environment: Mapping[str, str], *, apple: bool = sys.platform == "darwin") -> Path:
    """Return where this system has such a file.

    Args:
        environment: such as os.environ.
        apple: launchd's, else systemd's.
    """
    if apple:
        return Path("~/Library/LaunchAgents").expanduser() / f"{LABEL}.plist"
    return Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user" / UNIT


def read(home: Home, environment: Mapping[str, str]) -> ServiceReading:
    """Read the file, where there is one.

    Args:
        home: this user's.
        environment: such as os.environ.
    """
    path = place(environment)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = None
    program, looks_after = said(content, is_plist=path.suffix == ".plist") if content is not None else (None, None)
    return ServiceReading(
        path=path,
        present=content is not None,
        program=program,
        program_there=program is not None and Path(program).exists(),
        home=looks_after,
        here=str(home.path),
    )


def said(content: bytes, *, is_plist: bool) -> tuple[str | None, str | None]:
    """Return the program a service's file starts, and the home it names; None for what it does not say."""
    if not is_plist:
        text = content.decode(errors="replace")
        starts, names = _STARTS.search(text), _HOME.search(text)
        return (starts[1] or starts[2]) if starts is not None else None, names[1] if names is not None else None
    try:
        found: Any = plistlib.loads(content)
        arguments, environment = found.get("ProgramArguments"), found.get("EnvironmentVariables") or {}
        return str(arguments[0]) if arguments else None, environment.get(VARIABLE)
    except (plistlib.InvalidFileException, ExpatError, ValueError, AttributeError, TypeError, KeyError):
        return None, None
