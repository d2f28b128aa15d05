"""Shows a banner on this machine's screen: osascript on macOS, notify-send on other systems.

The text is passed as arguments, never in a script or through a shell, so that a job's name cannot be run as a command.
"""

from __future__ import annotations

import html
import subprocess
import sys

LONGEST_TEXT = 400
"""Characters. A banner shows only a few lines, and the system may refuse a large argument."""

_SCRIPT = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")


def show(title: str, body: str, *, urgent: bool, timeout_s: float, system: str = sys.platform) -> str | None:
    """Show a banner, which stays on the screen if `urgent`; return None if the desktop accepted it, else the error."""
    text = body if len(body) <= LONGEST_TEXT else f"{body[: LONGEST_TEXT - 1]}…"
    command = mac_command(title, text) if system == "darwin" else linux_command(title, text, urgent=urgent)
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


def mac_command(title: str, body: str) -> list[str]:
    """Return the macOS command; the script receives title and body as `argv`."""
    script = [word for line in _SCRIPT for word in ("-e", line)]
    return ["osascript", *script, title, body]


def linux_command(title: str, body: str, *, urgent: bool) -> list[str]:
    """Return the freedesktop command; freedesktop reads the body as markup, so it is escaped."""
    urgency = "critical" if urgent else "normal"
    return ["notify-send", "--app-name=lq", f"--urgency={urgency}", "--", title, html.escape(body, quote=False)]
