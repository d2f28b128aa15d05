"""Runs a short system command and returns its output."""

from __future__ import annotations

import subprocess


def output(*command: str, timeout_s: float = 5.0) -> str | None:
    """Return what a command prints; None if it does not exist, fails, takes too long or prints nothing."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None
