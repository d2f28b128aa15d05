"""A banner on this machine's own screen: osascript on macOS, notify-send elsewhere.

The text goes as arguments, never into a script or through a shell: a job's name cannot become a command.
"""

from __future__ import annotations

import html
import subprocess
import sys

LONGEST_TEXT = 400
"""Characters; a banner shows a few lines, and a large argument could be refused."""

_SCRIPT = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")


def show(title: str, body: str, *, urgent: bool, timeout_s: float, system: str = sys.platform) -> str | None:
    """Show a banner.

    Args:
        title: one line, beginning with a letter.
        body: some lines.
        urgent: stays on the screen where the desktop has such a thing.
        timeout_s: seconds after which the command is killed.
        system: as sys.platform has it.

    Returns:
        None where the desktop took it, else why not.
    """
    text = body if len(body) <= LONGEST_TEXT else f"{body[: LONGEST_TEXT - 1]}…"
    command = banner(title, text) if system == "darwin" else bubble(title, text, urgent=urgent)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return "timed out"
    except (OSError, ValueError):
        return "failed"
    return None if done.returncode == 0 else f"{command[0]} failed (no desktop?)"


def banner(title: str, body: str) -> list[str]:
    """Return the macOS command; what follows the script reaches it as `argv`."""
    script = [word for line in _SCRIPT for word in ("-e", line)]
    return ["osascript", *script, title, body]


def bubble(title: str, body: str, *, urgent: bool) -> list[str]:
    """Return the command of freedesktop's notifications, whose body is read as markup."""
    urgency = "critical" if urgent else "normal"
    return ["notify-send", "--app-name=lq", f"--urgency={urgency}", "--", title, html.escape(body, quote=False)]
