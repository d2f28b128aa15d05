"""Files that survive a power cut: written beside, flushed to the disk, then named."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def fsync_file(path: Path) -> None:
    """Flush a file or a folder to the disk itself; on macOS past the drive's own cache (F_FULLFSYNC)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is not None:
            with suppress(OSError):  # not every file system has it
                fcntl.fcntl(descriptor, full)
                return
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Give `path` this content all at once: a reader sees the old file or the new one, never half of it."""
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
    """Begin a log anew when it has grown too long, under the feet of whoever appends to it.

    Its last part goes to `<name>.1`, in place of what was there. A line written in that very moment may be lost.

    Args:
        path: the log; absent means nothing to do.
        most: bytes.

    Returns:
        Whether it was begun anew.
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
    """Return where the part before the present beginning of a log lies."""
    return path.with_name(f"{path.name}.1")
