"""Durable file writes: a file is written under a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def fsync_file(path: Path) -> None:
    """Flush a file or a folder to the disk; on macOS through the drive's cache (F_FULLFSYNC)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is not None:
            with suppress(OSError):  # some file systems do not support it
                fcntl.fcntl(descriptor, full)
                return
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace the content of `path` atomically: a reader gets the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    fsync_file(partial)
    partial.replace(path)
    fsync_file(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write a small JSON file atomically."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def cap_log(path: Path, most: int) -> bool:
    """Truncate a log of more than `most` bytes while another process appends to it; return whether it was too long.

    The last part moves to `<name>.1` and replaces the previous one. A line that is written at that moment may be lost.
    """
    if not path.exists() or path.stat().st_size <= most:
        return False
    with path.open("rb") as source:
        source.seek(max(0, path.stat().st_size - most))
        newest = source.read(2 * most)
        os.truncate(path, 0)
    write_atomically(older_log(path), newest)
    return True


def older_log(path: Path) -> Path:
    """Return the path of the part before the present start of a log."""
    return path.with_name(f"{path.name}.1")
